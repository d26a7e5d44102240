/* A load that would drop many partners is held until an operator confirms it. Against a real server. */
#include "helper_sync.h"
#include "store/redis_sync_state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { PARTNERS = 40 };

/* The data set was made anew with only `n` partners. */
static void shrink(struct sync *f, unsigned n)
{
    partners_admin(&f->redis, "FLUSHALL");
    partners_init(&f->redis, "e2");
    partners_set_many(&f->redis, 0, n);
}

static void test_mass_deletion_is_held(void **state)
{
    struct sync *f = sync_cut_off(state, PARTNERS);
    shrink(f, PARTNERS / 2);
    partners_let_in(&f->redis);
    SYNC_UNTIL(f, sync_status(f).deletions_held > 0);
    uint64_t failures = sync_status(f).load_failures_total;
    SYNC_UNTIL(f, sync_status(f).load_failures_total >= failures + 2); /* held again and again */
    assert_int_equal(sync_status(f).deletions_held, PARTNERS / 2);
    assert_int_equal(sync_partners(f), PARTNERS);
    failures = sync_status(f).load_failures_total;
    f->store->ops->reload(f->store); /* that is another wish: it is looked at again, and still held */
    SYNC_UNTIL(f, sync_status(f).load_failures_total >= failures + 2);
    assert_int_equal(sync_partners(f), PARTNERS);
    assert_int_equal(f->store->ops->confirm(f->store), PARTNERS / 2);
    SYNC_UNTIL(f, sync_partners(f) == PARTNERS / 2 && sync_status(f).up);
    assert_int_equal(sync_status(f).deletions_held, 0);
}

static void test_confirm_is_the_word_of_an_operator(void **state)
{
    struct sync *f = sync_of(state);
    f->options.held_ms = 3600 * 1000;
    f = sync_cut_off(state, PARTNERS);
    assert_int_equal(f->store->ops->confirm(f->store), 0); /* nothing is held: nothing is agreed to */
    shrink(f, PARTNERS / 2);
    partners_let_in(&f->redis);
    SYNC_UNTIL(f, sync_status(f).deletions_held > 0);
    assert_int_equal(sync_partners(f), PARTNERS);
    const uv_timer_t *retry = &((const struct redis_sync *)f->store)->timers[SYNC_RETRY];
    SYNC_UNTIL(f, uv_is_active((const uv_handle_t *)retry));
    assert_true(uv_timer_get_due_in(retry) > f->options.held_ms / 2); /* nobody is asked again meanwhile */
    assert_int_equal(f->store->ops->confirm(f->store), PARTNERS / 2); /* at once, not after held_ms */
    SYNC_UNTIL(f, sync_partners(f) == PARTNERS / 2 && sync_status(f).up);
    assert_int_equal(sync_status(f).full_loads_total[STORE_LOAD_OPERATOR], 0);
    assert_int_equal(f->store->ops->confirm(f->store), 0);
}

/* An operator confirms what was said, not whatever comes. */
static void test_confirmation_is_for_that_number(void **state)
{
    struct sync *f = sync_cut_off(state, PARTNERS);
    shrink(f, PARTNERS / 2);
    partners_let_in(&f->redis);
    SYNC_UNTIL(f, sync_status(f).deletions_held == PARTNERS / 2);
    partners_lock_out(&f->redis);
    shrink(f, 1);
    assert_int_equal(f->store->ops->confirm(f->store), PARTNERS / 2);
    partners_let_in(&f->redis);
    SYNC_UNTIL(f, sync_status(f).deletions_held == PARTNERS - 1);
    assert_int_equal(sync_partners(f), PARTNERS);
}

/* How many records were asked for since the server began. */
static unsigned records_read(struct sync *f)
{
    redisReply *info = redisCommand(f->redis.admin, "INFO commandstats");
    assert_non_null(info);
    const char *at = strstr(info->str, "cmdstat_hgetall:calls=");
    unsigned n = at ? (unsigned)strtoul(at + strlen("cmdstat_hgetall:calls="), NULL, 10) : 0;
    freeReplyObject(info);
    return n;
}

/* All records have been read when most of them are deleted: only the log knows. */
static void test_deletions_during_the_load_are_held(void **state)
{
    struct sync *f = sync_of(state);
    f->options.range_count = 1; /* so that it is read in many steps */
    f = sync_cut_off(state, PARTNERS);
    for (unsigned i = 0; i < 3; i++)
        partners_set(&f->redis, 0, i);
    partners_admin(&f->redis, "XTRIM gw:{cfg}:log MAXLEN 2");
    unsigned before = records_read(f);
    partners_let_in(&f->redis);
    SYNC_UNTIL(f, records_read(f) >= before + PARTNERS);
    for (unsigned i = 0; i < PARTNERS * 3 / 4; i++)
        partners_del(&f->redis, i);
    SYNC_UNTIL(f, sync_status(f).deletions_held > 0 || sync_status(f).loads_total > 1);
    assert_int_equal(sync_partners(f), PARTNERS);
    assert_int_equal(sync_loads_for(f, STORE_LOAD_TRIMMED), 1);
}

static void test_few_deletions_are_not_held(void **state)
{
    struct sync *f = sync_cut_off(state, PARTNERS);
    shrink(f, PARTNERS - PARTNERS / 5);
    sync_come_back(f);
    assert_int_equal(sync_partners(f), PARTNERS - PARTNERS / 5);
}

static void test_data_that_comes_back_ends_the_hold(void **state)
{
    struct sync *f = sync_cut_off(state, PARTNERS);
    shrink(f, 1);
    partners_let_in(&f->redis);
    SYNC_UNTIL(f, sync_status(f).deletions_held > 0);
    partners_set_many(&f->redis, 0, PARTNERS);
    sync_catch_up(f);
    assert_int_equal(sync_status(f).deletions_held, 0);
    assert_int_equal(sync_partners(f), PARTNERS);
}

#define SYNC_TEST(test) cmocka_unit_test_setup_teardown(test, sync_setup, sync_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SYNC_TEST(test_mass_deletion_is_held),           SYNC_TEST(test_confirm_is_the_word_of_an_operator),
        SYNC_TEST(test_confirmation_is_for_that_number), SYNC_TEST(test_deletions_during_the_load_are_held),
        SYNC_TEST(test_few_deletions_are_not_held),      SYNC_TEST(test_data_that_comes_back_ends_the_hold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
