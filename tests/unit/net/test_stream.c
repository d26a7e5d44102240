/* Reading and writing through a stream over real sockets of this machine: order, short writes, back-pressure.
 */
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

/* --- reading --------------------------------------------------------------------------------------- */

static void received_bytes_are_handed_over(void **state)
{
    struct net_test *t = *state;
    int fd;
    struct user *u = user_open_unix(t, &fd);
    test_send(fd, "hello");
    RUN_UNTIL(t, u->ngot == 5);
    assert_string_equal(u->got, "hello");
    assert_int_equal(u->stream.bytes_in, 5);
    close(fd);
    user_destroy(t, u);
}

static void the_end_comes_once_and_after_the_bytes(void **state)
{
    struct net_test *t = *state;
    int fd;
    struct user *u = user_open_tcp(t, &fd);
    test_send(fd, "last words");
    close(fd);
    RUN_UNTIL(t, u->eofs);
    net_test_settle(t);
    assert_string_equal(u->got, "last words");
    assert_int_equal(u->eofs, 1);
    assert_int_equal(u->failures, 0);
    user_destroy(t, u);
}

static void a_half_closed_stream_still_sends(void **state)
{
    struct net_test *t = *state;
    int fd;
    char got[16] = {0};
    struct user *u = user_open_tcp(t, &fd);
    shutdown(fd, SHUT_WR);
    RUN_UNTIL(t, u->eofs);
    assert_int_equal(user_write(u, "answer", 6), ERR_OK);
    assert_int_equal(test_recv(fd, got, sizeof got), 6);
    assert_string_equal(got, "answer");
    stream_shutdown(&u->stream);
    assert_int_equal(test_recv(fd, got, sizeof got), 0);
    close(fd);
    user_destroy(t, u);
}

static void nothing_is_read_while_paused(void **state)
{
    struct net_test *t = *state;
    int fd;
    struct user *u = user_open_unix(t, &fd);
    stream_read_pause(&u->stream);
    test_send(fd, "later");
    shutdown(fd, SHUT_WR);
    net_test_settle(t);
    assert_int_equal(u->reads + u->eofs, 0);
    stream_read_resume(&u->stream);
    RUN_UNTIL(t, u->eofs);
    assert_string_equal(u->got, "later");
    close(fd);
    user_destroy(t, u);
}

static void read_now_does_not_wait_for_the_next_turn(void **state)
{
    struct net_test *t = *state;
    int fd;
    struct user *u = user_open_unix(t, &fd);
    loop_turn(&t->loop);
    stream_read_now(&u->stream); /* nothing there: harmless */
    assert_int_equal(u->reads, 0);
    test_send(fd, "there");
    stream_read_now(&u->stream);
    assert_string_equal(u->got, "there");
    stream_read_pause(&u->stream);
    test_send(fd, " more");
    stream_read_now(&u->stream);
    assert_int_equal(u->reads, 1);
    close(fd);
    user_destroy(t, u);
}

static void a_stream_is_quiet_until_something_waits(void **state)
{
    struct net_test *t = *state;
    int fd;
    struct user *u = user_open_tcp(t, &fd);
    assert_true(stream_is_quiet(&u->stream));
    test_send(fd, "x");
    assert_false(stream_is_quiet(&u->stream));
    RUN_UNTIL(t, u->ngot == 1); /* looking has taken nothing away */
    assert_true(stream_is_quiet(&u->stream));
    close(fd);
    assert_false(stream_is_quiet(&u->stream)); /* nor is a FIN quiet */
    user_destroy(t, u);
}

