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
static void end_with_commands_waiting(struct wire *w, void (*end)(struct peer *p), struct heard *h)
{
    struct peer p;
    peer_listen(&p);
    heard_open_plain(w, h, &p);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(heard_send(h, "PING"), ERR_OK);
    PEER_EXPECT(w, &p, PING PING PING);
    PEER_SAY(&p, "+PONG\r\n$5\r\nab");
    WIRE_UNTIL(w, h->replies == 1);
    end(&p);
    WIRE_UNTIL(w, h->closed);
    wire_settle(w);
    assert_string_equal(h->text, "+PONG;NULL;NULL;");
    assert_int_equal(h->closed, 1);
    heard_finish(w, h, &p);
}

static void a_server_that_closes_answers_every_command_with_null(void **state)
{
    struct heard h = {0};
    end_with_commands_waiting(*state, peer_close, &h);
    assert_int_equal(h.error, ERR_EOF);
    assert_string_equal(h.cause,
                        "the server closed the connection in the middle of a reply; 2 commands waited");
}

static void a_reset_answers_every_command_with_null(void **state)
{
    struct heard h = {0};
    end_with_commands_waiting(*state, peer_reset, &h);
    assert_int_equal(h.error, ERR_RESET);
}

static void bytes_that_are_no_redis_close(void **state)
{
    struct wire *w = *state;
    struct heard h = {0};
    struct peer p;
    peer_listen(&p);
    heard_open_plain(w, &h, &p);
    assert_int_equal(heard_send(&h, "PING"), ERR_OK);
    assert_int_equal(heard_send(&h, "PING"), ERR_OK);
    PEER_SAY(&p, "$2\r\nab\r\nHTTP/1.1 400 Bad Request\r\n");
    WIRE_UNTIL(w, h.closed);
    assert_int_equal(h.error, ERR_PARSE);
    assert_non_null(strstr(h.cause, "bad reply: Protocol error"));
    assert_string_equal(h.text, "ab;NULL;");
    heard_finish(w, &h, &p);
}

static void a_reply_to_no_command_closes(void **state)
{
    struct wire *w = *state;
    struct heard h = {0};
    struct peer p;
    peer_listen(&p);
    heard_open_plain(w, &h, &p);
    assert_int_equal(heard_send(&h, "PING"), ERR_OK);
    PEER_SAY(&p, "+PONG\r\n+PONG\r\n");
    WIRE_UNTIL(w, h.closed);
    assert_int_equal(h.error, ERR_PARSE);
    assert_string_equal(h.text, "+PONG;");
    assert_string_equal(h.cause, "a reply to no command");
    heard_finish(w, &h, &p);
}

static void an_error_that_nobody_asked_for_is_the_cause(void **state)
{
    struct wire *w = *state;
    struct heard h = {0};
    struct peer p;
    peer_listen(&p);
    heard_open_plain(w, &h, &p);
    PEER_SAY(&p, "-ERR max number of clients reached\r\n");
    WIRE_UNTIL(w, h.closed);
    assert_int_equal(h.error, ERR_IO);
    assert_non_null(strstr(h.cause, "max number of clients"));
    heard_finish(w, &h, &p);
}

static void a_reply_without_end_is_cut_off(void **state)
{
    struct wire *w = *state;
    struct heard h = {0};
    struct peer p;
    peer_listen(&p);
    heard_open_plain(w, &h, &p);
    assert_int_equal(heard_send(&h, "PING"), ERR_OK);
    enum { MUCH = REDIS_REPLY_BYTES_MAX + 1024 * 1024 };
    char *much = malloc(MUCH);
    assert_non_null(much);
    memset(much, 'x', MUCH);
    PEER_SAY(&p, "$999999999\r\n");
    peer_say_much(w, &p, much, MUCH);
    WIRE_UNTIL(w, h.closed);
    assert_int_equal(h.error, ERR_LIMIT);
    assert_string_equal(h.cause, "bad reply: too many bytes in one reply");
    free(much);
    heard_finish(w, &h, &p);
}

static void a_deeply_nested_reply_closes(void **state)
{
    struct wire *w = *state;
    struct heard h = {0};
    struct peer p;
    peer_listen(&p);
    heard_open_plain(w, &h, &p);
    assert_int_equal(heard_send(&h, "PING"), ERR_OK);
    for (unsigned i = 0; i < 1000; i++)
        PEER_SAY(&p, "*1\r\n");
    WIRE_UNTIL(w, h.closed);
    assert_int_equal(h.error, ERR_LIMIT);
    assert_string_equal(h.text, "NULL;");
    heard_finish(w, &h, &p);
}

