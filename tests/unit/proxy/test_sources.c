/* Connections per source address: against a naive twin, with collisions on purpose and without memory; and by
 * threads at once, where a limit is met exactly and nobody is lost (TSan). IPv6 by /64. The source is
 * compiled into this file, with an allocator that fails on command. */
#include "proxy/sources.h"
#include "support/failing.h"
#include "support/random.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define malloc        failing_malloc
#define calloc        failing_calloc
#define aligned_alloc failing_aligned_alloc
#include "proxy/sources.c"
#undef malloc
#undef calloc
#undef aligned_alloc

enum { ADDRESSES = 600, ROUNDS = 200000, PER_ADDRESS = 5 };

static struct sources *sources;

static int begin(void **state)
{
    (void)state;
    (void)failing_end(); /* of a test that broke off */
    sources = sources_create();
    return sources ? 0 : -1;
}

/* Every test gives back all that it was given. */
static int end(void **state)
{
    (void)state;
    bool is_empty = sources_count(sources) == 0;
    for (uint32_t i = 0; i < CHAINS; i++)
        is_empty = is_empty && sources->chains[i] == NULL;
    if (is_empty) sources_destroy(sources);
    return is_empty ? 0 : -1;
}

/* Distinct sources of both families, many of which differ in one bit. */
static struct addr address(unsigned i)
{
    if (i % 2) return (struct addr){.family = ADDR_V4, .v4 = 0x0a000000 + i};
    return (struct addr){.family = ADDR_V6, .v6 = {.hi = 0x20010db800000000u + i, .lo = i * 7}};
}

static void add(const struct addr *a, uint32_t max)
{
    assert_int_equal(sources_add(sources, a, max), ERR_OK);
}

static void is_refused(const struct addr *a, uint32_t max, enum err with)
{
    assert_int_equal(sources_add(sources, a, max), with);
}

/* --- one thread ------------------------------------------------------------------------------------ */

/* Every address has its number, and nobody else is there. */
static void check(const uint32_t *twin)
{
    uint32_t used = 0;
    for (unsigned i = 0; i < ADDRESSES; i++) {
        struct addr a = address(i);
        assert_int_equal(sources_connections(sources, &a), twin[i]);
        used += twin[i] != 0;
    }
    assert_int_equal(sources_count(sources), used);
}

static void agrees_with_a_naive_twin(void **state)
{
    (void)state;
    uint32_t twin[ADDRESSES] = {0};
    uint64_t seed = 0x9e3779b97f4a7c15u;
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned i = (unsigned)(random_next(&seed) % ADDRESSES);
        struct addr a = address(i);
        /* tides, so that addresses come and go for good */
        bool adds = random_next(&seed) % 100 < (round / 5000 % 2 ? 35 : 60);
        if (adds) {
            enum err want = twin[i] >= PER_ADDRESS ? ERR_LIMIT : ERR_OK;
            assert_int_equal(sources_add(sources, &a, PER_ADDRESS), want);
            twin[i] += want == ERR_OK;
        } else if (twin[i]) {
            sources_remove(sources, &a);
            twin[i]--;
        }
        if (round % 1000 == 0) check(twin);
    }
    check(twin);
    for (unsigned i = 0; i < ADDRESSES; i++) {
        struct addr a = address(i);
        for (; twin[i]; twin[i]--)
            sources_remove(sources, &a);
    }
    check(twin);
}

enum { CROWD = 5 };

/* Addresses that all belong into the chain of the first. */
static void find_crowd(struct addr *crowd)
{
    uint32_t chain = 0;
    unsigned n = 0;
    for (uint32_t v4 = 1; n < CROWD; v4++) {
        struct addr a = {.family = ADDR_V4, .v4 = v4};
        if (n == 0) chain = chain_of(sources, &a);
        if (chain_of(sources, &a) == chain) crowd[n++] = a;
    }
}

static void whoever_leaves_a_chain_the_others_stay(void **state)
{
    (void)state;
    struct addr crowd[CROWD];
    find_crowd(crowd);
    for (unsigned out = 0; out < CROWD; out++) {
        for (unsigned i = 0; i < CROWD; i++)
            add(&crowd[i], 1);
        sources_remove(sources, &crowd[out]);
        for (unsigned i = 0; i < CROWD; i++) {
            assert_int_equal(sources_connections(sources, &crowd[i]), i != out);
            if (i != out) is_refused(&crowd[i], 1, ERR_LIMIT);
        }
        assert_int_equal(sources_count(sources), CROWD - 1);
        for (unsigned i = 0; i < CROWD; i++)
            if (i != out) sources_remove(sources, &crowd[i]);
    }
}

