/* The Redis store in ordinary life, against a real server: loading, following, resuming. What can go wrong
 * is in test_redis_faults.c and test_redis_away.c. */
#include "helper_sync.h"
#include "store/redis_sync_state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void test_loads_what_is_there(void **state)
{
    struct sync *f = sync_of(state);
    partners_set_many(&f->redis, 0, 100);
    sync_open(f);
    assert_false(policy_is_ready(f->policy));
    sync_catch_up(f);
    assert_true(policy_is_ready(f->policy));
    assert_int_equal(sync_partners(f), 100);
    struct store_status s = sync_status(f);
    assert_int_equal(s.loads_total, 1);
    assert_int_equal(s.full_loads_total[STORE_LOAD_FIRST], 1);
    assert_int_equal(s.records_rejected, 0);
    assert_false(s.is_inconsistent);
    assert_string_equal(s.last_error, "");
}

/* A data set that nobody has written to is a good one: everybody gets a 401. */
static void test_loads_an_empty_data_set(void **state)
{
    struct sync *f = sync_of(state);
    sync_open(f);
    sync_catch_up(f);
    assert_true(policy_is_ready(f->policy));
    partners_set(&f->redis, 1, 0);
    sync_catch_up(f);
    assert_true(sync_has(f, 1));
}

static void test_changes_are_followed(void **state)
{
    struct sync *f = sync_of(state);
    partners_set_many(&f->redis, 0, 30);
    sync_open(f);
    sync_catch_up(f);
    assert_true(sync_off_ramp(f, 3));
    partners_set(&f->redis, 3, 1);
    partners_set(&f->redis, 500, 0);
    partners_del(&f->redis, 4);
    sync_catch_up(f);
    assert_false(sync_off_ramp(f, 3));
    assert_true(sync_has(f, 500));
    assert_false(sync_has(f, 4));
    assert_int_equal(sync_partners(f), 30);
    assert_int_equal(sync_status(f).loads_total, 1);
}

/* Far more changes than one reply may hold. */
static void test_a_burst_of_changes_is_followed(void **state)
{
    struct sync *f = sync_of(state);
    sync_open(f);
    sync_catch_up(f);
    partners_set_many(&f->redis, 0, 250);
    sync_catch_up(f);
    assert_int_equal(sync_partners(f), 250);
    assert_int_equal(sync_status(f).loads_total, 1);
}

static void test_changes_during_the_load(void **state)
{
    struct sync *f = sync_of(state);
    partners_set_many(&f->redis, 0, 200);
    sync_open(f);
    for (unsigned i = 0; !sync_status(f).up; i++) {
        partners_set(&f->redis, i % 200, i);
        partners_set(&f->redis, 200 + i, 0);
        if (i % 3 == 0) partners_del(&f->redis, 200 + i);
        sync_turn(f, sync_deadline(), "loading while changes come");
    }
    sync_catch_up(f);
    struct store_status s = sync_status(f);
    assert_int_equal(s.loads_total, 1);
    assert_int_equal(s.full_loads_total[STORE_LOAD_DIGEST] + s.full_loads_total[STORE_LOAD_GAP], 0);
}

/* A token that moves from one partner to another, in the order in which it must. */
static void test_a_token_changes_hands(void **state)
{
    struct sync *f = sync_of(state);
    partners_set_many(&f->redis, 0, 2);
    sync_open(f);
    sync_catch_up(f);
    partners_rename(&f->redis, 0, "heir");
    sync_catch_up(f);
    assert_int_equal(sync_status(f).records_rejected, 0);
    assert_int_not_equal(policy_find(f->policy, SPAN("heir")), PARTNER_INDEX_NONE);
}

