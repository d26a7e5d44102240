/* Servers that are not there, do not answer, do not let us in, or are not the master: partners stay in
 * force, the reason is counted, and it mends itself. Against a real server. What a server may say wrongly is
 * in tests/e2e/test_redis_protocol.py. */
#include "helper_sync.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

enum { PARTNERS = 40 };

/* --- the login --------------------------------------------------------------------------------------- */

static void test_wrong_password(void **state)
{
    struct sync *f = sync_of(state);
    partners_set_many(&f->redis, 0, PARTNERS);
    folder_write_secret(f->folder, "password", "no");
    sync_open(f);
    SYNC_UNTIL(f, sync_error_says(f, "WRONGPASS"));
    assert_false(policy_is_ready(f->policy));
    assert_true(sync_away(f, STORE_AWAY_LOGIN) > 0);
    folder_write_secret(f->folder, "password",
                        GATEWAY_PASSWORD); /* without a line end, as many tools write it */
    sync_catch_up(f);
    assert_int_equal(sync_partners(f), PARTNERS);
}

static void test_no_password(void **state)
{
    struct sync *f = sync_of(state);
    partners_admin(&f->redis, "ACL SETUSER default off");
    free(f->config.redis.password_file);
    f->config.redis.password_file = NULL;
    sync_open(f);
    SYNC_UNTIL(f, sync_error_says(f, "NOAUTH"));
    assert_true(sync_away(f, STORE_AWAY_LOGIN) > 0);
    partners_admin(&f->redis, "ACL SETUSER default on");
    sync_catch_up(f);
}

static void test_password_file_that_everybody_may_read(void **state)
{
    struct sync *f = sync_of(state);
    assert_int_equal(chmod(f->config.redis.password_file, 0644), 0);
    sync_open(f);
    SYNC_UNTIL(f, sync_status(f).load_failures_total > 0);
    assert_int_equal(sync_away(f, STORE_AWAY_LOGIN), sync_status(f).load_failures_total);
    assert_int_equal(chmod(f->config.redis.password_file, 0600), 0);
    sync_catch_up(f);
}

static void test_missing_right(void **state)
{
    static const char *const commands[] = {"hmget", "scan", "hgetall", "xrange", "xread"};
    struct sync *f = sync_of(state);
    partners_set_many(&f->redis, 0, PARTNERS);
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        partners_admin(&f->redis, "ACL SETUSER gateway -%s", commands[i]);
        sync_open(f);
        SYNC_UNTIL(f, sync_error_says(f, "NOPERM"));
        assert_true(sync_away(f, STORE_AWAY_LOGIN) > 0);
        partners_admin(&f->redis, "ACL SETUSER gateway +%s", commands[i]);
        sync_catch_up(f);
        sync_close(f);
    }
}

/* --- the server -------------------------------------------------------------------------------------- */

/* Demoted: the blocked command is answered with -UNBLOCKED, and the next connection finds a replica. */
static void test_demoted_master(void **state)
{
    struct sync *f = sync_followed(state, PARTNERS);
    partners_admin(&f->redis, "REPLICAOF 127.0.0.1 1");
    SYNC_UNTIL(f, sync_error_says(f, "not the master"));
    assert_int_equal(sync_partners(f), PARTNERS);
    assert_true(sync_away(f, STORE_AWAY_NOT_MASTER) >= 2); /* told, and then seen */
    partners_admin(&f->redis, "REPLICAOF NO ONE");
    partners_set(&f->redis, PARTNERS, 0);
    sync_catch_up(f);
    assert_int_equal(sync_status(f).loads_total, 1);
}

static void test_silent_server(void **state)
{
    struct sync *f = sync_of(state);
    f->options.watchdog_ms = 200;
    f->config.redis.connect_timeout_ms = 300;
    (void)sync_followed(state, PARTNERS);
    assert_int_equal(kill(f->redis.server.pid, SIGSTOP), 0);
    SYNC_UNTIL(f, !sync_status(f).up);
    assert_int_equal(sync_partners(f), PARTNERS);
    assert_int_equal(sync_away(f, STORE_AWAY_TIMEOUT), 1);
    assert_int_equal(kill(f->redis.server.pid, SIGCONT), 0);
    sync_catch_up(f);
    assert_int_equal(sync_status(f).loads_total, 1);
}

static void test_server_that_dies(void **state)
{
    struct sync *f = sync_followed(state, PARTNERS);
    partners_admin(&f->redis, "SAVE");
    partners_kill(&f->redis);
    SYNC_UNTIL(f, sync_away(f, STORE_AWAY_UNREACHABLE) > 0);
    assert_int_equal(sync_away(f, STORE_AWAY_CLOSED), 1);
    assert_int_equal(sync_partners(f), PARTNERS);
    partners_revive(&f->redis);
    sync_catch_up(f);
    assert_int_equal(sync_status(f).loads_total, 1);
}

static void test_server_that_dies_during_the_load(void **state)
{
    struct sync *f = sync_of(state);
    partners_set_many(&f->redis, 0, 300);
    partners_admin(&f->redis, "SAVE");
    sync_open(f);
    for (unsigned i = 0; i < 12; i++) {
        for (unsigned turn = 0; turn < 3 * i; turn++)
            sync_turn(f, sync_deadline(), "loading");
        partners_kill(&f->redis);
        for (unsigned turn = 0; turn < 5; turn++)
            sync_turn(f, sync_deadline(), "noticing");
        partners_revive(&f->redis);
    }
    sync_catch_up(f);
    assert_int_equal(sync_partners(f), 300);
}

/* --- Redis away --------------------------------------------------------------------------------------- */

static void test_start_without_redis(void **state)
{
    struct sync *f = sync_of(state);
    partners_set_many(&f->redis, 0, PARTNERS);
    partners_admin(&f->redis, "SAVE");
    partners_kill(&f->redis);
    sync_open(f);
    SYNC_UNTIL(f, sync_status(f).load_failures_total >= 2);
    assert_false(policy_is_ready(f->policy));
    assert_int_equal(sync_away(f, STORE_AWAY_UNREACHABLE), sync_status(f).load_failures_total);
    partners_revive(&f->redis);
    sync_catch_up(f);
    assert_int_equal(sync_partners(f), PARTNERS);
}

static void test_staleness(void **state)
{
    struct sync *f = sync_of(state);
    f->config.redis.max_staleness_ms = 300;
    f->options.block_ms = 50;
    (void)sync_followed(state, PARTNERS);
    assert_false(sync_status(f).is_too_stale);
    partners_lock_out(&f->redis);
    SYNC_UNTIL(f, sync_status(f).is_too_stale);
    assert_true(sync_status(f).staleness_ms > 300);
    assert_int_equal(sync_partners(f), PARTNERS); /* serving goes on */
    partners_let_in(&f->redis);
    sync_catch_up(f);
    assert_false(sync_status(f).is_too_stale);
}

#define SYNC_TEST(test) cmocka_unit_test_setup_teardown(test, sync_setup, sync_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SYNC_TEST(test_wrong_password),
        SYNC_TEST(test_no_password),
        SYNC_TEST(test_password_file_that_everybody_may_read),
        SYNC_TEST(test_missing_right),
        SYNC_TEST(test_demoted_master),
        SYNC_TEST(test_silent_server),
        SYNC_TEST(test_server_that_dies),
        SYNC_TEST(test_server_that_dies_during_the_load),
        SYNC_TEST(test_start_without_redis),
        SYNC_TEST(test_staleness),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
