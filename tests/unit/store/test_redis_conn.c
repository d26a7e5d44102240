/* A Redis connection against a server that the test plays byte by byte: handshake, replies, every way to end.
 */
#include "helper_wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define AUTH_USER "*3\r\n$4\r\nAUTH\r\n$2\r\ngw\r\n$6\r\ns3cret\r\n"
#define SETNAME   "*3\r\n$6\r\nCLIENT\r\n$7\r\nSETNAME\r\n$7\r\nproofgw\r\n"
#define ROLE      "*1\r\n$4\r\nROLE\r\n"
#define MASTER    "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"
#define REPLICA   "*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:6379\r\n$9\r\nconnected\r\n:14\r\n"
#define PING      "*1\r\n$4\r\nPING\r\n"

static struct redis_options full_options(const struct peer *p)
{
    return (struct redis_options){.address = &p->address,
                                  .user = "gw",
                                  .password = "s3cret",
                                  .client_name = "proofgw",
                                  .must_be_master = true,
                                  .connect_timeout_ms = 5000,
                                  .command_timeout_ms = 5000};
}

/* --- handshake -------------------------------------------------------------------------------------- */

static void says_who_it_is_and_checks_the_role(void **state)
{
    struct dialogue *d = *state;
    const struct redis_options o = full_options(&d->server);
    heard_open(d->w, &d->user, &o);
    peer_accept(d->w, &d->server);
    PEER_EXPECT(d->w, &d->server, AUTH_USER);
    PEER_SAY(&d->server, "+OK\r\n");
    PEER_EXPECT(d->w, &d->server, SETNAME);
    PEER_SAY(&d->server, "+OK\r\n");
    PEER_EXPECT(d->w, &d->server, ROLE);
    assert_int_equal(d->user.ready, 0);
    PEER_SAY(&d->server, MASTER);
    WIRE_UNTIL(d->w, d->user.ready);
    heard_close(d->w, &d->user);
    assert_int_equal(d->user.ready, 1);
    assert_int_equal(d->user.error, ERR_CLOSED);
}

static void a_password_alone_goes_without_a_user(void **state)
{
    struct dialogue *d = *state;
    struct redis_options o = full_options(&d->server);
    o.user = NULL;
    heard_open(d->w, &d->user, &o);
    peer_accept(d->w, &d->server);
    PEER_EXPECT(d->w, &d->server, "*2\r\n$4\r\nAUTH\r\n$6\r\ns3cret\r\n");
}

static void works_over_a_unix_socket(void **state)
{
    struct wire *w = *state;
    struct heard h = {0};
    struct peer p;
    char path[64];
    (void)snprintf(path, sizeof path, "/tmp/proofgw-wire-%d.sock", (int)getpid());
    peer_listen_unix(&p, path);
    heard_open_plain(w, &h, &p);
    assert_int_equal(heard_send(&h, "PING"), ERR_OK);
    PEER_EXPECT(w, &p, PING);
    PEER_SAY(&p, "+PONG\r\n");
    WIRE_UNTIL(w, h.replies);
    heard_finish(w, &h, &p);
    (void)unlink(path);
}

static void nothing_to_say_means_ready_at_once(void **state)
{
    struct dialogue *d = *state;
    redis_close(d->user.conn);
    peer_expect_end(d->w, &d->server); /* and not one byte before it */
}

static void no_command_is_taken_before_it_is_ready(void **state)
{
    struct dialogue *d = *state;
    const struct redis_options o = full_options(&d->server);
    heard_open(d->w, &d->user, &o);
    assert_int_equal(heard_send(&d->user, "PING"), ERR_CLOSED);
    peer_accept(d->w, &d->server);
    PEER_EXPECT(d->w, &d->server, AUTH_USER);
    assert_int_equal(heard_send(&d->user, "PING"), ERR_CLOSED);
    heard_close(d->w, &d->user);
    assert_int_equal(d->user.nulls, 0);
}

/* One conversation that ends in the handshake: what the server says to AUTH, SETNAME and ROLE. */
struct refusal {
    const char *answers[3]; /* NULL: the conversation is over */
    enum err error;
    const char *cause; /* part of it */
};

