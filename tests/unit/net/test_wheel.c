/* The timer wheel: never early, at most one tick late, against a naive twin; and what callbacks may do to it.
 */
#include "net/wheel.h"
#include "support/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum {
    TURN_MS = WHEEL_TICK_MS * WHEEL_SLOTS, /* the span that the wheel sees at once */
    START_MS = 1234567,
    TWINS = 500,
};

/* An entry and what a test knows about it. */
struct twin {
    struct wheel_entry entry;
    uint64_t deadline_ms; /* by the naive twin; WHEEL_NEVER = not armed */
    uint64_t set_ms;      /* when it was set: a deadline in the past is not late before that */
    unsigned fired;
    struct world *world;
};

struct world {
    struct wheel wheel;
    uint64_t now_ms; /* of this call of wheel_advance() */
    uint64_t seed;
    struct twin twins[TWINS];
};

static void on_due(struct wheel_entry *e)
{
    struct twin *t = (struct twin *)e;
    assert_false(list_is_linked(&e->link));          /* unlinked before the call */
    assert_true(t->deadline_ms <= t->world->now_ms); /* never early */
    t->deadline_ms = WHEEL_NEVER;
    t->fired++;
}

static void world_init(struct world *w, uint64_t seed)
{
    memset(w, 0, sizeof *w);
    w->seed = seed;
    w->now_ms = START_MS;
    wheel_init(&w->wheel, w->now_ms);
    for (unsigned i = 0; i < TWINS; i++) {
        wheel_entry_init(&w->twins[i].entry, on_due);
        w->twins[i].world = w;
        w->twins[i].deadline_ms = WHEEL_NEVER;
    }
}

static void set(struct world *w, unsigned i, uint64_t deadline_ms)
{
    w->twins[i].deadline_ms = deadline_ms;
    w->twins[i].set_ms = w->now_ms;
    wheel_set(&w->wheel, &w->twins[i].entry, deadline_ms);
}

static void advance(struct world *w, uint64_t by_ms)
{
    w->now_ms += by_ms;
    wheel_advance(&w->wheel, w->now_ms);
}

/* Due since more than a tick: it should have been called. */
static void check_none_is_late(const struct world *w)
{
    for (unsigned i = 0; i < TWINS; i++) {
        const struct twin *t = &w->twins[i];
        uint64_t since = t->deadline_ms > t->set_ms ? t->deadline_ms : t->set_ms;
        assert_true(t->deadline_ms == WHEEL_NEVER || since + WHEEL_TICK_MS > w->now_ms);
    }
}

static uint64_t random_deadline(struct world *w)
{
    uint64_t r = random_next(&w->seed);
    switch (r % 8) {
    case 0: return WHEEL_NEVER;
    case 1: return w->now_ms;
    case 2: return w->now_ms - r % 1000; /* past */
    case 3: return w->now_ms + r % WHEEL_TICK_MS;
    case 4: return w->now_ms + r % (4 * TURN_MS);                                     /* beyond the span */
    case 5: return w->now_ms + TURN_MS - 2 * WHEEL_TICK_MS + r % (4 * WHEEL_TICK_MS); /* its edge */
    default: return w->now_ms + r % 5000;
    }
}

static uint64_t random_step(struct world *w)
{
    uint64_t r = random_next(&w->seed);
    switch (r % 16) {
    case 0: return r % (3 * TURN_MS); /* the process was stopped */
    case 1: return TURN_MS + r % 3 - 1;
    case 2: return 0;
    default: return r % 250;
    }
}

static void agrees_with_a_naive_twin(void **state)
{
    (void)state;
    static struct world w;
    unsigned fired = 0;
    world_init(&w, 0x9e3779b97f4a7c15u);
    for (unsigned round = 0; round < 4000; round++) {
        for (unsigned moves = 0; moves < 20; moves++) {
            unsigned i = (unsigned)(random_next(&w.seed) % TWINS);
            if (random_next(&w.seed) % 10 == 0) {
                wheel_remove(&w.wheel, &w.twins[i].entry);
                w.twins[i].deadline_ms = WHEEL_NEVER;
            } else {
                set(&w, i, random_deadline(&w));
            }
        }
        advance(&w, random_step(&w));
        check_none_is_late(&w);
    }
    for (unsigned i = 0; i < TWINS; i++)
        fired += w.twins[i].fired;
    assert_true(fired > 10000);

    advance(&w, (uint64_t)10 * TURN_MS); /* what is armed fires, what is disarmed is forgotten */
    check_none_is_late(&w);
    advance(&w, (uint64_t)10 * TURN_MS);
    assert_int_equal(w.wheel.count, 0);
}