static void a_command_without_an_answer_closes(void **state)
{
    struct wire *w = *state;
    struct heard h = {0};
    struct peer p;
    peer_listen(&p);
    heard_open_plain(w, &h, &p);
    assert_int_equal(heard_send(&h, "PING"), ERR_OK);
    const char *const argv[] = {"PING"};
    assert_int_equal(redis_command(h.conn, 100, heard_reply, &h, 1, argv, NULL), ERR_OK);
    assert_int_equal(heard_send(&h, "PING"), ERR_OK);
    PEER_SAY(&p, "+PONG\r\n$5\r\nha"); /* half a reply is none */
    WIRE_UNTIL(w, h.closed);
    assert_int_equal(h.error, ERR_TIMEOUT);
    assert_string_equal(h.cause, "no reply in time; 2 commands wait");
    assert_string_equal(h.text, "+PONG;NULL;NULL;");
    heard_finish(w, &h, &p);
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
    struct wire *w = *state;
    struct heard h = {0};
    struct peer p;
    peer_listen(&p);
    heard_open_plain(w, &h, &p);
    const char *const argv[] = {"PING"};
    assert_int_equal(redis_command(h.conn, 100, heard_reply, &h, 1, argv, NULL), ERR_OK);
    PEER_SAY(&p, "+PONG\r\n");
    stall();
    WIRE_UNTIL(w, h.replies || h.closed);
    assert_string_equal(h.text, "+PONG;");
    assert_int_equal(h.closed, 0);
    heard_finish(w, &h, &p);
}

static void an_answered_command_has_no_deadline_left(void **state)
{
    struct wire *w = *state;
    struct heard h = {0};
    struct peer p;
    peer_listen(&p);
    heard_open_plain(w, &h, &p);
    assert_int_equal(w->loop.wheel.count, 0); /* nor has the handshake */
    assert_int_equal(heard_send(&h, "PING"), ERR_OK);
    assert_int_equal(w->loop.wheel.count, 1);
    PEER_SAY(&p, "+PONG\r\n");
    WIRE_UNTIL(w, h.replies);
    assert_int_equal(w->loop.wheel.count, 0);
    heard_finish(w, &h, &p);
}

static void closing_in_a_reply_drops_the_other_replies(void **state)
{
    struct wire *w = *state;
    struct heard h = {.closes_on_reply = true};
    struct peer p;
    peer_listen(&p);
    heard_open_plain(w, &h, &p);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(heard_send(&h, "PING"), ERR_OK);
    PEER_SAY(&p, ":1\r\n:2\r\n:3\r\n");
    WIRE_UNTIL(w, h.closed);
    assert_string_equal(h.text, "1;NULL;NULL;");
    assert_int_equal(h.error, ERR_CLOSED);
    heard_finish(w, &h, &p);
}

static void closing_when_ready(void **state)
{
    struct wire *w = *state;
    struct heard h = {.closes_when_ready = true};
    struct peer p;
    peer_listen(&p);
    heard_open_plain(w, &h, &p);
    WIRE_UNTIL(w, h.closed);
    assert_int_equal(h.error, ERR_CLOSED);
    heard_finish(w, &h, &p);
}

static void closing_while_connecting(void **state)
{
    struct wire *w = *state;
    struct heard h = {0};
    struct peer p;
    peer_listen(&p);
    const struct redis_options o = {.address = &p.address, .connect_timeout_ms = 5000};
    heard_open(w, &h, &o);
    redis_close(h.conn);
    redis_close(h.conn);
    assert_int_equal(heard_send(&h, "PING"), ERR_CLOSED);
    assert_int_equal(h.closed, 0); /* never before it returns */
    heard_finish(w, &h, &p);
    assert_int_equal(h.closed, 1);
    assert_int_equal(h.ready, 0);
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
#define T(name) cmocka_unit_test_setup_teardown(name, wire_setup, wire_teardown)
    const struct CMUnitTest tests[] = {
        T(a_server_that_closes_answers_every_command_with_null),
        T(a_reset_answers_every_command_with_null),
        T(bytes_that_are_no_redis_close),
        T(a_reply_to_no_command_closes),
        T(an_error_that_nobody_asked_for_is_the_cause),
        T(a_reply_without_end_is_cut_off),
        T(a_deeply_nested_reply_closes),
        T(a_command_without_an_answer_closes),
        T(a_reply_that_came_in_time_counts_although_the_loop_was_late),
        T(an_answered_command_has_no_deadline_left),
        T(closing_in_a_reply_drops_the_other_replies),
        T(closing_when_ready),
        T(closing_while_connecting),
        T(a_failed_write_is_not_the_cause),
    };
    return cmocka_run_group_tests_name("redis_conn_ends", tests, NULL, NULL);
}
