/* The limits of a partner: the pace against a naive twin, places that are counted exactly, memory that runs
 * out, and threads that race for the last place (TSan). The source is compiled into this file, with an
 * allocator that fails on command. */
#include "proxy/partner_limits.h"
#include "support/failing.h"
#include "support/random.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define calloc failing_calloc
#include "proxy/partner_limits.c"
#undef calloc

enum { US_PER_S = 1000000 };

static const uint64_t start_us = 12345678901; /* the machine has been up for a while */

static struct partner_rules pace(uint32_t rate, uint32_t burst)
{
    return partner_rules_of(&(struct config_limits){.rate_per_partner = rate, .burst_per_partner = burst});
}

static struct partner_admission ask(struct partner_limits *l, const struct partner_rules *r, uint32_t partner,
                                    uint64_t now_us)
{
    return partner_limits_admit(l, r, partner, PARTNER_PLACE_REQUEST, now_us);
}

static struct partner_usage usage_of(const struct partner_limits *l, uint32_t partner)
{
    struct partner_usage u;
    const struct partner_rules none = {0};
    (void)partner_limits_foresee(l, &none, partner, PARTNER_PLACE_REQUEST, 0, &u);
    return u;
}

static struct partner_limits *limits;

static int begin(void **state)
{
    (void)state;
    limits = partner_limits_create();
    return limits ? 0 : -1;
}

static int end(void **state)
{
    (void)state;
    partner_limits_destroy(limits);
    return 0;
}

/* --- the pace -------------------------------------------------------------------------------------- */

static void rules_follow_from_the_configuration(void **state)
{
    (void)state;
    struct partner_rules r = pace(0, 100);
    assert_true(r.interval_ns == 0 && !partner_rules_concern(&r, PARTNER_PLACE_REQUEST));
    assert_true(partner_rules_concern(&r, PARTNER_PLACE_TUNNEL)); /* counted all the same */
    r = pace(200, 0);
    assert_true(r.interval_ns == 5000000 && r.window_ns == 1000000000); /* one second's worth */
    assert_true(partner_rules_concern(&r, PARTNER_PLACE_REQUEST));
    r = pace(200, 1);
    assert_true(r.window_ns == r.interval_ns);
    r = pace(1000000, 1000000);
    assert_true(r.interval_ns == 1000 && r.window_ns == 1000000000);
    r = partner_rules_of(&(struct config_limits){.concurrency_per_partner = 3, .tunnels_per_partner = 4});
    assert_true(r.requests_max == 3 && r.tunnels_max == 4);
    assert_true(partner_rules_concern(&r, PARTNER_PLACE_REQUEST));
}

/* A bucket that leaks: every request pours one interval in, and the window is its size. */
struct twin {
    uint64_t level_ns, since_us;
};

static uint64_t twin_wait(struct twin *t, const struct partner_rules *r, uint64_t now_us)
{
    uint64_t leaked = (now_us - t->since_us) * 1000;
    t->level_ns = t->level_ns > leaked ? t->level_ns - leaked : 0;
    t->since_us = now_us;
    if (t->level_ns + r->interval_ns > r->window_ns) return t->level_ns + r->interval_ns - r->window_ns;
    t->level_ns += r->interval_ns;
    return 0;
}

/* Slower than any configuration: so that Retry-After is more than one. */
static struct partner_rules random_pace(uint64_t *seed)
{
    struct partner_rules r = pace(1 + (uint32_t)(random_next(seed) % 1000), 0);
    if (random_next(seed) % 2) r.interval_ns *= 1 + random_next(seed) % 5000;
    r.window_ns = r.interval_ns * (1 + random_next(seed) % 20);
    return r;
}

