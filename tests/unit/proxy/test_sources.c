/* Connections per source address against a naive twin; collisions on purpose; IPv6 by /64. */
#include "proxy/sources.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { ADDRESSES = 600, ROUNDS = 200000, PER_ADDRESS = 5 };

static uint64_t next_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

/* Distinct sources of both families, many of which differ in one bit. */
static struct addr address(unsigned i)
{
    if (i % 2) return (struct addr){.family = ADDR_V4, .v4 = 0x0a000000 + i};
    return (struct addr){.family = ADDR_V6, .v6 = {.hi = 0x20010db800000000u + i, .lo = i * 7}};
}

/* A keyed hash that tests can repeat. */
static void init(struct sources *s, uint64_t key)
{
    assert_int_equal(sources_init(s), ERR_OK);
    s->key[0] = key;
    s->key[1] = ~key;
}

/* Every address is found where a look-up would find it, with its number, and nothing else is there. */
static void check(struct sources *s, const uint32_t *twin)
{
    uint32_t used = 0, free_slots = 0;
    for (unsigned i = 0; i < ADDRESSES; i++) {
        struct addr a = address(i);
        if (twin[i] == 0) continue;
        used++;
        assert_int_equal(sources_add(s, &a, twin[i]), ERR_LIMIT);  /* so many are there, */
        assert_int_equal(sources_add(s, &a, twin[i] + 1), ERR_OK); /* no more */
        sources_remove(s, &a);
    }
    for (uint32_t i = 0; i < s->nslots; i++)
        free_slots += s->slots[i].connections == 0;
    assert_int_equal(s->used, used);
    assert_int_equal(s->nslots - free_slots, used);
}

static void agrees_with_a_naive_twin(void **state)
{
    (void)state;
    for (uint64_t key = 1; key <= 3; key++) {
        struct sources s;
        uint32_t twin[ADDRESSES] = {0};
        uint64_t seed = key * 0x9e3779b97f4a7c15u;
        init(&s, key);
        for (unsigned round = 0; round < ROUNDS; round++) {
            unsigned i = (unsigned)(next_random(&seed) % ADDRESSES);
            struct addr a = address(i);
            /* tides, so that the table fills and empties; a small one is where deletions collide most */
            bool adds = next_random(&seed) % 100 < (round / 5000 % 2 ? 35 : 60);
            if (adds) {
                enum err want = twin[i] >= PER_ADDRESS ? ERR_LIMIT : ERR_OK;
                assert_int_equal(sources_add(&s, &a, PER_ADDRESS), want);
                twin[i] += want == ERR_OK;
            } else if (twin[i]) {
                sources_remove(&s, &a);
                twin[i]--;
            }
            if (round % 1000 == 0) check(&s, twin);
        }
        check(&s, twin);
        for (unsigned i = 0; i < ADDRESSES; i++) {
            struct addr a = address(i);
            for (; twin[i]; twin[i]--)
                sources_remove(&s, &a);
        }
        check(&s, twin);
        assert_int_equal(s.used, 0);
        sources_deinit(&s);
    }
}

/* Where `a` goes in an empty table. */
static uint32_t home_of(struct sources *s, const struct addr *a)
{
    uint32_t i = 0;
    assert_int_equal(s->used, 0);
    assert_int_equal(sources_add(s, a, 0), ERR_OK);
    while (s->slots[i].connections == 0)
        i++;
    sources_remove(s, a);
    return i;
}

enum { CROWD = 12 };

/* Takes each of a crowd of neighbours out in turn; the others must still be found. */
static void check_crowd(struct sources *s, const struct addr *crowd)
{
    for (unsigned out = 0; out < CROWD; out++) {
        for (unsigned i = 0; i < CROWD; i++)
            assert_int_equal(sources_add(s, &crowd[i], 0), ERR_OK);
        sources_remove(s, &crowd[out]);
        for (unsigned i = 0; i < CROWD; i++) {
            if (i == out) continue;
            assert_int_equal(sources_add(s, &crowd[i], 1), ERR_LIMIT);
            sources_remove(s, &crowd[i]);
        }
        assert_int_equal(s->used, 0);
    }
}