static const struct refusal refusals[] = {
    {{"-WRONGPASS invalid username-password pair or user is disabled.\r\n"}, ERR_REFUSED, "WRONGPASS"},
    {{"-LOADING Redis is loading the dataset in memory\r\n"}, ERR_AGAIN, "LOADING"},
    {{"-DENIED Redis is running in protected mode\r\n"}, ERR_REFUSED, "protected mode"},
    {{"-ERR max number of clients reached\r\n"}, ERR_IO, "AUTH: the server refuses the command"},
    {{"+OK\r\n", "-NOAUTH Authentication required.\r\n"}, ERR_REFUSED, "NOAUTH"},
    {{"+OK\r\n", "-LOADING Redis is loading the dataset in memory\r\n"}, ERR_AGAIN, "CLIENT SETNAME"},
    {{"+OK\r\n", "+OK\r\n", "-NOAUTH Authentication required.\r\n"}, ERR_REFUSED, "NOAUTH"},
    {{"+OK\r\n", "+OK\r\n", "-NOPERM this user has no permissions\r\n"}, ERR_REFUSED, "ROLE"},
    {{"+OK\r\n", "+OK\r\n", "-MASTERDOWN Link with MASTER is down\r\n"}, ERR_CONFLICT, "MASTERDOWN"},
    {{"+OK\r\n", "+OK\r\n", "-READONLY You can't write\r\n"}, ERR_CONFLICT, "READONLY"},
    {{"+OK\r\n", "+OK\r\n", "-ERR no \x1b[31m role\r\n"}, ERR_IO, "ROLE: ERR no ?[31m role"},
    {{"+OK\r\n", "+OK\r\n", REPLICA}, ERR_CONFLICT, "not the master"},
    {{"+OK\r\n", "+OK\r\n", "*1\r\n$8\r\nsentinel\r\n"}, ERR_CONFLICT, "not the master"},
    {{"+OK\r\n", "+OK\r\n", "*1\r\n$10\r\nmastermind\r\n"}, ERR_CONFLICT, "not the master"},
    {{"+OK\r\n", "+OK\r\n", "*0\r\n"}, ERR_PARSE, "names no role"},
    {{"+OK\r\n", "+OK\r\n", "*1\r\n:7\r\n"}, ERR_PARSE, "names no role"},
    {{"+OK\r\n", "+OK\r\n", "$6\r\nmaster\r\n"}, ERR_PARSE, "names no role"},
};

static void refusals_in_the_handshake_become_clear_causes(void **state)
{
    struct wire *w = *state;
    static const char *const commands[] = {AUTH_USER, SETNAME, ROLE};
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        struct heard h = {0};
        struct peer p;
        peer_listen(&p);
        const struct redis_options o = full_options(&p);
        heard_open(w, &h, &o);
        peer_accept(w, &p);
        for (unsigned step = 0; step < 3 && refusals[i].answers[step]; step++) {
            const char *answer = refusals[i].answers[step];
            peer_expect(w, &p, commands[step], strlen(commands[step]));
            peer_say(&p, answer, strlen(answer));
        }
        WIRE_UNTIL(w, h.closed);
        assert_int_equal(h.error, refusals[i].error);
        if (!strstr(h.cause, refusals[i].cause)) fail_msg("cause \"%s\", not %s", h.cause, refusals[i].cause);
        assert_int_equal(h.ready, 0);
        heard_finish(w, &h, &p);
    }
}

/* Redis quotes the arguments of a command that it does not know. */
static void the_password_is_not_in_the_cause(void **state)
{
    struct dialogue *d = *state;
    const struct redis_options o = full_options(&d->server);
    heard_open(d->w, &d->user, &o);
    peer_accept(d->w, &d->server);
    PEER_EXPECT(d->w, &d->server, AUTH_USER);
    PEER_SAY(&d->server, "-ERR unknown command 'AUTH', with args beginning with: 'gw' 's3cret' \r\n");
    WIRE_UNTIL(d->w, d->user.closed);
    assert_null(strstr(d->user.cause, "s3cret"));
    assert_non_null(strstr(d->user.cause, "AUTH"));
}

/* The name is only for people: a user without that right is let in. */
static void a_refused_name_is_no_obstacle(void **state)
{
    struct wire *w = *state;
    static const char *const answers[] = {"-NOPERM this user has no permissions\r\n",
                                          "-ERR unknown subcommand 'SETNAME'\r\n"};
    for (unsigned i = 0; i < 2; i++) {
        struct heard h = {0};
        struct peer p;
        peer_listen(&p);
        struct redis_options o = full_options(&p);
        o.password = NULL;
        heard_open(w, &h, &o);
        peer_accept(w, &p);
        PEER_EXPECT(w, &p, SETNAME);
        peer_say(&p, answers[i], strlen(answers[i]));
        PEER_EXPECT(w, &p, ROLE);
        PEER_SAY(&p, MASTER);
        WIRE_UNTIL(w, h.ready);
        heard_finish(w, &h, &p);
    }
}