static void more_addresses_than_chains(void **state)
{
    (void)state;
    enum { MANY = 3 * CHAINS };
    for (uint32_t i = 0; i < MANY; i++)
        add(&(struct addr){.family = ADDR_V4, .v4 = i}, 1);
    assert_int_equal(sources_count(sources), MANY);
    for (uint32_t i = 0; i < MANY; i++) {
        struct addr a = {.family = ADDR_V4, .v4 = i};
        is_refused(&a, 1, ERR_LIMIT);
        sources_remove(sources, &a);
    }
}

static void a_refused_connection_is_not_counted(void **state)
{
    (void)state;
    struct addr a = {.family = ADDR_V4, .v4 = 1};
    add(&a, 2);
    add(&a, 2);
    for (int i = 0; i < 10; i++)
        is_refused(&a, 2, ERR_LIMIT);
    sources_remove(sources, &a);
    add(&a, 2);
    add(&a, 0); /* 0 = no limit */
    assert_int_equal(sources_connections(sources, &a), 3);
    for (int i = 0; i < 3; i++) {
        is_refused(&a, 1, ERR_LIMIT); /* a lower one was set meanwhile */
        sources_remove(sources, &a);
    }
    add(&a, 1);
    sources_remove(sources, &a);
}

static void ipv6_is_counted_by_64(void **state)
{
    (void)state;
    struct addr one = {.family = ADDR_V6, .v6 = {.hi = 0x20010db800000001u, .lo = 1}};
    struct addr same_net = one, other_net = one;
    same_net.v6.lo = UINT64_MAX;
    other_net.v6.hi++;
    add(&one, 1);
    add(&other_net, 1);
    is_refused(&same_net, 1, ERR_LIMIT);
    assert_int_equal(sources_connections(sources, &same_net), 1);
    assert_int_equal(sources_count(sources), 2);
    sources_remove(sources, &same_net); /* whoever of them goes */
    assert_int_equal(sources_connections(sources, &one), 0);
    sources_remove(sources, &other_net);
}

static void the_families_are_apart(void **state)
{
    (void)state;
    struct addr v4 = {.family = ADDR_V4, .v4 = 5}, v6 = {.family = ADDR_V6, .v6 = {.hi = 5}};
    add(&v4, 1);
    add(&v6, 1);
    assert_int_equal(sources_count(sources), 2);
    sources_remove(sources, &v4);
    sources_remove(sources, &v6);
}

/* --- without memory -------------------------------------------------------------------------------- */

static void without_memory_only_new_addresses_are_refused(void **state)
{
    (void)state;
    struct addr known = {.family = ADDR_V4, .v4 = 1}, other = {.family = ADDR_V4, .v4 = 2};
    add(&known, 2);
    failing_begin(0, true);
    is_refused(&other, 2, ERR_NOMEM);
    is_refused(&other, 0, ERR_NOMEM);
    add(&known, 2);                   /* who is there needs none, */
    is_refused(&known, 2, ERR_LIMIT); /* and is limited as ever */
    sources_remove(sources, &known);
    sources_remove(sources, &known);
    is_refused(&known, 2, ERR_NOMEM); /* it is new again */
    assert_int_equal(sources_count(sources), 0);
    assert_true(failing_end());
    add(&other, 2);
    sources_remove(sources, &other);
}

static void nothing_is_left_of_one_that_cannot_be_made(void **state)
{
    (void)state;
    enum { NEEDED = 2 };
    for (unsigned n = 0; n < NEEDED; n++) {
        failing_begin(n, true);
        assert_null(sources_create());
    }
    failing_begin(NEEDED, true);
    struct sources *s = sources_create();
    assert_false(failing_end());
    assert_non_null(s);
    sources_destroy(s);
    sources_destroy(NULL);
    assert_int_equal(sources_count(NULL), 0);
}

/* --- threads --------------------------------------------------------------------------------------- */

enum {
    THREADS = 4,
    CONTENDED = 8, /* the first CROWD of them in one chain */
    RACE_ROUNDS = 20000,
    TIDES = 20,
    LIMIT = 10,
};

static struct addr contended[CONTENDED];
static _Atomic uint32_t inside[CONTENDED], most_inside;
static pthread_barrier_t barrier;

struct racer {
    pthread_t thread;
    uint64_t seed, nadmitted;
    uint32_t held[CONTENDED]; /* connections of each address */
};

static struct racer racers[THREADS];

