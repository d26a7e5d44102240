/* Every way in which a Redis connection ends, with commands waiting and without: each of them is answered
 * once, and on_closed comes once. */
#include "base/clock.h"
#include "helper_wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define PING "*1\r\n$4\r\nPING\r\n"

/* Three commands wait and one reply is under way; `end` is what the server does then. */
static void end_with_commands_waiting(struct dialogue *d, void (*end)(struct peer *p))
{
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(heard_send(&d->user, "PING"), ERR_OK);
    PEER_EXPECT(d->w, &d->server, PING PING PING);
    PEER_SAY(&d->server, "+PONG\r\n$5\r\nab");
    WIRE_UNTIL(d->w, d->user.replies == 1);
    end(&d->server);
    WIRE_UNTIL(d->w, d->user.closed);
    wire_settle(d->w);
    assert_string_equal(d->user.text, "+PONG;NULL;NULL;");
    assert_int_equal(d->user.closed, 1);
}

static void a_server_that_closes_answers_every_command_with_null(void **state)
{
    struct dialogue *d = *state;
    end_with_commands_waiting(d, peer_close);
    assert_int_equal(d->user.error, ERR_EOF);
    assert_string_equal(d->user.cause,
                        "the server closed the connection in the middle of a reply; 2 commands waited");
}

static void a_reset_answers_every_command_with_null(void **state)
{
    struct dialogue *d = *state;
    end_with_commands_waiting(d, peer_reset);
    assert_int_equal(d->user.error, ERR_RESET);
}

static void bytes_that_are_no_redis_close(void **state)
{
    struct dialogue *d = *state;
    assert_int_equal(heard_send(&d->user, "PING"), ERR_OK);
    assert_int_equal(heard_send(&d->user, "PING"), ERR_OK);
    PEER_SAY(&d->server, "$2\r\nab\r\nHTTP/1.1 400 Bad Request\r\n");
    WIRE_UNTIL(d->w, d->user.closed);
    assert_int_equal(d->user.error, ERR_PARSE);
    assert_non_null(strstr(d->user.cause, "bad reply: Protocol error"));
    assert_string_equal(d->user.text, "ab;NULL;");
}

static void a_reply_to_no_command_closes(void **state)
{
    struct dialogue *d = *state;
    assert_int_equal(heard_send(&d->user, "PING"), ERR_OK);
    PEER_SAY(&d->server, "+PONG\r\n+PONG\r\n");
    WIRE_UNTIL(d->w, d->user.closed);
    assert_int_equal(d->user.error, ERR_PARSE);
    assert_string_equal(d->user.text, "+PONG;");
    assert_string_equal(d->user.cause, "a reply to no command");
}

static void an_error_that_nobody_asked_for_is_the_cause(void **state)
{
    struct dialogue *d = *state;
    PEER_SAY(&d->server, "-ERR max number of clients reached\r\n");
    WIRE_UNTIL(d->w, d->user.closed);
    assert_int_equal(d->user.error, ERR_IO);
    assert_non_null(strstr(d->user.cause, "max number of clients"));
}

static void a_reply_without_end_is_cut_off(void **state)
{
    struct dialogue *d = *state;
    assert_int_equal(heard_send(&d->user, "PING"), ERR_OK);
    enum { MUCH = REDIS_REPLY_BYTES_MAX + 1024 * 1024 };
    char *much = malloc(MUCH);
    assert_non_null(much);
    memset(much, 'x', MUCH);
    PEER_SAY(&d->server, "$999999999\r\n");
    peer_say_much(d->w, &d->server, much, MUCH);
    WIRE_UNTIL(d->w, d->user.closed);
    assert_int_equal(d->user.error, ERR_LIMIT);
    assert_string_equal(d->user.cause, "bad reply: too many bytes in one reply");
    free(much);
}

static void a_deeply_nested_reply_closes(void **state)
{
    struct dialogue *d = *state;
    assert_int_equal(heard_send(&d->user, "PING"), ERR_OK);
    for (unsigned i = 0; i < 1000; i++)
        PEER_SAY(&d->server, "*1\r\n");
    WIRE_UNTIL(d->w, d->user.closed);
    assert_int_equal(d->user.error, ERR_LIMIT);
    assert_string_equal(d->user.text, "NULL;");
}

static void a_command_without_an_answer_closes(void **state)
{
    struct dialogue *d = *state;
    assert_int_equal(heard_send(&d->user, "PING"), ERR_OK);
    const char *const argv[] = {"PING"};
    assert_int_equal(redis_command(d->user.conn, 100, heard_reply, &d->user, 1, argv, NULL), ERR_OK);
    assert_int_equal(heard_send(&d->user, "PING"), ERR_OK);
    PEER_SAY(&d->server, "+PONG\r\n$5\r\nha"); /* half a reply is none */
    WIRE_UNTIL(d->w, d->user.closed);
    assert_int_equal(d->user.error, ERR_TIMEOUT);
    assert_string_equal(d->user.cause, "no reply in time; 2 commands wait");
    assert_string_equal(d->user.text, "+PONG;NULL;NULL;");
}