static void a_silent_server_times_out_in_the_handshake(void **state)
{
    struct dialogue *d = *state;
    struct redis_options o = full_options(&d->server);
    o.connect_timeout_ms = 100;
    heard_open(d->w, &d->user, &o);
    peer_accept(d->w, &d->server);
    WIRE_UNTIL(d->w, d->user.closed);
    assert_int_equal(d->user.error, ERR_TIMEOUT);
    assert_string_equal(d->user.cause, "connected, but no answer within 100 ms");
}

static void nobody_listens(void **state)
{
    struct dialogue *d = *state;
    peer_stop(&d->server);
    const struct redis_options o = full_options(&d->server);
    enum err e = redis_open(&d->w->loop, &o, &heard_events, &d->user, &d->user.conn);
    if (!e) {
        WIRE_UNTIL(d->w, d->user.closed);
        e = d->user.error;
        assert_non_null(strstr(d->user.cause, "cannot connect"));
    }
    assert_int_equal(e, ERR_UNREACHABLE);
}

static void a_missing_unix_socket_fails_at_once(void **state)
{
    struct wire *w = *state;
    struct heard h = {0};
    struct socket_address a;
    assert_int_equal(socket_address_unix("/nonexistent/redis.sock", &a), ERR_OK);
    const struct redis_options o = {.address = &a, .password = "s3cret", .connect_timeout_ms = 100};
    assert_int_equal(redis_open(&w->loop, &o, &heard_events, &h, &h.conn), ERR_NOT_FOUND);
    wire_settle(w);
    assert_int_equal(h.closed, 0);
}

/* --- replies ---------------------------------------------------------------------------------------- */

/* Two commands, their replies cut in two at every place. */
static void replies_may_come_in_pieces(void **state)
{
    struct wire *w = *state;
    static const char replies[] =
        "*3\r\n$5\r\na\r\nbc\r\n:-5\r\n*2\r\n$-1\r\n+x\r\n-NOSCRIPT no\r\n$0\r\n\r\n";
    for (size_t cut = 1; cut < sizeof replies - 1; cut++) {
        struct heard h = {0};
        struct peer p;
        peer_listen(&p);
        heard_open_plain(w, &h, &p);
        for (unsigned i = 0; i < 3; i++)
            assert_int_equal(heard_send(&h, "PING"), ERR_OK);
        PEER_EXPECT(w, &p, PING PING PING);
        peer_say(&p, replies, cut);
        wire_settle(w);
        assert_true(h.replies < 3);
        peer_say(&p, replies + cut, sizeof replies - 1 - cut);
        WIRE_UNTIL(w, h.replies == 3);
        assert_string_equal(h.text, "[a\r\nbc -5 [(nil) +x]];-NOSCRIPT no;;");
        heard_finish(w, &h, &p);
    }
}

static void arguments_may_hold_any_byte(void **state)
{
    struct dialogue *d = *state;
    const char *const argv[] = {"SET", "a\0\r\n", ""};
    const size_t lengths[] = {3, 4, 0};
    assert_int_equal(redis_command(d->user.conn, 0, heard_reply, &d->user, 3, argv, lengths), ERR_OK);
    PEER_EXPECT(d->w, &d->server, "*3\r\n$3\r\nSET\r\n$4\r\na\0\r\n\r\n$0\r\n\r\n");
}

static void an_error_reply_does_not_close(void **state)
{
    struct dialogue *d = *state;
    assert_int_equal(heard_send(&d->user, "PING"), ERR_OK);
    PEER_SAY(&d->server, "-UNBLOCKED force unblock from blocking operation\r\n");
    WIRE_UNTIL(d->w, d->user.replies);
    assert_int_equal(heard_send(&d->user, "PING"), ERR_OK);
    PEER_SAY(&d->server, "+PONG\r\n");
    WIRE_UNTIL(d->w, d->user.replies == 2);
}

enum { CHAIN = 3000 };