static void run_race(void *(*fn)(void *))
{
    find_crowd(contended);
    for (unsigned i = CROWD; i < CONTENDED; i++)
        contended[i] = (struct addr){.family = ADDR_V6, .v6 = {.hi = i}};
    assert_int_equal(pthread_barrier_init(&barrier, NULL, THREADS), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        racers[i] = (struct racer){.seed = 77 + i};
        assert_int_equal(pthread_create(&racers[i].thread, NULL, fn, &racers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(racers[i].thread, NULL), 0);
    (void)pthread_barrier_destroy(&barrier);
}

/* Connections come and go at once; addresses vanish and come back all the time. */
static void *come_and_go(void *arg)
{
    struct racer *r = arg;
    for (int i = 0; i < RACE_ROUNDS; i++) {
        unsigned a = (unsigned)(random_next(&r->seed) % CONTENDED);
        if (sources_add(sources, &contended[a], THREADS / 2)) continue;
        uint32_t n = atomic_fetch_add(&inside[a], 1) + 1, most = atomic_load(&most_inside);
        while (n > most && !atomic_compare_exchange_weak(&most_inside, &most, n))
            continue;
        if (i % 16 == 0) (void)sched_yield();
        r->nadmitted++;
        atomic_fetch_sub(&inside[a], 1);
        sources_remove(sources, &contended[a]);
    }
    return NULL;
}

static void threads_never_have_too_many(void **state)
{
    (void)state;
    atomic_store(&most_inside, 0);
    run_race(come_and_go);
    assert_in_range(atomic_load(&most_inside), 1, THREADS / 2);
    for (unsigned i = 0; i < THREADS; i++)
        assert_true(racers[i].nadmitted > 0);
}

/* Takes as many as it gets; nobody gives any back. */
static void *take_all(void *arg)
{
    struct racer *r = arg;
    (void)pthread_barrier_wait(&barrier);
    for (unsigned i = 0; i < CONTENDED * LIMIT; i++)
        r->held[i % CONTENDED] += sources_add(sources, &contended[i % CONTENDED], LIMIT) == ERR_OK;
    return NULL;
}

/* By all threads together. */
static uint32_t held(unsigned a)
{
    uint32_t n = 0;
    for (unsigned i = 0; i < THREADS; i++)
        n += racers[i].held[a];
    return n;
}

static void give_back_all(void)
{
    for (unsigned a = 0; a < CONTENDED; a++)
        for (uint32_t n = held(a); n; n--)
            sources_remove(sources, &contended[a]);
}

static void threads_share_a_limit_exactly(void **state)
{
    (void)state;
    run_race(take_all);
    for (unsigned a = 0; a < CONTENDED; a++) {
        assert_int_equal(held(a), LIMIT);
        assert_int_equal(sources_connections(sources, &contended[a]), LIMIT);
    }
    give_back_all();
}

/* Whether that is what is counted; while the threads wait for each other. */
static bool agrees(void)
{
    bool is_right = true;
    uint32_t used = 0;
    for (unsigned a = 0; a < CONTENDED; a++) {
        is_right = is_right && sources_connections(sources, &contended[a]) == held(a);
        used += held(a) != 0;
    }
    return is_right && sources_count(sources) == used;
}

static void come_or_go(struct racer *r)
{
    uint64_t random = random_next(&r->seed);
    unsigned a = (unsigned)(random / 2 % CONTENDED);
    if (random % 2) {
        r->held[a] += sources_add(sources, &contended[a], LIMIT) == ERR_OK;
    } else if (r->held[a]) {
        sources_remove(sources, &contended[a]);
        r->held[a]--;
    }
}

static _Atomic unsigned ndisagreed;

static void *come_and_go_and_count(void *arg)
{
    struct racer *r = arg;
    for (int tide = 0; tide < TIDES; tide++) {
        for (int i = 0; i < RACE_ROUNDS / TIDES; i++)
            come_or_go(r);
        if (pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD) ndisagreed += !agrees();
        (void)pthread_barrier_wait(&barrier);
    }
    return NULL;
}

static void threads_agree_with_a_naive_twin(void **state)
{
    (void)state;
    run_race(come_and_go_and_count);
    assert_int_equal(ndisagreed, 0);
    assert_true(agrees());
    give_back_all();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(agrees_with_a_naive_twin, begin, end),
        cmocka_unit_test_setup_teardown(whoever_leaves_a_chain_the_others_stay, begin, end),
        cmocka_unit_test_setup_teardown(more_addresses_than_chains, begin, end),
        cmocka_unit_test_setup_teardown(a_refused_connection_is_not_counted, begin, end),
        cmocka_unit_test_setup_teardown(ipv6_is_counted_by_64, begin, end),
        cmocka_unit_test_setup_teardown(the_families_are_apart, begin, end),
        cmocka_unit_test_setup_teardown(without_memory_only_new_addresses_are_refused, begin, end),
        cmocka_unit_test_setup_teardown(nothing_is_left_of_one_that_cannot_be_made, begin, end),
        cmocka_unit_test_setup_teardown(threads_never_have_too_many, begin, end),
        cmocka_unit_test_setup_teardown(threads_share_a_limit_exactly, begin, end),
        cmocka_unit_test_setup_teardown(threads_agree_with_a_naive_twin, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