static void deleting_inside_a_run_of_collisions_loses_nobody(void **state)
{
    (void)state;
    struct sources s;
    init(&s, 42);
    const uint32_t places[] = {0, 100, s.nslots - 3}; /* the last one wraps around */
    for (unsigned p = 0; p < sizeof places / sizeof places[0]; p++) {
        struct addr crowd[CROWD];
        unsigned n = 0;
        for (uint32_t v4 = 1; n < CROWD; v4++) { /* homes in four slots that follow each other */
            struct addr a = {.family = ADDR_V4, .v4 = v4};
            if (((home_of(&s, &a) - places[p]) & (s.nslots - 1)) < 4) crowd[n++] = a;
        }
        check_crowd(&s, crowd);
    }
    sources_deinit(&s);
}

static void grows_and_keeps_everybody(void **state)
{
    (void)state;
    struct sources s;
    enum { MANY = 5000 };
    init(&s, 7);
    uint32_t before = s.nslots;
    for (uint32_t i = 1; i <= MANY; i++) {
        struct addr a = {.family = ADDR_V4, .v4 = i};
        assert_int_equal(sources_add(&s, &a, 1), ERR_OK);
    }
    assert_true(s.nslots > before);
    assert_int_equal(s.nslots & (s.nslots - 1), 0);
    assert_true(s.used * 4 <= s.nslots * 3);
    for (uint32_t i = 1; i <= MANY; i++) {
        struct addr a = {.family = ADDR_V4, .v4 = i};
        assert_int_equal(sources_add(&s, &a, 1), ERR_LIMIT);
        sources_remove(&s, &a);
    }
    assert_int_equal(s.used, 0);
    sources_deinit(&s);
}

static void a_refused_connection_is_not_counted(void **state)
{
    (void)state;
    struct sources s;
    struct addr a = {.family = ADDR_V4, .v4 = 1};
    init(&s, 1);
    assert_int_equal(sources_add(&s, &a, 2), ERR_OK);
    assert_int_equal(sources_add(&s, &a, 2), ERR_OK);
    for (int i = 0; i < 10; i++)
        assert_int_equal(sources_add(&s, &a, 2), ERR_LIMIT);
    sources_remove(&s, &a);
    assert_int_equal(sources_add(&s, &a, 2), ERR_OK);
    assert_int_equal(sources_add(&s, &a, 0), ERR_OK); /* 0 = no limit */
    sources_deinit(&s);
}

static void ipv6_is_counted_by_64(void **state)
{
    (void)state;
    struct sources s;
    struct addr one = {.family = ADDR_V6, .v6 = {.hi = 0x20010db800000001u, .lo = 1}};
    struct addr same_net = one, other_net = one;
    same_net.v6.lo = UINT64_MAX;
    other_net.v6.hi++;
    init(&s, 1);
    assert_int_equal(sources_add(&s, &one, 1), ERR_OK);
    assert_int_equal(sources_add(&s, &same_net, 1), ERR_LIMIT);
    assert_int_equal(sources_add(&s, &other_net, 1), ERR_OK);
    sources_remove(&s, &same_net); /* whoever of them goes */
    assert_int_equal(s.used, 1);
    sources_deinit(&s);
}

static void the_families_are_apart(void **state)
{
    (void)state;
    struct sources s;
    struct addr v4 = {.family = ADDR_V4, .v4 = 5}, v6 = {.family = ADDR_V6, .v6 = {.hi = 5}};
    init(&s, 1);
    assert_int_equal(sources_add(&s, &v4, 1), ERR_OK);
    assert_int_equal(sources_add(&s, &v6, 1), ERR_OK);
    assert_int_equal(s.used, 2);
    sources_deinit(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_a_naive_twin),
        cmocka_unit_test(deleting_inside_a_run_of_collisions_loses_nobody),
        cmocka_unit_test(grows_and_keeps_everybody),
        cmocka_unit_test(a_refused_connection_is_not_counted),
        cmocka_unit_test(ipv6_is_counted_by_64),
        cmocka_unit_test(the_families_are_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