static void test_resumes_where_it_was(void **state)
{
    struct sync *f = sync_of(state);
    partners_set_many(&f->redis, 0, 50);
    sync_open(f);
    sync_catch_up(f);
    partners_lock_out(&f->redis);
    SYNC_UNTIL(f, !sync_status(f).up);
    partners_set_many(&f->redis, 50, 35);
    partners_del(&f->redis, 0);
    assert_int_equal(sync_partners(f), 50);
    partners_let_in(&f->redis);
    sync_catch_up(f);
    assert_int_equal(sync_partners(f), 84);
    assert_int_equal(sync_status(f).loads_total, 1);
}

static void test_reload_reads_everything_again(void **state)
{
    struct sync *f = sync_of(state);
    partners_set_many(&f->redis, 0, 20);
    sync_open(f);
    sync_catch_up(f);
    f->store->ops->reload(f->store);
    SYNC_UNTIL(f, sync_status(f).loads_total == 2 && sync_status(f).up);
    assert_int_equal(sync_status(f).full_loads_total[STORE_LOAD_OPERATOR], 1);
    assert_int_equal(sync_partners(f), 20);
}

static enum redis_sync_state state_of(const struct sync *f)
{
    return ((const struct redis_sync *)f->store)->state;
}

/* A record that is changed by hand when it has been read already. */
static void test_reload_during_a_load(void **state)
{
    struct sync *f = sync_of(state);
    partners_set_many(&f->redis, 0, 20);
    sync_open(f);
    SYNC_UNTIL(f, state_of(f) == SYNC_APPLYING);
    partners_admin(&f->redis, "HSET %s off_ramp false", partners_key(3));
    f->store->ops->reload(f->store);
    f->store->ops->reload(f->store);
    SYNC_UNTIL(f, sync_status(f).up);
    assert_false(sync_off_ramp(f, 3));
    assert_int_equal(sync_loads_for(f, STORE_LOAD_OPERATOR), 1);
    assert_int_equal(sync_status(f).loads_total, 2);
    partners_set(&f->redis, 4, 1);
    sync_catch_up(f);
    assert_int_equal(sync_status(f).loads_total, 2); /* not for ever */
}

/* A load that fails is tried again: that one begins later than everything was asked for, and is enough. */
static void test_reload_during_a_load_that_fails(void **state)
{
    struct sync *f = sync_of(state);
    partners_set_many(&f->redis, 0, 200);
    sync_open(f);
    SYNC_UNTIL(f, state_of(f) == SYNC_LOADING);
    f->store->ops->reload(f->store);
    partners_lock_out(&f->redis);
    SYNC_UNTIL(f, state_of(f) == SYNC_IDLE);
    sync_come_back(f);
    assert_int_equal(sync_loads_for(f, STORE_LOAD_FIRST), 2);
    assert_int_equal(sync_loads_for(f, STORE_LOAD_OPERATOR), 0);
    assert_int_equal(sync_status(f).loads_total, 1);
}

static void test_closes_at_any_moment(void **state)
{
    struct sync *f = sync_of(state);
    partners_set_many(&f->redis, 0, 200);
    for (unsigned turns = 0; turns < 60; turns += 1 + turns / 8) {
        sync_open(f);
        for (unsigned i = 0; i < turns; i++)
            sync_turn(f, sync_deadline(), "some turns");
        sync_close(f);
    }
}

#define SYNC_TEST(test) cmocka_unit_test_setup_teardown(test, sync_setup, sync_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SYNC_TEST(test_loads_what_is_there),     SYNC_TEST(test_loads_an_empty_data_set),
        SYNC_TEST(test_changes_are_followed),    SYNC_TEST(test_a_burst_of_changes_is_followed),
        SYNC_TEST(test_changes_during_the_load), SYNC_TEST(test_a_token_changes_hands),
        SYNC_TEST(test_resumes_where_it_was),    SYNC_TEST(test_reload_reads_everything_again),
        SYNC_TEST(test_reload_during_a_load),    SYNC_TEST(test_reload_during_a_load_that_fails),
        SYNC_TEST(test_closes_at_any_moment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