/* As far as it is known without another system call: the FIN or the reset behind it, or more than fits. */
static void a_read_knows_what_else_has_come(void **state)
{
    struct net_test *t = *state;
    int fd;
    struct user *u = user_open_tcp(t, &fd);
    test_send(fd, "hello");
    RUN_UNTIL(t, u->ngot == 5);
    assert_false(u->had_more);
    char *sent = test_pattern(TEST_READ_BUFFER);
    assert_int_equal(send(fd, sent, TEST_READ_BUFFER, MSG_NOSIGNAL), TEST_READ_BUFFER);
    test_send(fd, "!");
    RUN_UNTIL(t, u->ngot == 5 + TEST_READ_BUFFER);
    assert_true(u->had_more);
    RUN_UNTIL(t, u->ngot == 6 + TEST_READ_BUFFER);
    assert_false(u->had_more);
    test_send(fd, "bye");
    close(fd);
    RUN_UNTIL(t, u->ngot == 9 + TEST_READ_BUFFER);
    assert_true(u->had_more);
    free(sent);
    user_destroy(t, u);
    u = user_open_tcp(t, &fd);
    test_send(fd, "bye");
    test_reset(fd);
    RUN_UNTIL(t, u->ngot == 3);
    assert_true(u->had_more);
    user_destroy(t, u);
}

static struct stream_events other_events;
static unsigned other_reads;

static void on_other_read(struct stream *s, const char *p, size_t n)
{
    (void)s;
    (void)p;
    (void)n;
    other_reads++;
}

static void swap_events(struct stream *s, const char *p, size_t n)
{
    (void)p;
    (void)n;
    other_events.on_read = on_other_read;
    s->events = &other_events;
}

static void events_may_be_changed_inside_one(void **state)
{
    struct net_test *t = *state;
    struct stream_events first = user_events;
    int fds[2];
    test_unix_pair(fds);
    first.on_read = swap_events;
    other_events = user_events;
    other_reads = 0;
    struct user *u = user_open(t, fds[0]);
    u->stream.events = &first;
    test_send(fds[1], "a");
    RUN_UNTIL(t, u->stream.events == &other_events);
    test_send(fds[1], "b");
    RUN_UNTIL(t, other_reads == 1);
    assert_int_equal(u->reads, 0);
    close(fds[1]);
    user_destroy(t, u);
}

/* --- writing --------------------------------------------------------------------------------------- */

static void what_fits_is_sent_at_once(void **state)
{
    struct net_test *t = *state;
    int fd;
    char got[16] = {0};
    struct user *u = user_open_tcp(t, &fd);
    assert_int_equal(user_write(u, "now", 3), ERR_OK);
    assert_false(stream_is_blocked(&u->stream));
    assert_null(u->stream.pending); /* an idle stream owns no buffer */
    assert_int_equal(u->stream.bytes_out, 3);
    assert_int_equal(test_recv(fd, got, sizeof got), 3);
    assert_string_equal(got, "now");
    net_test_settle(t);
    assert_int_equal(u->drains, 0); /* nothing had waited */
    close(fd);
    user_destroy(t, u);
}

static void what_does_not_fit_waits_and_arrives_whole(void **state)
{
    struct net_test *t = *state;
    int fd;
    struct user *u = user_open_unix(t, &fd);
    char *sent = test_pattern(MUCH), *got = malloc(MUCH + 1);
    assert_int_equal(user_write(u, sent, MUCH), ERR_OK);
    assert_true(stream_is_blocked(&u->stream));
    assert_true(u->stream.bytes_out > 0 && u->stream.bytes_out < MUCH);
    assert_int_equal(u->drains, 0); /* never before stream_write() returns */
    assert_int_equal(user_drain(t, u, fd, got, MUCH + 1), MUCH);
    assert_memory_equal(got, sent, MUCH);
    assert_int_equal(u->drains, 1);
    assert_int_equal(u->stream.bytes_out, MUCH);
    assert_null(u->stream.pending);
    free(sent);
    free(got);
    close(fd);
    user_destroy(t, u);
}

/* Slices of all sizes, empty ones among them, so that a short write ends inside any of them. */
static void slices_keep_their_order_over_short_writes(void **state)
{
    struct net_test *t = *state;
    char *sent = test_pattern(MUCH), *got = malloc(MUCH + 1);
    for (size_t step = 1; step < 100000; step = step * 5 + 2) {
        int fds[2];
        size_t at = 0;
        test_unix_pair(fds);
        struct user *u = user_open(t, fds[0]);
        for (unsigned write = 0; write < 3; write++) {
            struct iovec iov[STREAM_IOV_MAX];
            for (unsigned i = 0; i < STREAM_IOV_MAX; i++) {
                size_t n = i % 7 == 0 ? 0 : step * (i % 5);
                if (n > MUCH - at) n = MUCH - at;
                iov[i] = (struct iovec){.iov_base = sent + at, .iov_len = n};
                at += n;
            }
            assert_int_equal(stream_write(&u->stream, iov, STREAM_IOV_MAX), ERR_OK);
        }
        assert_int_equal(user_drain(t, u, fds[1], got, MUCH + 1), at);
        assert_memory_equal(got, sent, at);
        close(fds[1]);
        user_destroy(t, u);
    }
    free(sent);
    free(got);
}

