/* The wall clock is set while Redis is followed, or away: how stale the data is goes by another one. */
#include <stdint.h>
#include <time.h>

static int64_t wall_is_ahead_s;

static int read_clock(clockid_t clock, struct timespec *t)
{
    int result = clock_gettime(clock, t);
    if (clock == CLOCK_REALTIME) t->tv_sec += wall_is_ahead_s;
    return result;
}

#define clock_gettime read_clock
#include "base/clock.c"
#undef clock_gettime

#include "helper_sync.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { PARTNERS = 10, LIMIT_MS = 300, HOUR_S = 3600, PROMPT_MS = 10000 };

static struct sync *limited(void **state)
{
    struct sync *f = sync_of(state);
    wall_is_ahead_s = 0;
    f->config.redis.max_staleness_ms = LIMIT_MS;
    f->options.block_ms = 50;
    return f;
}

/* The limit would be met an hour later, or never. */
static void test_set_back_while_redis_is_away(void **state)
{
    struct sync *f = limited(state);
    (void)sync_followed(state, PARTNERS);
    partners_lock_out(&f->redis);
    wall_is_ahead_s = -HOUR_S;
    SYNC_UNTIL(f, sync_status(f).is_too_stale);
    assert_in_range(sync_status(f).staleness_ms, LIMIT_MS, PROMPT_MS);
}

/* Every gateway would be unready at once. */
static void test_set_forward_while_it_is_followed(void **state)
{
    struct sync *f = limited(state);
    f->config.redis.max_staleness_ms = HOUR_S * 1000 / 2;
    (void)sync_followed(state, PARTNERS);
    wall_is_ahead_s = HOUR_S;
    assert_false(sync_status(f).is_too_stale);
    assert_in_range(sync_status(f).staleness_ms, 0, PROMPT_MS);
}

/* From one process to the next there is only the wall clock. */
static void test_age_of_a_snapshot(void **state)
{
    struct sync *f = limited(state);
    f->config.snapshot = strdup(folder_path(f->folder, "snapshot"));
    (void)sync_followed(state, PARTNERS);
    SYNC_UNTIL(f, sync_status(f).snapshot_at_ms > 0);
    partners_lock_out(&f->redis);
    wall_is_ahead_s = HOUR_S;
    sync_restart(f);
    assert_in_range(sync_status(f).staleness_ms, HOUR_S * 1000, HOUR_S * 1000 + PROMPT_MS);
    wall_is_ahead_s = -HOUR_S; /* it is of the future: as if it were of now */
    sync_restart(f);
    assert_in_range(sync_status(f).staleness_ms, 0, PROMPT_MS);
    SYNC_UNTIL(f, sync_status(f).is_too_stale);
    partners_let_in(&f->redis);
    sync_catch_up(f);
    assert_false(sync_status(f).is_too_stale);
}

#define SYNC_TEST(test) cmocka_unit_test_setup_teardown(test, sync_setup, sync_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SYNC_TEST(test_set_back_while_redis_is_away),
        SYNC_TEST(test_set_forward_while_it_is_followed),
        SYNC_TEST(test_age_of_a_snapshot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
