/* A Redis connection against a real redis-server with users; skipped where none is installed. */
#include "helper_redis_server.h"
#include "helper_wire.h"
#include "support/skip.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* `gateway` may do all; `nameless` lacks CLIENT SETNAME, `roleless` ROLE. */
static const char users[] = "user default off\n"
                            "user gateway on >s3cret allkeys +@all\n"
                            "user nameless on >s3cret allkeys -@all +auth +ping +role\n"
                            "user roleless on >s3cret allkeys -@all +auth +ping +client|setname\n";

struct live {
    struct wire *wire;
    struct redis_server server;
};

static int live_setup(void **state)
{
    struct live *l = calloc(1, sizeof *l);
    assert_non_null(l);
    void *wire;
    assert_int_equal(wire_setup(&wire), 0);
    l->wire = wire;
    if (redis_server_is_installed()) redis_server_start(&l->server, users);
    *state = l;
    return 0;
}

static int live_teardown(void **state)
{
    struct live *l = *state;
    void *wire = l->wire;
    if (l->server.address.len) redis_server_remove(&l->server);
    int r = wire_teardown(&wire);
    free(l);
    return r;
}

/* The server and its loop; skips the test when there is none. */
static struct live *live_of(void **state)
{
    struct live *l = *state;
    if (!l->server.pid) SKIP("there is no redis-server here");
    return l;
}

static struct redis_options options_of(const struct live *l, const char *user)
{
    return (struct redis_options){.address = &l->server.address,
                                  .user = user,
                                  .password = "s3cret",
                                  .client_name = "proofgw",
                                  .must_be_master = true,
                                  .connect_timeout_ms = 5000,
                                  .command_timeout_ms = 5000};
}

static void open_ready(struct live *l, struct heard *h)
{
    const struct redis_options o = options_of(l, "gateway");
    heard_open(l->wire, h, &o);
    WIRE_UNTIL(l->wire, h->ready || h->closed);
    assert_string_equal(h->cause, "");
}

static void open_refused(struct live *l, const struct redis_options *o, enum err e, const char *cause)
{
    struct heard h = {0};
    heard_open(l->wire, &h, o);
    WIRE_UNTIL(l->wire, h.closed);
    assert_int_equal(h.error, e);
    if (!strstr(h.cause, cause)) fail_msg("cause \"%s\", not %s", h.cause, cause);
    assert_int_equal(h.ready, 0);
}

static void logs_in_and_runs_commands(void **state)
{
    struct live *l = live_of(state);
    struct heard h = {0};
    open_ready(l, &h);
    static const char *const commands[] = {
        "HSET p v 1 name acme", "HGETALL p",        "GET nothing",   "HGET",
        "XADD log 1-1 op set",  "XRANGE log 1-1 +", "CLIENT GETNAME"};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        assert_int_equal(heard_send(&h, commands[i]), ERR_OK);
    WIRE_UNTIL(l->wire, h.replies == sizeof commands / sizeof *commands);
    assert_string_equal(h.text,
                        "2;[v 1 name acme];(nil);-ERR wrong number of arguments for 'hget' command;1-1;"
                        "[[1-1 [op set]]];proofgw;");
    heard_close(l->wire, &h);
}

static void a_wrong_password_is_the_cause(void **state)
{
    struct live *l = live_of(state);
    struct redis_options o = options_of(l, "gateway");
    o.password = "guess";
    open_refused(l, &o, ERR_REFUSED, "WRONGPASS");
}

static void a_missing_password_is_the_cause(void **state)
{
    struct live *l = live_of(state);
    struct redis_options o = options_of(l, NULL);
    o.password = NULL;
    open_refused(l, &o, ERR_REFUSED, "NOAUTH");
}

static void a_user_without_role_is_told_so(void **state)
{
    struct live *l = live_of(state);
    const struct redis_options o = options_of(l, "roleless");
    open_refused(l, &o, ERR_REFUSED, "ROLE: the rules (ACL)");
}

static void a_user_without_a_name_is_let_in(void **state)
{
    struct live *l = live_of(state);
    struct heard h = {0};
    const struct redis_options o = options_of(l, "nameless");
    heard_open(l->wire, &h, &o);
    WIRE_UNTIL(l->wire, h.ready);
    heard_close(l->wire, &h);
}

static void a_replica_is_refused(void **state)
{
    struct live *l = live_of(state);
    struct heard h = {0};
    open_ready(l, &h);
    assert_int_equal(heard_send(&h, "REPLICAOF 127.0.0.1 1"), ERR_OK);
    WIRE_UNTIL(l->wire, h.replies);
    heard_close(l->wire, &h);
    const struct redis_options o = options_of(l, "gateway");
    open_refused(l, &o, ERR_CONFLICT, "not the master");
}

