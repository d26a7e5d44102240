/* How streams begin and end: connecting, failures of the socket, closing inside every event. */
#include "helper_user.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* --- failures -------------------------------------------------------------------------------------- */

static void a_reset_is_a_failure(void **state)
{
    struct net_test *t = *state;
    int fd;
    struct user *u = user_open_tcp(t, &fd);
    u->close_on = ON_FAILED;
    test_reset(fd);
    RUN_UNTIL(t, u->closed);
    assert_int_equal(u->failures, 1);
    assert_int_equal(u->failure, ERR_RESET);
    assert_int_equal(u->eofs, 0);
    user_destroy(t, u);
}

static void bytes_before_a_reset_are_read_first(void **state)
{
    struct net_test *t = *state;
    int fd;
    struct user *u = user_open_tcp(t, &fd);
    u->close_on = ON_FAILED;
    test_send(fd, "last words");
    test_reset(fd);
    RUN_UNTIL(t, u->closed);
    assert_string_equal(u->got, "last words");
    assert_int_equal(u->failure, ERR_RESET);
    user_destroy(t, u);
}

/* A server that answers early and goes away: our write fails, its answer must still be read. */
static void reading_goes_on_after_a_failed_write(void **state)
{
    struct net_test *t = *state;
    int fd;
    struct user *u = user_open_tcp(t, &fd);
    test_send(fd, "early answer");
    test_reset(fd);
    assert_int_equal(user_write(u, "more of my request", 18), ERR_RESET);
    assert_int_equal(user_write(u, "and more", 8), ERR_RESET); /* fails the same way, without a system call */
    assert_true(u->stream.write_failed);
    RUN_UNTIL(t, u->eofs || u->failures);
    assert_string_equal(u->got, "early answer");
    user_destroy(t, u);
}

static void pending_bytes_are_dropped_when_sending_fails(void **state)
{
    struct net_test *t = *state;
    int fd;
    struct user *u = user_open_tcp(t, &fd);
    char *sent = test_pattern(MUCH);
    while (!stream_is_blocked(&u->stream))
        assert_int_equal(user_write(u, sent, MUCH), ERR_OK);
    stream_read_pause(&u->stream);
    test_reset(fd);
    RUN_UNTIL(t, u->drains); /* whoever waits for room is woken */
    assert_true(u->stream.write_failed);
    assert_false(stream_is_blocked(&u->stream));
    assert_null(u->stream.pending);
    free(sent);
    user_destroy(t, u);
}

/* Nobody waits for anything: an error on the socket must not wake the loop again and again. */
static void an_error_while_paused_does_not_spin(void **state)
{
    struct net_test *t = *state;
    int fd;
    struct user *u = user_open_tcp(t, &fd);
    stream_read_pause(&u->stream);
    net_test_settle(t);
    unsigned before = t->turns;
    test_reset(fd);
    net_test_settle(t);
    assert_true(t->turns <= before + 1);
    assert_int_equal(u->failures, 0);
    stream_read_resume(&u->stream); /* and is found when somebody looks */
    RUN_UNTIL(t, u->failures || u->eofs);
    assert_int_equal(u->failure, ERR_RESET);
    user_destroy(t, u);
}

static void an_error_with_bytes_pending_while_paused_does_not_spin(void **state)
{
    struct net_test *t = *state;
    int fd;
    struct user *u = user_open_tcp(t, &fd);
    char *sent = test_pattern(MUCH);
    while (!stream_is_blocked(&u->stream))
        assert_int_equal(user_write(u, sent, MUCH), ERR_OK);
    stream_read_pause(&u->stream);
    test_reset(fd);
    RUN_UNTIL(t, u->drains);
    unsigned before = t->turns;
    net_test_settle(t);
    assert_true(t->turns <= before + 1);
    free(sent);
    user_destroy(t, u);
}

static void both_ends_shut_does_not_spin(void **state)
{
    struct net_test *t = *state;
    int fd;
    struct user *u = user_open_tcp(t, &fd);
    shutdown(fd, SHUT_WR);
    RUN_UNTIL(t, u->eofs);
    stream_shutdown(&u->stream);
    net_test_settle(t);
    unsigned before = t->turns;
    net_test_settle(t);
    assert_int_equal(t->turns, before);
    close(fd);
    user_destroy(t, u);
}

/* --- connecting ------------------------------------------------------------------------------------ */

static void connects_and_sends_what_was_queued(void **state)
{
    struct net_test *t = *state;
    struct socket_address to;
    char got[16] = {0};
    int listening = test_listen(&to);
    struct user *u = user_create();
    assert_int_equal(stream_connect(&u->stream, &t->loop, &to, &user_events), ERR_OK);
    assert_int_equal(u->connected, 0); /* never before stream_connect() returns */
    assert_true(stream_is_blocked(&u->stream));
    assert_int_equal(user_write(u, "que", 3), ERR_OK);
    assert_int_equal(user_write(u, "ued", 3), ERR_OK);
    RUN_UNTIL(t, u->drains);
    assert_int_equal(u->connected, 1);
    int fd = accept(listening, NULL, NULL);
    assert_int_equal(recv(fd, got, sizeof got, 0), 6);
    assert_string_equal(got, "queued");
    test_send(fd, "back");
    RUN_UNTIL(t, u->ngot == 4);
    close(fd);
    close(listening);
    user_destroy(t, u);
}