static void fires_in_the_first_tick_that_is_not_early(void **state)
{
    (void)state;
    static struct world w;
    for (uint64_t after = 0; after < TURN_MS - 2 * WHEEL_TICK_MS; after += 37) {
        world_init(&w, 1);
        set(&w, 0, w.now_ms + after);
        uint64_t due_ms = ((START_MS + after) / WHEEL_TICK_MS + 1) * WHEEL_TICK_MS;
        while (w.now_ms + WHEEL_TICK_MS < due_ms)
            advance(&w, WHEEL_TICK_MS);
        advance(&w, due_ms - 1 - w.now_ms);
        assert_int_equal(w.twins[0].fired, 0);
        advance(&w, 1);
        assert_int_equal(w.twins[0].fired, 1);
    }
}

static void moving_away_is_only_a_store(void **state)
{
    (void)state;
    static struct world w;
    world_init(&w, 1);
    set(&w, 0, w.now_ms + 500);
    set(&w, 1, w.now_ms + 500); /* its neighbour in the slot */
    const struct wheel_entry before = w.twins[0].entry;
    for (unsigned i = 1; i < 100; i++) {
        set(&w, 0, w.now_ms + 500 + i * 1000);
        assert_ptr_equal(w.twins[0].entry.link.prev, before.link.prev);
        assert_ptr_equal(w.twins[0].entry.link.next, before.link.next);
    }
    advance(&w, 700);
    assert_int_equal(w.twins[0].fired, 0);
    assert_int_equal(w.twins[1].fired, 1);
    advance(&w, 99 * 1000);
    assert_int_equal(w.twins[0].fired, 1);
}

static void a_nearer_deadline_wins(void **state)
{
    (void)state;
    static struct world w;
    world_init(&w, 1);
    set(&w, 0, w.now_ms + 3 * TURN_MS);
    set(&w, 0, w.now_ms + 300);
    advance(&w, 400);
    assert_int_equal(w.twins[0].fired, 1);
    assert_int_equal(w.wheel.count, 0);
}

static void never_disarms(void **state)
{
    (void)state;
    static struct world w;
    world_init(&w, 1);
    set(&w, 0, w.now_ms + 300);
    set(&w, 0, WHEEL_NEVER);
    assert_int_equal(w.wheel.count, 1); /* still linked */
    advance(&w, 1000);
    assert_int_equal(w.twins[0].fired, 0);
    assert_int_equal(w.wheel.count, 0);

    set(&w, 0, WHEEL_NEVER);
    assert_int_equal(w.wheel.count, 0); /* not linked for it */
}

static void disarmed_and_armed_again_in_the_same_slot(void **state)
{
    (void)state;
    static struct world w;
    world_init(&w, 1);
    set(&w, 0, w.now_ms + 300);
    set(&w, 0, WHEEL_NEVER);
    set(&w, 0, w.now_ms + 200);
    advance(&w, 300);
    assert_int_equal(w.twins[0].fired, 1);
}

static void removing_is_harmless_when_not_linked(void **state)
{
    (void)state;
    static struct world w;
    world_init(&w, 1);
    wheel_remove(&w.wheel, &w.twins[0].entry);
    set(&w, 0, w.now_ms + 100);
    wheel_remove(&w.wheel, &w.twins[0].entry);
    wheel_remove(&w.wheel, &w.twins[0].entry);
    assert_int_equal(w.wheel.count, 0);
    w.twins[0].deadline_ms = WHEEL_NEVER;
    advance(&w, 1000);
    assert_int_equal(w.twins[0].fired, 0);
}

/* A wheel that had nothing to do is not advanced at all; its idea of time is old when it is used again. */
static void a_wheel_that_slept_catches_up(void **state)
{
    (void)state;
    static struct world w;
    const uint64_t slept[] = {TURN_MS - 1, TURN_MS, TURN_MS + 1, 3600 * 1000,
                              90 * 24 * 3600 * (uint64_t)1000};
    for (unsigned i = 0; i < sizeof slept / sizeof slept[0]; i++) {
        for (uint64_t after = 50; after < 2 * TURN_MS; after = after * 3) {
            world_init(&w, 1);
            w.now_ms += slept[i]; /* without wheel_advance() */
            set(&w, 0, w.now_ms + after);
            uint64_t due_ms = w.twins[0].deadline_ms;
            while (w.now_ms + WHEEL_TICK_MS <= due_ms)
                advance(&w, WHEEL_TICK_MS); /* on_due() asserts that it is not early */
            advance(&w, 2 * WHEEL_TICK_MS);
            assert_int_equal(w.twins[0].fired, 1);
        }
    }
}