static void writes_behind_pending_bytes_wait_their_turn(void **state)
{
    struct net_test *t = *state;
    int fd;
    struct user *u = user_open_unix(t, &fd);
    char *sent = test_pattern(MUCH), *got = malloc(MUCH + 1);
    size_t at = 0, ngot = 0;
    net_test_watch(t);
    for (size_t n = 400000; at < MUCH; at += n) {
        if (n > MUCH - at) n = MUCH - at;
        assert_int_equal(user_write(u, sent + at, n), ERR_OK);
        long some = test_recv(fd, got + ngot, 50000); /* the reader is slower */
        if (some > 0) ngot += (size_t)some;
        RUN_READY(t);
    }
    ngot += user_drain(t, u, fd, got + ngot, MUCH + 1 - ngot);
    assert_int_equal(ngot, MUCH);
    assert_memory_equal(got, sent, MUCH);
    free(sent);
    free(got);
    close(fd);
    user_destroy(t, u);
}

/* What a time limit of writing goes by: the moment when something last moved, not when more was added. */
static void pending_bytes_know_when_they_moved(void **state)
{
    struct net_test *t = *state;
    int fds[2];
    test_unix_pair(fds);
    struct user *u = user_open(t, fds[0]);
    char *sent = test_pattern(MUCH), *got = malloc(2 * MUCH + 1);
    assert_int_equal(stream_moved_ms(&u->stream), 0);
    assert_int_equal(user_write(u, sent, MUCH), ERR_OK);
    assert_int_equal(stream_moved_ms(&u->stream), t->loop.now_ms);

    u->stream.pending->moved_ms = 1; /* long ago */
    assert_int_equal(user_write(u, sent, MUCH), ERR_OK);
    assert_int_equal(stream_moved_ms(&u->stream), 1);
    size_t waiting = u->stream.pending->n, ngot = 0;
    net_test_watch(t);
    while (u->stream.pending->n == waiting) {
        long some = test_recv(fds[1], got + ngot, 50000);
        if (some > 0) ngot += (size_t)some;
        RUN_READY(t);
    }
    assert_int_equal(stream_moved_ms(&u->stream), t->loop.now_ms);

    (void)user_drain(t, u, fds[1], got + ngot, 2 * MUCH + 1 - ngot);
    assert_int_equal(stream_moved_ms(&u->stream), 0);
    free(sent);
    free(got);
    close(fds[1]);
    user_destroy(t, u);
}

static void an_empty_write_does_nothing(void **state)
{
    struct net_test *t = *state;
    int fd;
    char got[4];
    struct user *u = user_open_unix(t, &fd);
    struct iovec iov[2] = {{.iov_base = NULL, .iov_len = 0}, {.iov_base = NULL, .iov_len = 0}};
    assert_int_equal(stream_write(&u->stream, iov, 2), ERR_OK);
    assert_int_equal(stream_write(&u->stream, iov, 0), ERR_OK);
    assert_int_equal(test_recv(fd, got, sizeof got), -EAGAIN);
    close(fd);
    user_destroy(t, u);
}

