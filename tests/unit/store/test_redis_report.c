/* What a gateway says of itself in Redis. Against a real server, with the rights of docs/DATA.md. */
#include "base/clock.h"
#include "helper_sync.h"

#include <jansson.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { PARTNERS = 40, INSTANCE_CHARS = 16 };

static const char prefix[] = "gw:{cfg}:g:";

/* The one report that is there; NULL when there is none. The caller releases it. `key` may be NULL. */
static json_t *report(const struct sync *f, char key[REDIS_KEY_MAX])
{
    json_t *json = NULL;
    redisReply *keys = redisCommand(f->redis.admin, "KEYS %s*", prefix);
    assert_non_null(keys);
    assert_in_range(keys->elements, 0, 1);
    if (keys->elements == 1) {
        redisReply *value = redisCommand(f->redis.admin, "GET %s", keys->element[0]->str);
        assert_non_null(value);
        if (value->type == REDIS_REPLY_STRING) {
            json = json_loadb(value->str, value->len, JSON_REJECT_DUPLICATES, NULL);
            assert_non_null(json);
        }
        if (key) (void)snprintf(key, REDIS_KEY_MAX, "%s", keys->element[0]->str);
        freeReplyObject(value);
    }
    freeReplyObject(keys);
    return json;
}

static uint64_t number_of(const json_t *report, const char *name)
{
    const json_t *value = json_object_get(report, name);
    assert_true(json_is_integer(value));
    return (uint64_t)json_integer_value(value);
}

static const char *text_of(const json_t *report, const char *name)
{
    const json_t *value = json_object_get(report, name);
    assert_true(json_is_string(value));
    return json_string_value(value);
}

static bool is_reported(const struct sync *f, uint64_t sequence, const char *state)
{
    json_t *r = report(f, NULL);
    bool yes = r && number_of(r, "seq") == sequence && strcmp(text_of(r, "state"), state) == 0;
    json_decref(r);
    return yes;
}

static bool is_absent(const struct sync *f)
{
    json_t *r = report(f, NULL);
    json_decref(r);
    return !r;
}

static struct sync *reported(void **state)
{
    struct sync *f = sync_followed(state, PARTNERS);
    SYNC_UNTIL(f, is_reported(f, PARTNERS, "live"));
    return f;
}

static void test_the_report(void **state)
{
    uint64_t begin = clock_wall_ms();
    struct sync *f = reported(state);
    char key[REDIS_KEY_MAX], host[256];
    json_t *r = report(f, key);
    assert_int_equal(json_object_size(r), 11);
    assert_memory_equal(key, prefix, sizeof prefix - 1);
    assert_string_equal(key + sizeof prefix - 1, text_of(r, "instance"));
    assert_int_equal(strspn(text_of(r, "instance"), "0123456789abcdef"), INSTANCE_CHARS);
    assert_int_equal(strlen(text_of(r, "instance")), INSTANCE_CHARS);
    assert_true(text_of(r, "version")[0] >= '0' && text_of(r, "version")[0] <= '9');
    assert_int_equal(number_of(r, "pid"), getpid());
    assert_int_equal(gethostname(host, sizeof host), 0);
    assert_string_equal(text_of(r, "host"), host);
    assert_string_equal(text_of(r, "epoch"), "e1");
    assert_int_equal(number_of(r, "partners"), PARTNERS);
    assert_in_range(number_of(r, "started_ms"), begin, clock_wall_ms());
    assert_in_range(number_of(r, "last_change_ms"), number_of(r, "started_ms"), clock_wall_ms());
    assert_in_range(number_of(r, "staleness_ms"), 0, 10000);
    json_decref(r);
}

static void test_it_expires(void **state)
{
    struct sync *f = reported(state);
    char key[REDIS_KEY_MAX];
    json_decref(report(f, key));
    assert_in_range(partners_admin(&f->redis, "PTTL %s", key), 1, 3 * (long long)f->options.report_ms);
    partners_lock_out(&f->redis); /* nothing is written any more */
    SYNC_UNTIL(f, is_absent(f));
    assert_true(sync_status(f).report_failures_total > 0);
    partners_let_in(&f->redis);
    SYNC_UNTIL(f, is_reported(f, PARTNERS, "live"));
}

/* Four times, seen by the time that it has left: on a busy machine it may be gone for a moment between two of
 * them. */
static void test_it_is_renewed_without_changes(void **state)
{
    struct sync *f = reported(state);
    char key[REDIS_KEY_MAX];
    json_decref(report(f, key));
    for (unsigned n = 0; n < 4; n++) {
        long long left = partners_admin(&f->redis, "PTTL %s", key);
        SYNC_UNTIL(f, partners_admin(&f->redis, "PTTL %s", key) < left);
        left = partners_admin(&f->redis, "PTTL %s", key);
        SYNC_UNTIL(f, partners_admin(&f->redis, "PTTL %s", key) > left);
    }
    SYNC_UNTIL(f, is_reported(f, PARTNERS, "live"));
}