/* --- callbacks ------------------------------------------------------------------------------------- */

static void rearm_periodically(struct wheel_entry *e)
{
    struct twin *t = (struct twin *)e;
    t->fired++;
    wheel_set(&t->world->wheel, e, t->world->now_ms + 1000);
}

static void a_callback_may_set_its_own_entry(void **state)
{
    (void)state;
    static struct world w;
    world_init(&w, 1);
    w.twins[0].entry.on_due = rearm_periodically;
    wheel_set(&w.wheel, &w.twins[0].entry, w.now_ms + 1000);
    for (unsigned i = 0; i < 600; i++) /* past the span of the wheel */
        advance(&w, WHEEL_TICK_MS);
    assert_in_range(w.twins[0].fired, 52, 60); /* 1,000 ms and up to one tick each */
}

static void rearm_in_the_past(struct wheel_entry *e)
{
    struct twin *t = (struct twin *)e;
    t->fired++;
    wheel_set(&t->world->wheel, e, t->world->now_ms - 5000);
}

/* A deadline that has passed already comes in the next tick: the wheel never spins on one entry. */
static void a_callback_that_sets_a_past_deadline_waits_a_tick(void **state)
{
    (void)state;
    static struct world w;
    world_init(&w, 1);
    w.twins[0].entry.on_due = rearm_in_the_past;
    wheel_set(&w.wheel, &w.twins[0].entry, w.now_ms);
    for (unsigned i = 1; i <= 5; i++) {
        advance(&w, WHEEL_TICK_MS);
        assert_int_equal(w.twins[0].fired, i);
    }
}

/* Takes its right neighbours out and pulls a far one near: all in the list that is being walked. */
static void meddle(struct wheel_entry *e)
{
    struct twin *t = (struct twin *)e;
    struct world *w = t->world;
    t->fired++;
    wheel_remove(&w->wheel, &w->twins[1].entry);
    memset(&w->twins[1].entry, 0xa5, sizeof w->twins[1].entry); /* its owner has freed it */
    wheel_remove(&w->wheel, &w->twins[2].entry);
    wheel_set(&w->wheel, &w->twins[3].entry, w->now_ms + 100);
    w->twins[3].deadline_ms = w->now_ms + 100;
}

static void a_callback_may_remove_and_free_others(void **state)
{
    (void)state;
    static struct world w;
    world_init(&w, 1);
    for (unsigned i = 0; i < 5; i++)
        set(&w, i, w.now_ms + 500); /* all in one slot, in this order */
    set(&w, 5, w.now_ms + TURN_MS - WHEEL_TICK_MS);
    w.twins[0].entry.on_due = meddle;
    advance(&w, 600);
    assert_int_equal(w.twins[0].fired, 1);
    assert_int_equal(w.twins[1].fired, 0);
    assert_int_equal(w.twins[2].fired, 0);
    assert_int_equal(w.twins[3].fired, 0); /* moved away in time */
    assert_int_equal(w.twins[4].fired, 1);
    advance(&w, 200);
    assert_int_equal(w.twins[3].fired, 1);
    assert_int_equal(w.wheel.count, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_a_naive_twin),
        cmocka_unit_test(fires_in_the_first_tick_that_is_not_early),
        cmocka_unit_test(moving_away_is_only_a_store),
        cmocka_unit_test(a_nearer_deadline_wins),
        cmocka_unit_test(never_disarms),
        cmocka_unit_test(disarmed_and_armed_again_in_the_same_slot),
        cmocka_unit_test(removing_is_harmless_when_not_linked),
        cmocka_unit_test(a_wheel_that_slept_catches_up),
        cmocka_unit_test(a_callback_may_set_its_own_entry),
        cmocka_unit_test(a_callback_that_sets_a_past_deadline_waits_a_tick),
        cmocka_unit_test(a_callback_may_remove_and_free_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