static void the_pace_is_that_of_a_leaking_bucket(void **state)
{
    (void)state;
    uint64_t seed = 20260117;
    uint64_t nrefused = 0, npassed = 0;
    for (uint32_t partner = 0; partner < 200; partner++) {
        struct partner_rules r = random_pace(&seed);
        struct twin twin = {.since_us = start_us};
        uint64_t now_us = start_us;
        for (int i = 0; i < 1000; i++) {
            uint64_t wait = twin_wait(&twin, &r, now_us);
            struct partner_usage unused;
            enum deny foreseen =
                partner_limits_foresee(limits, &r, partner, PARTNER_PLACE_REQUEST, now_us, &unused);
            struct partner_admission a = ask(limits, &r, partner, now_us);
            assert_int_equal(a.deny, wait ? DENY_RATE : DENY_NONE);
            assert_int_equal(foreseen, a.deny);
            assert_true(a.retry_after_s == (wait + 999999999) / 1000000000);
            assert_int_equal(a.place, PARTNER_PLACE_NONE);
            if (wait)
                nrefused++;
            else
                npassed++;
            now_us += random_next(&seed) % (3 * r.interval_ns / 1000 + 1) / (1 + random_next(&seed) % 4);
        }
    }
    assert_true(nrefused > 20000 && npassed > 20000);
}

static void retry_after_is_when_one_passes_and_not_before(void **state)
{
    (void)state;
    uint64_t seed = 7;
    for (uint32_t partner = 0; partner < 500; partner++) {
        struct partner_rules r = random_pace(&seed);
        uint64_t now_us = start_us;
        struct partner_admission a;
        while ((a = ask(limits, &r, partner, now_us)).deny == DENY_NONE)
            continue;
        assert_true(a.retry_after_s >= 1);
        if (a.retry_after_s > 1)
            assert_int_equal(ask(limits, &r, partner, now_us + (a.retry_after_s - 1) * US_PER_S).deny,
                             DENY_RATE);
        assert_int_equal(ask(limits, &r, partner, now_us + a.retry_after_s * US_PER_S).deny, DENY_NONE);
    }
}

static void a_burst_then_the_pace(void **state)
{
    (void)state;
    struct partner_rules r = pace(10, 5);
    for (int i = 0; i < 5; i++)
        assert_int_equal(ask(limits, &r, 1, start_us).deny, DENY_NONE);
    assert_int_equal(ask(limits, &r, 1, start_us + 99999).deny, DENY_RATE);
    assert_int_equal(ask(limits, &r, 1, start_us + 100000).deny, DENY_NONE);
    assert_int_equal(ask(limits, &r, 1, start_us + 100000).deny, DENY_RATE);
    for (int i = 0; i < 5; i++) /* after a pause, however long, a burst and no more */
        assert_int_equal(ask(limits, &r, 1, start_us + 3600ull * US_PER_S).deny, DENY_NONE);
    assert_int_equal(ask(limits, &r, 1, start_us + 3600ull * US_PER_S).deny, DENY_RATE);
}

static void the_clock_of_another_worker_may_lag(void **state)
{
    (void)state;
    struct partner_rules r = pace(10, 5);
    for (int i = 0; i < 5; i++)
        assert_int_equal(ask(limits, &r, 1, start_us).deny, DENY_NONE);
    assert_int_equal(ask(limits, &r, 1, start_us - 900000).deny, DENY_RATE);
    assert_int_equal(ask(limits, &r, 1, start_us).deny, DENY_RATE); /* nothing was cut off */
    assert_int_equal(ask(limits, &r, 1, start_us + 100000).deny, DENY_NONE);
}

static void a_faster_pace_is_not_held_up_by_the_old_one(void **state)
{
    (void)state;
    struct partner_rules slow = pace(1, 1000), fast = pace(1000, 100);
    while (ask(limits, &slow, 1, start_us).deny == DENY_NONE)
        continue; /* a thousand seconds ahead */
    struct partner_admission a = ask(limits, &fast, 1, start_us);
    assert_int_equal(a.deny, DENY_RATE);
    assert_int_equal(a.retry_after_s, 1);
    for (int i = 0; i < 100; i++)
        assert_int_equal(ask(limits, &fast, 1, start_us + US_PER_S).deny, DENY_NONE);
    assert_int_equal(ask(limits, &fast, 1, start_us + US_PER_S).deny, DENY_RATE);
}

static void a_slower_pace_counts_from_what_was_used(void **state)
{
    (void)state;
    struct partner_rules fast = pace(1000, 1000), slow = pace(1, 1);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(ask(limits, &fast, 1, start_us).deny, DENY_NONE);
    assert_int_equal(ask(limits, &slow, 1, start_us).retry_after_s, 1);
    assert_int_equal(ask(limits, &slow, 1, start_us + US_PER_S).deny, DENY_NONE);
}