/* Issues a batch in the reply of the first command, more than the collecting buffer holds. */
static void issue_batch(struct redis_conn *c, const redisReply *reply, void *arg)
{
    struct heard *h = arg;
    assert_non_null(reply);
    assert_ptr_equal(c, h->conn);
    for (unsigned i = 0; i < CHAIN; i++)
        assert_int_equal(heard_send(h, "PING"), ERR_OK);
}

static void commands_of_a_callback_leave_when_it_returns(void **state)
{
    struct dialogue *d = *state;
    const char *const argv[] = {"PING"};
    assert_int_equal(redis_command(d->user.conn, 0, issue_batch, &d->user, 1, argv, NULL), ERR_OK);
    PEER_EXPECT(d->w, &d->server, PING);
    PEER_SAY(&d->server, "+PONG\r\n");
    for (unsigned i = 0; i < CHAIN; i++) {
        PEER_EXPECT(d->w, &d->server, PING);
        PEER_SAY(&d->server, ":1\r\n");
    }
    WIRE_UNTIL(d->w, d->user.replies == CHAIN);
}

static void issue_large(struct redis_conn *c, const redisReply *reply, void *arg)
{
    struct heard *h = arg;
    assert_non_null(reply);
    static char large[100000];
    memset(large, 'x', sizeof large);
    const char *const argv[] = {"ECHO", large};
    const size_t lengths[] = {4, sizeof large};
    assert_int_equal(heard_send(h, "PING"), ERR_OK);
    assert_int_equal(redis_command(c, 0, heard_reply, h, 2, argv, lengths), ERR_OK);
    assert_int_equal(heard_send(h, "PING"), ERR_OK);
}

static void a_large_command_keeps_its_place(void **state)
{
    struct dialogue *d = *state;
    const char *const argv[] = {"PING"};
    assert_int_equal(redis_command(d->user.conn, 0, issue_large, &d->user, 1, argv, NULL), ERR_OK);
    PEER_EXPECT(d->w, &d->server, PING);
    PEER_SAY(&d->server, "+PONG\r\n");
    PEER_EXPECT(d->w, &d->server, PING "*2\r\n$4\r\nECHO\r\n$100000\r\nxxx");
    static char rest[100000 - 3];
    memset(rest, 'x', sizeof rest);
    peer_expect(d->w, &d->server, rest, sizeof rest);
    PEER_EXPECT(d->w, &d->server, "\r\n" PING);
}

static void only_so_many_commands_may_wait(void **state)
{
    struct dialogue *d = *state;
    for (unsigned i = 0; i < REDIS_PENDING_MAX; i++)
        assert_int_equal(heard_send(&d->user, "PING"), ERR_OK);
    assert_int_equal(heard_send(&d->user, "PING"), ERR_LIMIT);
    PEER_SAY(&d->server, "+PONG\r\n");
    WIRE_UNTIL(d->w, d->user.replies == 1);
    assert_int_equal(heard_send(&d->user, "PING"), ERR_OK);
    heard_close(d->w, &d->user);
    assert_int_equal(d->user.nulls, REDIS_PENDING_MAX);
}

int main(void)
{
#define T(name)         cmocka_unit_test_setup_teardown(name, wire_setup, wire_teardown)
#define LISTENING(name) cmocka_unit_test_setup_teardown(name, dialogue_setup, dialogue_teardown)
#define READY(name)     cmocka_unit_test_setup_teardown(name, dialogue_setup_ready, dialogue_teardown)
    const struct CMUnitTest tests[] = {
        LISTENING(says_who_it_is_and_checks_the_role),
        LISTENING(a_password_alone_goes_without_a_user),
        T(works_over_a_unix_socket),
        READY(nothing_to_say_means_ready_at_once),
        LISTENING(no_command_is_taken_before_it_is_ready),
        T(refusals_in_the_handshake_become_clear_causes),
        LISTENING(the_password_is_not_in_the_cause),
        T(a_refused_name_is_no_obstacle),
        LISTENING(a_silent_server_times_out_in_the_handshake),
        LISTENING(nobody_listens),
        T(a_missing_unix_socket_fails_at_once),
        T(replies_may_come_in_pieces),
        READY(arguments_may_hold_any_byte),
        READY(an_error_reply_does_not_close),
        READY(commands_of_a_callback_leave_when_it_returns),
        READY(a_large_command_keeps_its_place),
        READY(only_so_many_commands_may_wait),
    };
    return cmocka_run_group_tests_name("redis_conn", tests, NULL, NULL);
}
