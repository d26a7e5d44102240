/* Records that somebody changes by hand are found, and good ones are left alone. Against a real server. */
#include "helper_sync.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

enum { PARTNERS = 40 };

static struct sync *scrubbed(void **state)
{
    struct sync *f = sync_of(state);
    f->config.redis.scrub_interval_ms = 20;
    return sync_followed(state, PARTNERS);
}

static void test_scrub_of_good_data(void **state)
{
    struct sync *f = scrubbed(state);
    for (unsigned i = 0; i < 50; i++)
        partners_set(&f->redis, i % PARTNERS, i);
    SYNC_UNTIL(f, sync_status(f).scrubs_total >= 3);
    assert_int_equal(sync_status(f).scrub_repairs_total, 0);
    assert_int_equal(sync_status(f).loads_total, 1);
}

static void test_scrub_while_changes_come(void **state)
{
    struct sync *f = scrubbed(state);
    for (unsigned i = 0; sync_status(f).scrubs_total < 5; i++) {
        partners_set(&f->redis, i % PARTNERS, i);
        if (i % 7 == 0) partners_del(&f->redis, i % PARTNERS);
        for (unsigned k = 0; k < 3;
             k++) /* whenever it is read, it has changed again before that is settled */
            partners_set(&f->redis, 0, i + k);
        sync_turn(f, sync_deadline(), "scrubbing while changes come");
    }
    assert_int_equal(sync_status(f).scrub_repairs_total, 0);
    assert_int_equal(sync_status(f).loads_total, 1);
}

static void test_scrub_finds_a_changed_field(void **state)
{
    struct sync *f = scrubbed(state);
    assert_true(sync_off_ramp(f, 3));
    partners_admin(&f->redis, "HSET %s off_ramp false", partners_key(3));
    SYNC_UNTIL(f, !sync_off_ramp(f, 3));
    SYNC_UNTIL(f, sync_status(f).scrub_repairs_total == 1);
    assert_int_equal(sync_status(f).loads_total, 1);
}

static void test_scrub_finds_a_deleted_key(void **state)
{
    struct sync *f = scrubbed(state);
    partners_admin(&f->redis, "DEL %s", partners_key(3));
    SYNC_UNTIL(f, !sync_has(f, 3) && sync_status(f).up);
    assert_true(sync_loads_for(f, STORE_LOAD_SCRUB) >= 1);
    assert_true(sync_status(f).is_inconsistent);
    partners_set(&f->redis, 3, 0);
    sync_catch_up(f);
    assert_true(sync_has(f, 3));
}

/* Somebody put something else in the place of a record. */
static void test_scrub_finds_a_key_of_another_type(void **state)
{
    struct sync *f = scrubbed(state);
    partners_admin(&f->redis, "SET %s text", partners_key(3));
    SYNC_UNTIL(f, !sync_has(f, 3) && sync_status(f).up);
    assert_true(sync_loads_for(f, STORE_LOAD_SCRUB) >= 1);
}

static void test_scrub_finds_a_changed_version(void **state)
{
    struct sync *f = scrubbed(state);
    partners_admin(&f->redis, "HSET %s v 99999 off_ramp false", partners_key(3));
    SYNC_UNTIL(f, !sync_off_ramp(f, 3) && sync_status(f).up);
    assert_true(sync_loads_for(f, STORE_LOAD_SCRUB) >= 1);
}

#define SYNC_TEST(test) cmocka_unit_test_setup_teardown(test, sync_setup, sync_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SYNC_TEST(test_scrub_of_good_data),
        SYNC_TEST(test_scrub_while_changes_come),
        SYNC_TEST(test_scrub_finds_a_changed_field),
        SYNC_TEST(test_scrub_finds_a_deleted_key),
        SYNC_TEST(test_scrub_finds_a_key_of_another_type),
        SYNC_TEST(test_scrub_finds_a_changed_version),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