/* Keeps the loop from running for longer than the time-out of a command, as a long piece of work on it would.
 */
static void stall(void)
{
    uint64_t end_us = clock_mono_us() + 400 * 1000;
    while (clock_mono_us() < end_us)
        continue;
}

static void a_reply_that_came_in_time_counts_although_the_loop_was_late(void **state)
{
    struct dialogue *d = *state;
    const char *const argv[] = {"PING"};
    assert_int_equal(redis_command(d->user.conn, 100, heard_reply, &d->user, 1, argv, NULL), ERR_OK);
    PEER_SAY(&d->server, "+PONG\r\n");
    stall();
    WIRE_UNTIL(d->w, d->user.replies || d->user.closed);
    assert_string_equal(d->user.text, "+PONG;");
    assert_int_equal(d->user.closed, 0);
}

static void an_answered_command_has_no_deadline_left(void **state)
{
    struct dialogue *d = *state;
    assert_int_equal(d->w->loop.wheel.count, 0); /* nor has the handshake */
    assert_int_equal(heard_send(&d->user, "PING"), ERR_OK);
    assert_int_equal(d->w->loop.wheel.count, 1);
    PEER_SAY(&d->server, "+PONG\r\n");
    WIRE_UNTIL(d->w, d->user.replies);
    assert_int_equal(d->w->loop.wheel.count, 0);
}

static void closing_in_a_reply_drops_the_other_replies(void **state)
{
    struct dialogue *d = *state;
    d->user.closes_on_reply = true;
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(heard_send(&d->user, "PING"), ERR_OK);
    PEER_SAY(&d->server, ":1\r\n:2\r\n:3\r\n");
    WIRE_UNTIL(d->w, d->user.closed);
    assert_string_equal(d->user.text, "1;NULL;NULL;");
    assert_int_equal(d->user.error, ERR_CLOSED);
}

static void closing_when_ready(void **state)
{
    struct dialogue *d = *state;
    d->user.closes_when_ready = true;
    heard_open_plain(d->w, &d->user, &d->server);
    WIRE_UNTIL(d->w, d->user.closed);
    assert_int_equal(d->user.error, ERR_CLOSED);
}

static void closing_while_connecting(void **state)
{
    struct dialogue *d = *state;
    const struct redis_options o = {.address = &d->server.address, .connect_timeout_ms = 5000};
    heard_open(d->w, &d->user, &o);
    redis_close(d->user.conn);
    redis_close(d->user.conn);
    assert_int_equal(heard_send(&d->user, "PING"), ERR_CLOSED);
    assert_int_equal(d->user.closed, 0); /* never before it returns */
    heard_close(d->w, &d->user);
    assert_int_equal(d->user.closed, 1);
    assert_int_equal(d->user.ready, 0);
}

/* The server said why before it closed: our write fails, its answer must still be read. */
static void a_failed_write_is_not_the_cause(void **state)
{
    struct wire *w = *state;
    struct heard h = {0};
    struct peer p;
    char path[64];
    (void)snprintf(path, sizeof path, "/tmp/proofgw-wire-%d.sock", (int)getpid());
    peer_listen_unix(&p, path);
    heard_open_plain(w, &h, &p);
    PEER_SAY(&p, "-ERR idle for too long\r\n");
    peer_close(&p);
    assert_int_equal(heard_send(&h, "PING"), ERR_OK); /* EPIPE */
    WIRE_UNTIL(w, h.closed);
    assert_string_equal(h.text, "-ERR idle for too long;");
    heard_finish(w, &h, &p);
    (void)unlink(path);
}

int main(void)
{
#define T(name)         cmocka_unit_test_setup_teardown(name, wire_setup, wire_teardown)
#define LISTENING(name) cmocka_unit_test_setup_teardown(name, dialogue_setup, dialogue_teardown)
#define READY(name)     cmocka_unit_test_setup_teardown(name, dialogue_setup_ready, dialogue_teardown)
    const struct CMUnitTest tests[] = {
        READY(a_server_that_closes_answers_every_command_with_null),
        READY(a_reset_answers_every_command_with_null),
        READY(bytes_that_are_no_redis_close),
        READY(a_reply_to_no_command_closes),
        READY(an_error_that_nobody_asked_for_is_the_cause),
        READY(a_reply_without_end_is_cut_off),
        READY(a_deeply_nested_reply_closes),
        READY(a_command_without_an_answer_closes),
        READY(a_reply_that_came_in_time_counts_although_the_loop_was_late),
        READY(an_answered_command_has_no_deadline_left),
        READY(closing_in_a_reply_drops_the_other_replies),
        LISTENING(closing_when_ready),
        LISTENING(closing_while_connecting),
        T(a_failed_write_is_not_the_cause),
    };
    return cmocka_run_group_tests_name("redis_conn_ends", tests, NULL, NULL);
}