static void a_refused_connection_fails_later(void **state)
{
    struct net_test *t = *state;
    struct socket_address to;
    close(test_listen(&to)); /* nobody listens there any more */
    struct user *u = user_create();
    u->close_on = ON_FAILED;
    assert_int_equal(stream_connect(&u->stream, &t->loop, &to, &user_events), ERR_OK);
    assert_int_equal(user_write(u, "queued", 6), ERR_OK);
    assert_int_equal(u->failures, 0);
    RUN_UNTIL(t, u->closed);
    assert_int_equal(u->failures, 1);
    assert_int_equal(u->failure, ERR_REFUSED);
    assert_int_equal(u->connected + u->drains + u->eofs, 0);
    user_destroy(t, u);
}

static void a_failed_connect_that_is_not_closed_is_quiet(void **state)
{
    struct net_test *t = *state;
    struct socket_address to;
    close(test_listen(&to));
    struct user *u = user_create();
    assert_int_equal(stream_connect(&u->stream, &t->loop, &to, &user_events), ERR_OK);
    RUN_UNTIL(t, u->failures);
    unsigned before = t->turns;
    net_test_settle(t);
    assert_int_equal(u->failures, 1);
    assert_int_equal(t->turns, before);
    user_destroy(t, u);
}

static void a_connect_that_fails_at_once_has_no_events(void **state)
{
    struct net_test *t = *state;
    struct socket_address to;
    struct user *u = user_create();
    assert_int_equal(socket_address_unix("/nonexistent/folder/socket", &to), ERR_OK);
    assert_int_equal(stream_connect(&u->stream, &t->loop, &to, &user_events), ERR_NOT_FOUND);
    assert_int_equal(u->stream.state, STREAM_NONE);
    net_test_settle(t);
    assert_int_equal(u->failures + u->closed, 0);
    user_destroy(t, u); /* closing it is harmless */
}

static void a_shutdown_while_connecting_is_kept(void **state)
{
    struct net_test *t = *state;
    for (int with_bytes = 0; with_bytes < 2; with_bytes++) {
        struct socket_address to;
        char got[16];
        int listening = test_listen(&to);
        struct user *u = user_create();
        assert_int_equal(stream_connect(&u->stream, &t->loop, &to, &user_events), ERR_OK);
        if (with_bytes) assert_int_equal(user_write(u, "bye", 3), ERR_OK);
        stream_shutdown(&u->stream);
        RUN_UNTIL(t, u->connected);
        net_test_settle(t);
        int fd = accept(listening, NULL, NULL);
        if (with_bytes) assert_int_equal(test_recv(fd, got, sizeof got), 3);
        assert_int_equal(test_recv(fd, got, sizeof got), 0); /* the FIN */
        close(fd);
        close(listening);
        user_destroy(t, u);
    }
}

static void connecting_may_be_given_up(void **state)
{
    struct net_test *t = *state;
    struct socket_address to;
    int listening = test_listen(&to);
    struct user *u = user_create();
    assert_int_equal(stream_connect(&u->stream, &t->loop, &to, &user_events), ERR_OK);
    assert_int_equal(user_write(u, "never sent", 10), ERR_OK);
    stream_close(&u->stream, STREAM_END_CLOSE);
    RUN_UNTIL(t, u->closed);
    assert_int_equal(u->connected + u->failures + u->drains, 0);
    close(listening);
    user_destroy(t, u);
}

/* --- ends ------------------------------------------------------------------------------------------ */

static void an_ordinary_close_delivers_what_was_sent(void **state)
{
    struct net_test *t = *state;
    int fd;
    char got[16];
    struct user *u = user_open_tcp(t, &fd);
    assert_int_equal(user_write(u, "whole", 5), ERR_OK);
    stream_close(&u->stream, STREAM_END_CLOSE);
    assert_int_equal(test_recv(fd, got, sizeof got), 5);
    assert_int_equal(test_recv(fd, got, sizeof got), 0);
    close(fd);
    user_destroy(t, u);
}

static void a_reset_end_is_an_error_for_the_other_side(void **state)
{
    struct net_test *t = *state;
    int fd;
    char got[16];
    struct user *u = user_open_tcp(t, &fd);
    stream_close(&u->stream, STREAM_END_RESET);
    assert_int_equal(test_recv(fd, got, sizeof got), -ECONNRESET);
    close(fd);
    user_destroy(t, u);
}