static void thousands_of_replies_keep_their_order(void **state)
{
    struct live *l = live_of(state);
    struct heard h = {0};
    open_ready(l, &h);
    char want[HEARD_TEXT_MAX];
    size_t n = 0;
    for (unsigned i = 1; i <= 2500; i++) {
        assert_int_equal(heard_send(&h, "INCR n"), ERR_OK);
        n += (size_t)snprintf(want + n, sizeof want - n, "%u;", i);
    }
    WIRE_UNTIL(l->wire, h.replies == 2500);
    assert_string_equal(h.text, want);
    heard_close(l->wire, &h);
}

static void the_bound_of_a_reply_is_above_a_megabyte_and_below_17(void **state)
{
    struct live *l = live_of(state);
    struct heard h = {0};
    open_ready(l, &h);
    assert_int_equal(heard_send(&h, "SETRANGE k 1048576 x"), ERR_OK);
    assert_int_equal(heard_send(&h, "GET k"), ERR_OK);
    WIRE_UNTIL(l->wire, h.replies == 2);
    assert_int_equal(heard_send(&h, "SETRANGE k 17000000 x"), ERR_OK);
    assert_int_equal(heard_send(&h, "GET k"), ERR_OK);
    WIRE_UNTIL(l->wire, h.closed);
    assert_int_equal(h.error, ERR_LIMIT);
    assert_int_equal(h.replies, 3);
    assert_int_equal(h.nulls, 1);
}

/* The first command blocks, so that the others certainly wait when the server dies. */
static void kill_9_answers_each_waiting_command_once_with_null(void **state)
{
    struct live *l = live_of(state);
    struct heard h = {0};
    open_ready(l, &h);
    assert_int_equal(heard_send(&h, "BLPOP nothing 0"), ERR_OK);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(heard_send(&h, "PING"), ERR_OK);
    wire_settle(l->wire);
    redis_server_kill(&l->server);
    WIRE_UNTIL(l->wire, h.closed);
    wire_settle(l->wire);
    assert_int_equal(h.replies, 0);
    assert_int_equal(h.nulls, 101);
    assert_int_equal(h.closed, 1);
    assert_true(h.error == ERR_EOF || h.error == ERR_RESET);
}

static void a_server_that_shuts_down_closes(void **state)
{
    struct live *l = live_of(state);
    struct heard h = {0};
    open_ready(l, &h);
    assert_int_equal(heard_send(&h, "SHUTDOWN NOSAVE"), ERR_OK);
    WIRE_UNTIL(l->wire, h.closed);
    assert_int_equal(h.nulls, 1);
    assert_int_equal(h.error, ERR_EOF);
}

static void a_killed_client_is_closed(void **state)
{
    struct live *l = live_of(state);
    struct heard victim = {0}, killer = {0};
    open_ready(l, &victim);
    assert_int_equal(heard_send(&victim, "XREAD BLOCK 0 STREAMS log $"), ERR_OK);
    wire_settle(l->wire);
    open_ready(l, &killer);
    assert_int_equal(heard_send(&killer, "CLIENT KILL TYPE normal SKIPME yes"), ERR_OK);
    WIRE_UNTIL(l->wire, victim.closed && killer.replies);
    assert_int_equal(victim.nulls, 1);
    heard_close(l->wire, &killer);
}

static void a_command_that_hangs_times_out(void **state)
{
    struct live *l = live_of(state);
    struct heard h = {0};
    open_ready(l, &h);
    const char *const argv[] = {"BLPOP", "nothing", "0"};
    assert_int_equal(redis_command(h.conn, 100, heard_reply, &h, 3, argv, NULL), ERR_OK);
    WIRE_UNTIL(l->wire, h.closed);
    assert_int_equal(h.error, ERR_TIMEOUT);
    assert_int_equal(h.nulls, 1);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, live_setup, live_teardown)
    const struct CMUnitTest tests[] = {
        T(logs_in_and_runs_commands),
        T(a_wrong_password_is_the_cause),
        T(a_missing_password_is_the_cause),
        T(a_user_without_role_is_told_so),
        T(a_user_without_a_name_is_let_in),
        T(a_replica_is_refused),
        T(thousands_of_replies_keep_their_order),
        T(the_bound_of_a_reply_is_above_a_megabyte_and_below_17),
        T(kill_9_answers_each_waiting_command_once_with_null),
        T(a_server_that_shuts_down_closes),
        T(a_killed_client_is_closed),
        T(a_command_that_hangs_times_out),
    };
    return cmocka_run_group_tests_name("redis_conn_server", tests, NULL, NULL);
}