/* --- places ---------------------------------------------------------------------------------------- */

static void places_come_back(void **state)
{
    (void)state;
    const struct partner_rules r = {.requests_max = 3};
    for (int i = 0; i < 3; i++)
        assert_int_equal(ask(limits, &r, 9, start_us).place, PARTNER_PLACE_REQUEST);
    struct partner_admission a = ask(limits, &r, 9, start_us);
    assert_int_equal(a.deny, DENY_CONCURRENCY);
    assert_int_equal(a.retry_after_s, 1);
    assert_int_equal(a.place, PARTNER_PLACE_NONE);
    assert_int_equal(usage_of(limits, 9).requests, 3); /* a refused one does not count */
    partner_limits_release(limits, 9, a.place);        /* nothing */
    partner_limits_release(limits, 9, PARTNER_PLACE_REQUEST);
    assert_int_equal(ask(limits, &r, 9, start_us).deny, DENY_NONE);
    assert_int_equal(ask(limits, &r, 9, start_us).deny, DENY_CONCURRENCY);
    assert_int_equal(ask(limits, &r, 10, start_us).deny, DENY_NONE); /* another partner */
}

static void the_two_limits_do_not_cost_each_other(void **state)
{
    (void)state;
    const struct partner_rules r = {.interval_ns = 1000000000, .window_ns = 2000000000, .requests_max = 1};
    assert_int_equal(ask(limits, &r, 1, start_us).place, PARTNER_PLACE_REQUEST);
    for (int i = 0; i < 10; i++) /* uses up nothing of the pace */
        assert_int_equal(ask(limits, &r, 1, start_us).deny, DENY_CONCURRENCY);
    partner_limits_release(limits, 1, PARTNER_PLACE_REQUEST);
    assert_int_equal(ask(limits, &r, 1, start_us).place, PARTNER_PLACE_REQUEST);
    partner_limits_release(limits, 1, PARTNER_PLACE_REQUEST);
    for (int i = 0; i < 10; i++) /* and keeps no place */
        assert_int_equal(ask(limits, &r, 1, start_us).deny, DENY_RATE);
    assert_int_equal(usage_of(limits, 1).requests, 0);
}

static void tunnels_are_counted_before_there_is_a_limit(void **state)
{
    (void)state;
    const struct partner_rules none = {0}, two = {.tunnels_max = 2};
    for (int i = 0; i < 3; i++)
        assert_int_equal(partner_limits_admit(limits, &none, 1, PARTNER_PLACE_TUNNEL, start_us).place,
                         PARTNER_PLACE_TUNNEL);
    assert_int_equal(usage_of(limits, 1).tunnels, 3);
    assert_int_equal(partner_limits_admit(limits, &two, 1, PARTNER_PLACE_TUNNEL, start_us).deny,
                     DENY_TUNNELS);
    assert_int_equal(ask(limits, &two, 1, start_us).deny, DENY_NONE); /* a request is none */
    for (int i = 0; i < 2; i++)
        partner_limits_release(limits, 1, PARTNER_PLACE_TUNNEL);
    assert_int_equal(partner_limits_admit(limits, &two, 1, PARTNER_PLACE_TUNNEL, start_us).deny, DENY_NONE);
    assert_int_equal(usage_of(limits, 1).tunnels, 2);
}

static void a_tunnel_uses_the_pace_of_requests(void **state)
{
    (void)state;
    struct partner_rules r = pace(10, 2);
    assert_int_equal(partner_limits_admit(limits, &r, 1, PARTNER_PLACE_TUNNEL, start_us).deny, DENY_NONE);
    assert_int_equal(ask(limits, &r, 1, start_us).deny, DENY_NONE);
    assert_int_equal(partner_limits_admit(limits, &r, 1, PARTNER_PLACE_TUNNEL, start_us).deny, DENY_RATE);
    assert_int_equal(usage_of(limits, 1).tunnels, 1);
}