static void the_fin_waits_for_the_pending_bytes(void **state)
{
    struct net_test *t = *state;
    int fd;
    struct user *u = user_open_tcp(t, &fd);
    char *sent = test_pattern(MUCH), *got = malloc(2 * MUCH);
    size_t total = 0;
    while (!stream_is_blocked(&u->stream)) { /* whatever this kernel's buffers hold */
        assert_int_equal(user_write(u, sent, MUCH), ERR_OK);
        total += MUCH;
    }
    stream_shutdown(&u->stream);
    assert_int_equal(user_write(u, "x", 1), ERR_CLOSED);
    size_t ngot = 0;
    net_test_watch(t);
    for (long n = 1; n != 0; ngot += n > 0 ? (size_t)n : 0) { /* until the FIN */
        n = test_recv(fd, got, 2 * MUCH);
        assert_true(n >= 0 || n == -EAGAIN);
        RUN_READY(t);
    }
    assert_int_equal(ngot, total);
    assert_int_equal(u->drains, 1);
    free(sent);
    free(got);
    close(fd);
    user_destroy(t, u);
}

/* A relay that pauses its source while its sink is blocked: nothing is lost, and what waits is bounded by one
 * read. */
struct pump {
    struct user *from, *to;
    size_t pending_max;
};

static struct pump pump;

static void on_pump_read(struct stream *s, const char *p, size_t n)
{
    assert_int_equal(user_write(pump.to, p, n), ERR_OK);
    const struct stream_pending *waiting = pump.to->stream.pending;
    if (waiting && waiting->n > pump.pending_max) pump.pending_max = waiting->n;
    if (stream_is_blocked(&pump.to->stream)) stream_read_pause(s);
}

static void on_pump_drained(struct stream *s)
{
    (void)s;
    stream_read_resume(&pump.from->stream);
}

static void on_pump_eof(struct stream *s)
{
    (void)s;
    stream_shutdown(&pump.to->stream);
}

static void back_pressure_bounds_what_waits(void **state)
{
    struct net_test *t = *state;
    int in[2], out[2];
    struct stream_events source = user_events, sink = user_events;
    source.on_read = on_pump_read;
    source.on_eof = on_pump_eof;
    sink.on_drained = on_pump_drained;
    test_unix_pair(in);
    test_unix_pair(out);
    pump = (struct pump){.from = user_open(t, in[0]), .to = user_open(t, out[0])};
    pump.from->stream.events = &source;
    pump.to->stream.events = &sink;
    char *sent = test_pattern(MUCH), *got = malloc(MUCH + 1);
    size_t nsent = 0, ngot = 0;
    net_test_watch(t);
    for (long n = 1; n != 0; ngot += n > 0 ? (size_t)n : 0) {
        ssize_t more = send(in[1], sent + nsent, MUCH - nsent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (more > 0 && (nsent += (size_t)more) == MUCH) shutdown(in[1], SHUT_WR);
        n = test_recv(out[1], got + ngot, 10000);
        RUN_READY(t);
    }
    assert_int_equal(ngot, MUCH);
    assert_memory_equal(got, sent, MUCH);
    assert_true(pump.pending_max > 0);
    assert_true(pump.pending_max <= TEST_READ_BUFFER);
    free(sent);
    free(got);
    close(in[1]);
    close(out[1]);
    user_destroy(t, pump.from);
    user_destroy(t, pump.to);
}

#define STREAM_TEST(name) cmocka_unit_test_setup_teardown(name, net_test_setup, net_test_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        STREAM_TEST(received_bytes_are_handed_over),
        STREAM_TEST(the_end_comes_once_and_after_the_bytes),
        STREAM_TEST(a_half_closed_stream_still_sends),
        STREAM_TEST(nothing_is_read_while_paused),
        STREAM_TEST(read_now_does_not_wait_for_the_next_turn),
        STREAM_TEST(a_stream_is_quiet_until_something_waits),
        STREAM_TEST(a_read_knows_what_else_has_come),
        STREAM_TEST(events_may_be_changed_inside_one),
        STREAM_TEST(what_fits_is_sent_at_once),
        STREAM_TEST(what_does_not_fit_waits_and_arrives_whole),
        STREAM_TEST(slices_keep_their_order_over_short_writes),
        STREAM_TEST(writes_behind_pending_bytes_wait_their_turn),
        STREAM_TEST(pending_bytes_know_when_they_moved),
        STREAM_TEST(an_empty_write_does_nothing),
        STREAM_TEST(the_fin_waits_for_the_pending_bytes),
        STREAM_TEST(back_pressure_bounds_what_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