static void closing_is_idempotent_and_ends_in_a_later_turn(void **state)
{
    struct net_test *t = *state;
    int fd;
    struct user *u = user_open_unix(t, &fd);
    test_send(fd, "unread");
    stream_close(&u->stream, STREAM_END_CLOSE);
    stream_close(&u->stream, STREAM_END_RESET);
    assert_int_equal(u->closed, 0);
    assert_int_equal(user_write(u, "x", 1), ERR_CLOSED);
    RUN_UNTIL(t, u->closed);
    stream_close(&u->stream, STREAM_END_CLOSE);
    net_test_settle(t);
    assert_int_equal(u->closed, 1);
    assert_int_equal(u->reads, 0);
    close(fd);
    user_destroy(t, u);
}

static void check_closed_inside(struct net_test *t, struct user *u, const unsigned *event)
{
    RUN_UNTIL(t, u->closed);
    net_test_settle(t);
    assert_int_equal(*event, 1);
    assert_int_equal(u->closed, 1);
    assert_int_equal(u->stream.state, STREAM_NONE);
    user_destroy(t, u);
}

static void may_be_closed_inside_on_read(void **state)
{
    struct net_test *t = *state;
    int fd;
    struct user *u = user_open_tcp(t, &fd);
    u->close_on = ON_READ;
    test_send(fd, "one");
    close(fd); /* the end is behind it, and is not told any more */
    check_closed_inside(t, u, &u->reads);
}

static void may_be_closed_inside_on_eof(void **state)
{
    struct net_test *t = *state;
    int fd;
    struct user *u = user_open_tcp(t, &fd);
    u->close_on = ON_EOF;
    close(fd);
    check_closed_inside(t, u, &u->eofs);
}

static void may_be_closed_inside_on_drained(void **state)
{
    struct net_test *t = *state;
    int fd;
    struct user *u = user_open_unix(t, &fd);
    u->close_on = ON_DRAINED;
    char *sent = test_pattern(MUCH), *got = malloc(MUCH);
    assert_int_equal(user_write(u, sent, MUCH), ERR_OK);
    test_send(fd, "also readable");
    user_drain(t, u, fd, got, MUCH);
    free(sent);
    free(got);
    close(fd);
    check_closed_inside(t, u, &u->drains);
}

static void may_be_closed_inside_on_drained_after_a_failure(void **state)
{
    struct net_test *t = *state;
    int fd;
    struct user *u = user_open_tcp(t, &fd);
    u->close_on = ON_DRAINED;
    char *sent = test_pattern(MUCH);
    while (!stream_is_blocked(&u->stream))
        assert_int_equal(user_write(u, sent, MUCH), ERR_OK);
    test_reset(fd);
    free(sent);
    check_closed_inside(t, u, &u->drains);
}

static void may_be_closed_inside_on_connected(void **state)
{
    struct net_test *t = *state;
    struct socket_address to;
    int listening = test_listen(&to);
    struct user *u = user_create();
    u->close_on = ON_CONNECTED;
    assert_int_equal(stream_connect(&u->stream, &t->loop, &to, &user_events), ERR_OK);
    assert_int_equal(user_write(u, "queued", 6), ERR_OK);
    check_closed_inside(t, u, &u->connected);
    close(listening);
}

#define STREAM_TEST(name) cmocka_unit_test_setup_teardown(name, net_test_setup, net_test_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STREAM_TEST(a_reset_is_a_failure),
        STREAM_TEST(bytes_before_a_reset_are_read_first),
        STREAM_TEST(reading_goes_on_after_a_failed_write),
        STREAM_TEST(pending_bytes_are_dropped_when_sending_fails),
        STREAM_TEST(an_error_while_paused_does_not_spin),
        STREAM_TEST(an_error_with_bytes_pending_while_paused_does_not_spin),
        STREAM_TEST(both_ends_shut_does_not_spin),
        STREAM_TEST(connects_and_sends_what_was_queued),
        STREAM_TEST(a_refused_connection_fails_later),
        STREAM_TEST(a_failed_connect_that_is_not_closed_is_quiet),
        STREAM_TEST(a_connect_that_fails_at_once_has_no_events),
        STREAM_TEST(a_shutdown_while_connecting_is_kept),
        STREAM_TEST(connecting_may_be_given_up),
        STREAM_TEST(an_ordinary_close_delivers_what_was_sent),
        STREAM_TEST(a_reset_end_is_an_error_for_the_other_side),
        STREAM_TEST(closing_is_idempotent_and_ends_in_a_later_turn),
        STREAM_TEST(may_be_closed_inside_on_read),
        STREAM_TEST(may_be_closed_inside_on_eof),
        STREAM_TEST(may_be_closed_inside_on_drained),
        STREAM_TEST(may_be_closed_inside_on_drained_after_a_failure),
        STREAM_TEST(may_be_closed_inside_on_connected),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