/* The rules may change while somebody has a place: switched off, lowered, raised. */
static void places_outlive_the_rules(void **state)
{
    (void)state;
    const struct partner_rules five = {.requests_max = 5}, two = {.requests_max = 2}, off = {0};
    enum partner_place places[6];
    for (int i = 0; i < 5; i++)
        places[i] = ask(limits, &five, 1, start_us).place;
    places[5] = ask(limits, &off, 1, start_us).place;
    assert_int_equal(places[5], PARTNER_PLACE_NONE);
    assert_int_equal(ask(limits, &two, 1, start_us).deny, DENY_CONCURRENCY);
    for (int i = 0; i < 6; i++)
        partner_limits_release(limits, 1, places[i]);
    assert_int_equal(usage_of(limits, 1).requests, 0);
}

static void an_index_goes_to_another_partner(void **state)
{
    (void)state;
    struct partner_rules r = pace(100, 10);
    r.requests_max = 4;
    for (int i = 0; i < 4; i++)
        assert_int_equal(ask(limits, &r, 1, start_us).deny, DENY_NONE);
    /* The new one has its index; the requests of the old one end one by one. */
    for (int i = 0; i < 4; i++) {
        assert_int_equal(ask(limits, &r, 1, start_us + US_PER_S).deny, DENY_CONCURRENCY);
        partner_limits_release(limits, 1, PARTNER_PLACE_REQUEST);
        assert_int_equal(ask(limits, &r, 1, start_us + US_PER_S).deny, DENY_NONE);
    }
    for (int i = 0; i < 4; i++)
        partner_limits_release(limits, 1, PARTNER_PLACE_REQUEST);
    assert_int_equal(usage_of(limits, 1).requests, 0);
    for (int i = 0; i < 6; i++) { /* the rest of its own burst */
        assert_int_equal(ask(limits, &r, 1, start_us + US_PER_S).deny, DENY_NONE);
        partner_limits_release(limits, 1, PARTNER_PLACE_REQUEST);
    }
    assert_int_equal(ask(limits, &r, 1, start_us + US_PER_S).deny, DENY_RATE);
}

static void every_index_is_its_own(void **state)
{
    (void)state;
    static const uint32_t indices[] = {
        0, 1, PAGE_SLOTS - 1, PAGE_SLOTS, 3 * PAGE_SLOTS + 7, PAGES_MAX * (uint32_t)PAGE_SLOTS - 1};
    const struct partner_rules r = {.requests_max = 1};
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < sizeof indices / sizeof *indices; i++)
            assert_int_equal(ask(limits, &r, indices[i], start_us).deny,
                             round ? DENY_CONCURRENCY : DENY_NONE);
    }
}

static void a_place_moves_with_its_token(void **state)
{
    (void)state;
    const struct partner_rules one = {.tunnels_max = 1};
    enum partner_place place = partner_limits_admit(limits, &one, 1, PARTNER_PLACE_TUNNEL, start_us).place;
    assert_int_equal(partner_limits_admit(limits, &one, 9999, PARTNER_PLACE_TUNNEL, start_us).deny,
                     DENY_NONE);
    place = partner_limits_move(limits, 1, 9999, place); /* over its limit: it is open already */
    assert_int_equal(place, PARTNER_PLACE_TUNNEL);
    assert_int_equal(usage_of(limits, 1).tunnels, 0);
    assert_int_equal(usage_of(limits, 9999).tunnels, 2);
    assert_int_equal(partner_limits_move(limits, 1, 2, PARTNER_PLACE_NONE), PARTNER_PLACE_NONE);
    assert_int_equal(usage_of(limits, 2).tunnels, 0);
    failing_begin(0, true);
    place = partner_limits_move(limits, 9999, 5 * PAGE_SLOTS, place);
    assert_true(failing_end());
    assert_int_equal(place, PARTNER_PLACE_NONE);
    assert_int_equal(usage_of(limits, 9999).tunnels, 1);
}