static void test_a_change_is_reported(void **state)
{
    struct sync *f = sync_of(state);
    f->options.report_ms = 3600 * 1000; /* never because it is time */
    f->options.report_gap_ms = 1;
    f = reported(state);
    for (unsigned i = 0; i < 10; i++) {
        partners_set(&f->redis, i, 1);
        uint64_t committed = clock_wall_ms();
        SYNC_UNTIL(f, is_reported(f, PARTNERS + i + 1, "live"));
        json_t *r = report(f, NULL);
        assert_in_range(number_of(r, "last_change_ms"), committed - 1, clock_wall_ms());
        json_decref(r);
    }
}

static uint64_t sets_so_far(const struct sync *f)
{
    unsigned long n = 0;
    redisReply *r = redisCommand(f->redis.admin, "INFO commandstats");
    assert_non_null(r);
    const char *line = strstr(r->str, "cmdstat_set:calls=");
    if (line) n = strtoul(line + strlen("cmdstat_set:calls="), NULL, 10);
    freeReplyObject(r);
    return n;
}

static void test_many_changes_are_few_reports(void **state)
{
    enum { CHANGES = 2000 };
    struct sync *f = reported(state);
    uint64_t begin_us = clock_mono_us(), before = sets_so_far(f);
    for (unsigned i = 0; i < CHANGES; i++) {
        partners_set(&f->redis, i % PARTNERS, i);
        (void)uv_run(&f->loop.uv, UV_RUN_NOWAIT);
    }
    SYNC_UNTIL(f, is_reported(f, PARTNERS + CHANGES, "live"));
    uint64_t ms = (clock_mono_us() - begin_us) / 1000;
    assert_in_range(sets_so_far(f) - before, 1, ms / f->options.report_gap_ms + 2);
}

static void test_a_gateway_that_may_not_write(void **state)
{
    struct sync *f = sync_of(state);
    partners_admin(&f->redis, "ACL SETUSER gateway -set");
    f = sync_followed(state, PARTNERS);
    SYNC_UNTIL(f, sync_status(f).report_failures_total >= 3);
    assert_true(is_absent(f));
    partners_set(&f->redis, PARTNERS, 0);
    sync_catch_up(f);
    assert_int_equal(sync_status(f).load_failures_total, 0); /* nothing else suffers */
    partners_admin(&f->redis, "ACL SETUSER gateway +set");
    SYNC_UNTIL(f, is_reported(f, PARTNERS + 1, "live"));
}

static void test_a_held_load_is_reported_as_stale(void **state)
{
    struct sync *f = reported(state);
    partners_admin(&f->redis, "FLUSHALL");
    partners_init(&f->redis, "e2");
    partners_set(&f->redis, 0, 0);
    SYNC_UNTIL(f, sync_status(f).deletions_held > 0);
    SYNC_UNTIL(f, is_reported(f, PARTNERS, "stale"));
    json_t *r = report(f, NULL);
    assert_int_equal(number_of(r, "partners"), PARTNERS);
    json_decref(r);
}

/* --- the end ------------------------------------------------------------------------------------------ */

static void test_an_orderly_end_takes_it_back(void **state)
{
    struct sync *f = reported(state);
    f->options.report_ms = 3600 * 1000;
    sync_restart(f); /* under another name */
    SYNC_UNTIL(f, is_reported(f, PARTNERS, "live"));
    sync_close(f);
    SYNC_UNTIL(f, is_absent(f));
}

static void test_an_end_without_the_right_to_delete(void **state)
{
    struct sync *f = reported(state);
    partners_admin(&f->redis, "ACL SETUSER gateway -del");
    sync_close(f);
}

static void test_an_end_while_the_server_is_silent(void **state)
{
    struct sync *f = reported(state);
    assert_int_equal(kill(f->redis.server.pid, SIGSTOP), 0);
    sync_close(f);
    assert_int_equal(kill(f->redis.server.pid, SIGCONT), 0);
}

#define SYNC_TEST(test) cmocka_unit_test_setup_teardown(test, sync_setup, sync_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SYNC_TEST(test_the_report),
        SYNC_TEST(test_it_expires),
        SYNC_TEST(test_it_is_renewed_without_changes),
        SYNC_TEST(test_a_change_is_reported),
        SYNC_TEST(test_many_changes_are_few_reports),
        SYNC_TEST(test_a_gateway_that_may_not_write),
        SYNC_TEST(test_a_held_load_is_reported_as_stale),
        SYNC_TEST(test_an_orderly_end_takes_it_back),
        SYNC_TEST(test_an_end_without_the_right_to_delete),
        SYNC_TEST(test_an_end_while_the_server_is_silent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
