/* How long a drain takes, by a clock that the test moves: the delay, the workers' time, and the margin after
 * which a worker hangs. There are no workers, so each waits to its end. */
#include "base/metrics.h"
#include "control/drain.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

enum { BUFFER_BYTES = 64 * 1024, DELAY_MS = 3000, SHUTDOWN_MS = 20000, MARGIN_MS = 5000 };

struct test {
    struct loop loop;
    struct fleet fleet;
    struct drain drain;
    unsigned nhangs;
};

static void on_hang(void *arg)
{
    struct test *t = arg;
    t->nhangs++;
}

static int setup(void **state)
{
    struct test *t = calloc(1, sizeof *t);
    assert_non_null(t);
    metrics_init(&(struct metrics_labels){0});
    assert_int_equal(loop_init(&t->loop, BUFFER_BYTES, NULL), ERR_OK);
    drain_init(&t->drain, &t->loop, &t->fleet, on_hang, t);
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct test *t = *state;
    drain_close(&t->drain);
    loop_close(&t->loop);
    loop_run(&t->loop);
    loop_deinit(&t->loop);
    metrics_deinit();
    free(t);
    return 0;
}

static void pass_ms(struct test *t, uint64_t ms)
{
    t->loop.now_ms += ms;
    wheel_advance(&t->loop.wheel, t->loop.now_ms);
}

/* Nothing happens before `ms` are over; then the drain is in `state`. */
static void lasts(struct test *t, uint64_t ms, enum drain_state state)
{
    enum drain_state before = t->drain.state;
    pass_ms(t, ms - 1);
    assert_int_equal(t->drain.state, before);
    assert_int_equal(t->nhangs, 0);
    pass_ms(t, 1 + 2 * WHEEL_TICK_MS);
    assert_int_equal(t->drain.state, state);
}

static void each_part_has_its_time(void **state)
{
    struct test *t = *state;
    drain_end(&t->drain, DELAY_MS, SHUTDOWN_MS);
    assert_int_equal(t->drain.state, DRAIN_LEAVING);
    lasts(t, DELAY_MS, DRAIN_ENDING);
    lasts(t, SHUTDOWN_MS, DRAIN_OVERDUE);
    lasts(t, MARGIN_MS, DRAIN_OVERDUE);
    assert_int_equal(t->nhangs, 1);
}

/* Whenever that was asked for, the margin begins with it. */
static void a_cut_has_the_margin(void **state)
{
    struct test *t = *state;
    drain_end(&t->drain, 0, SHUTDOWN_MS);
    lasts(t, SHUTDOWN_MS, DRAIN_OVERDUE);
    pass_ms(t, MARGIN_MS - 1);
    drain_now(&t->drain);
    drain_end(&t->drain, 0, SHUTDOWN_MS);
    assert_false(drain_undo(&t->drain));
    lasts(t, MARGIN_MS, DRAIN_CUTTING);
    assert_int_equal(t->nhangs, 1);
}

/* A process that stood still for all the time that it had gives its workers the margin nevertheless. */
static void the_margin_is_not_slept_away(void **state)
{
    struct test *t = *state;
    drain_end(&t->drain, 0, SHUTDOWN_MS);
    pass_ms(t, SHUTDOWN_MS + 2 * MARGIN_MS);
    lasts(t, MARGIN_MS, DRAIN_OVERDUE);
    assert_int_equal(t->nhangs, 1);
}

/* 200,000 connections are 10 s of work for a machine that is slow. */
static void a_worker_with_many_connections_has_longer(void **state)
{
    struct test *t = *state;
    struct metrics_block *block = metrics_block_create();
    assert_non_null(block);
    metrics_gauge_set(block, METRIC_CONNECTIONS_OPEN, 0, 200000);
    drain_now(&t->drain);
    lasts(t, MARGIN_MS + 10000, DRAIN_CUTTING);
    assert_int_equal(t->nhangs, 1);
}

static void workers_that_have_ended_do_not_hang(void **state)
{
    struct test *t = *state;
    drain_now(&t->drain);
    drain_close(&t->drain);
    pass_ms(t, 10 * MARGIN_MS);
    assert_int_equal(t->nhangs, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_part_has_its_time, setup, teardown),
        cmocka_unit_test_setup_teardown(a_cut_has_the_margin, setup, teardown),
        cmocka_unit_test_setup_teardown(the_margin_is_not_slept_away, setup, teardown),
        cmocka_unit_test_setup_teardown(a_worker_with_many_connections_has_longer, setup, teardown),
        cmocka_unit_test_setup_teardown(workers_that_have_ended_do_not_hang, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