static void without_memory_a_request_is_let_in_uncounted(void **state)
{
    (void)state;
    struct partner_rules r = pace(1, 1);
    r.requests_max = r.tunnels_max = 1;
    failing_begin(0, true);
    assert_null(partner_limits_create());
    for (int i = 0; i < 5; i++) {
        struct partner_admission a = ask(limits, &r, 1, start_us);
        assert_true(a.deny == DENY_NONE && a.is_uncounted && a.place == PARTNER_PLACE_NONE);
        a = partner_limits_admit(limits, &r, 1, PARTNER_PLACE_TUNNEL, start_us);
        assert_true(a.deny == DENY_NONE && a.is_uncounted && a.place == PARTNER_PLACE_NONE);
    }
    assert_true(failing_end());
    assert_int_equal(ask(limits, &r, 1, start_us).place, PARTNER_PLACE_REQUEST);
    failing_begin(0, true); /* what is there needs none */
    assert_int_equal(ask(limits, &r, 1, start_us).deny, DENY_CONCURRENCY);
    assert_false(failing_end());
}

/* --- threads --------------------------------------------------------------------------------------- */

enum { THREADS = 4, PARTNERS = 3, ROUNDS = 20000, PLACES = 2, TURNS = 5000 };

static const uint32_t contended[PARTNERS] = {0, 1, 2 * PAGE_SLOTS};

struct race {
    pthread_t thread;
    uint64_t seed, nadmitted;
};

static _Atomic uint32_t inside[PARTNERS], most_inside;

static void *race_for_places(void *arg)
{
    struct race *race = arg;
    const struct partner_rules r = {.requests_max = PLACES};
    for (int i = 0; i < ROUNDS; i++) {
        unsigned p = (unsigned)(random_next(&race->seed) % PARTNERS);
        struct partner_admission a = ask(limits, &r, contended[p], start_us);
        if (a.deny) continue;
        uint32_t n = atomic_fetch_add(&inside[p], 1) + 1, most = atomic_load(&most_inside);
        while (n > most && !atomic_compare_exchange_weak(&most_inside, &most, n))
            continue;
        if (i % 16 == 0) (void)sched_yield();
        race->nadmitted++;
        atomic_fetch_sub(&inside[p], 1);
        partner_limits_release(limits, contended[p], a.place);
    }
    return NULL;
}

static void *race_for_turns(void *arg)
{
    struct race *race = arg;
    struct partner_rules r = pace(TURNS, TURNS);
    for (int i = 0; i < TURNS; i++)
        race->nadmitted += ask(limits, &r, contended[PARTNERS - 1], start_us).deny == DENY_NONE;
    return NULL;
}

static uint64_t run_race(void *(*fn)(void *))
{
    struct race races[THREADS];
    uint64_t n = 0;
    for (unsigned i = 0; i < THREADS; i++) {
        races[i] = (struct race){.seed = 77 + i};
        assert_int_equal(pthread_create(&races[i].thread, NULL, fn, &races[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(races[i].thread, NULL), 0);
        n += races[i].nadmitted;
    }
    return n;
}

static void threads_never_have_too_many_places(void **state)
{
    (void)state;
    assert_true(run_race(race_for_places) > ROUNDS / 2);
    assert_in_range(atomic_load(&most_inside), 1, PLACES);
    for (unsigned p = 0; p < PARTNERS; p++)
        assert_int_equal(usage_of(limits, contended[p]).requests, 0);
}

static void threads_share_a_burst_exactly(void **state)
{
    (void)state;
    assert_int_equal(run_race(race_for_turns), TURNS);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(rules_follow_from_the_configuration),
        TEST(the_pace_is_that_of_a_leaking_bucket),
        TEST(retry_after_is_when_one_passes_and_not_before),
        TEST(a_burst_then_the_pace),
        TEST(the_clock_of_another_worker_may_lag),
        TEST(a_faster_pace_is_not_held_up_by_the_old_one),
        TEST(a_slower_pace_counts_from_what_was_used),
        TEST(places_come_back),
        TEST(the_two_limits_do_not_cost_each_other),
        TEST(tunnels_are_counted_before_there_is_a_limit),
        TEST(a_tunnel_uses_the_pace_of_requests),
        TEST(places_outlive_the_rules),
        TEST(an_index_goes_to_another_partner),
        TEST(every_index_is_its_own),
        TEST(a_place_moves_with_its_token),
        TEST(without_memory_a_request_is_let_in_uncounted),
        TEST(threads_never_have_too_many_places),
        TEST(threads_share_a_burst_exactly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
