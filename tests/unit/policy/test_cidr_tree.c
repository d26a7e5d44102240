/* cidr_tree against a naive twin: random adds and removes with full rechecks, bulk loads, hostile and (with
 * GW_CIDR_DATA) real prefixes, errors, memory that comes back. */
#include "helper_tree.h"
#include "helper_twin.h"
#include "support/skip.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static size_t bytes_of(const struct cidr_tree *t)
{
    size_t reader, writer;
    cidr_tree_bytes(t, &reader, &writer);
    return reader + writer;
}

/* The tree has exactly `live`, asked at every prefix of `pool`. */
static void check(const struct cidr_tree *t, const struct prefixes *live, const struct prefixes *pool,
                  struct prefixes_random *r)
{
    struct twin twin;
    twin_init(&twin, live->v, live->n);
    twin_compare(&twin, pool, r, tree_has, t);
    twin_free(&twin);
}

static void swap_remove(struct prefixes *p, uint32_t i)
{
    p->v[i] = p->v[--p->n];
}

/* Adds and removes at random, drifting towards `nlive` at a time, with `nchecks` full rechecks. Then removes
 * the rest. */
static void churn(const struct prefixes *pool, uint32_t nlive, uint32_t nsteps, uint32_t nchecks,
                  uint64_t seed)
{
    struct prefixes_random r = {seed};
    struct open_tree f = tree_open();
    struct prefixes live = {0};
    const size_t empty_bytes = bytes_of(f.tree);
    for (uint32_t i = 0; i < nsteps; i++) {
        if (prefixes_below(&r, 2 * nlive) >= live.n) {
            const struct cidr c = pool->v[prefixes_below(&r, pool->n)];
            assert_int_equal(cidr_tree_add(f.tree, &c), ERR_OK);
            prefixes_push(&live, c);
        } else {
            const uint32_t k = prefixes_below(&r, live.n);
            assert_int_equal(cidr_tree_remove(f.tree, &live.v[k]), ERR_OK);
            swap_remove(&live, k);
        }
        if (i % (nsteps / nchecks) == 0) check(f.tree, &live, pool, &r);
        if (i % 64 == 0) (void)epochs_collect(f.epochs);
    }
    while (live.n) {
        assert_int_equal(cidr_tree_remove(f.tree, &live.v[live.n - 1]), ERR_OK);
        live.n--;
        if (live.n % (nlive / 4 + 1) == 0) check(f.tree, &live, pool, &r);
    }
    /* Everything came back but a little slack in the writer's tables. */
    assert_in_range(bytes_of(f.tree), empty_bytes, empty_bytes + empty_bytes / 8);
    prefixes_free(&live);
    tree_close(&f);
}

static void an_empty_tree_has_nothing(void **state)
{
    (void)state;
    struct open_tree f = tree_open();
    struct prefixes pool = {0}, none = {0};
    struct prefixes_random r = {1};
    prefixes_hostile(&pool);
    check(f.tree, &none, &pool, &r);
    assert_false(cidr_tree_has(f.tree, &(struct addr){.family = ADDR_NONE}));
    prefixes_free(&pool);
    tree_close(&f);
}

static void every_length_comes_and_goes(void **state)
{
    (void)state;
    struct open_tree f = tree_open();
    struct prefixes_random r = {2};
    for (unsigned len = 0; len <= 128; len++) {
        struct prefixes one = {0}, none = {0};
        prefixes_v6(&one, UINT64_C(0xfedcba9876543210), UINT64_C(0x0123456789abcdef), len);
        if (len <= 32) prefixes_v4(&one, UINT32_C(0xfedcba98), len);
        for (uint32_t i = 0; i < one.n; i++)
            assert_int_equal(cidr_tree_add(f.tree, &one.v[i]), ERR_OK);
        check(f.tree, &one, &one, &r);
        for (uint32_t i = 0; i < one.n; i++)
            assert_int_equal(cidr_tree_remove(f.tree, &one.v[i]), ERR_OK);
        check(f.tree, &none, &one, &r);
        prefixes_free(&one);
    }
    tree_close(&f);
}

static void a_prefix_added_twice_is_removed_twice(void **state)
{
    (void)state;
    static const char *const texts[] = {"10.0.0.0/8",    "10.1.2.3",      "192.0.2.0/24",  "2001:db8::/32",
                                        "2001:db8::/48", "2001:db8::/56", "2001:db8::/64", "2001:db8::1"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct open_tree f = tree_open();
        struct prefixes p = {0};
        prefixes_text(&p, texts[i]);
        for (unsigned k = 0; k < 2; k++)
            assert_int_equal(cidr_tree_add(f.tree, p.v), ERR_OK);
        assert_int_equal(cidr_tree_remove(f.tree, p.v), ERR_OK);
        assert_true(cidr_tree_has(f.tree, &p.v->net));
        assert_int_equal(cidr_tree_remove(f.tree, p.v), ERR_OK);
        assert_false(cidr_tree_has(f.tree, &p.v->net));
        assert_int_equal(cidr_tree_remove(f.tree, p.v), ERR_NOT_FOUND);
        prefixes_free(&p);
        tree_close(&f);
    }
}

/* Partly there is not there: the removal must not leave a hole or a count below zero. */
static void removing_what_is_not_all_there_changes_nothing(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"10.0.0.0/9", "10.0.0.0/8"},       {"10.128.0.0/9", "10.0.0.0/8"},
        {"10.0.0.0/25", "10.0.0.0/24"},     {"10.0.0.128/25", "10.0.0.0/24"},
        {"10.0.0.1", "10.0.0.0"},           {"10.0.0.1", "10.0.0.2"},
        {"10.0.3.0/24", "10.0.0.0/15"},     {"255.255.255.254", "255.255.255.255"},
        {"2001:db8::/33", "2001:db8::/32"}, {"2001:db8:8000::/33", "2001:db8::/32"},
        {"2001:db8::1", "2001:db8::"},      {"2001:db8::1", "2001:db8::2"},
        {"2001:db8::1", "2001:db8::/64"},   {"ffff::1", "ffff:ffff::/32"},
        {"2001:db8::/64", "2001:db8::"},    {"2001:db8::/48", "2001:db8::/56"},
        {"2001:db8::/56", "2001:db8::/48"}, {"2001:db8::/63", "2001:db8::/64"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        struct open_tree f = tree_open();
        struct prefixes there = {0}, both = {0};
        struct prefixes_random r = {3};
        prefixes_text(&there, pairs[i][0]);
        prefixes_text(&both, pairs[i][0]);
        prefixes_text(&both, pairs[i][1]);
        assert_int_equal(cidr_tree_add(f.tree, &both.v[0]), ERR_OK);
        assert_int_equal(cidr_tree_remove(f.tree, &both.v[1]), ERR_NOT_FOUND);
        check(f.tree, &there, &both, &r);
        assert_int_equal(cidr_tree_remove(f.tree, &both.v[0]), ERR_OK);
        prefixes_free(&there);
        prefixes_free(&both);
        tree_close(&f);
    }
}

/* The same address bits at several lengths, in every combination, whichever comes or goes. */
static void lengths_do_not_disturb_each_other(void **state)
{
    (void)state;
    static const unsigned lengths[] = {47, 48, 56, 64, 127, 128};
    enum { N = sizeof lengths / sizeof *lengths };
    static const uint64_t nets[][2] = {{UINT64_C(0x20010db800010000), 0}, {0, 0}, {0, 64}, {UINT64_MAX, 0}};
    struct prefixes_random r = {19};
    for (size_t k = 0; k < sizeof nets / sizeof *nets; k++) {
        struct open_tree f = tree_open();
        struct prefixes all = {0};
        for (unsigned i = 0; i < N; i++)
            prefixes_v6(&all, nets[k][0], nets[k][1], lengths[i]);
        for (unsigned in = 0, i = 0; i < 1u << N; i++) {
            const unsigned next = i ^ i >> 1; /* Gray code: one comes or goes at a time */
            for (unsigned bit = 0; bit < N; bit++) {
                if (!((in ^ next) >> bit & 1)) continue;
                assert_int_equal(next >> bit & 1 ? cidr_tree_add(f.tree, &all.v[bit])
                                                 : cidr_tree_remove(f.tree, &all.v[bit]),
                                 ERR_OK);
            }
            in = next;
            struct prefixes live = {0};
            for (unsigned bit = 0; bit < N; bit++)
                if (in >> bit & 1) prefixes_push(&live, all.v[bit]);
            check(f.tree, &live, &all, &r);
            prefixes_free(&live);
        }
        prefixes_free(&all);
        tree_close(&f);
    }
}

static void a_wide_v6_prefix_has_no_v4_address(void **state)
{
    (void)state;
    struct open_tree f = tree_open();
    struct prefixes p = {0};
    prefixes_v6(&p, 0, 0, 0);
    assert_int_equal(cidr_tree_add(f.tree, p.v), ERR_OK);
    assert_true(
        cidr_tree_has(f.tree, &(struct addr){.family = ADDR_V6, .v6 = {0, UINT64_C(0xffff0a000001)}}));
    assert_false(cidr_tree_has(f.tree, &(struct addr){.family = ADDR_V4, .v4 = 0x0a000001}));
    prefixes_free(&p);
    tree_close(&f);
}

/* One address more at each step, so that each form of chunk and the steps between them are seen: 32
 * boundaries are one line, 1056 the most that two levels hold. */
static void a_slot_grows_through_all_forms_and_back(void **state)
{
    (void)state;
    struct open_tree f = tree_open();
    struct prefixes pool = {0};
    struct prefixes_random r = {4};
    enum { N = 560 };
    const size_t empty_bytes = bytes_of(f.tree);
    for (uint32_t i = 0; i < N; i++)
        prefixes_v4(&pool, UINT32_C(0xcb007fff) - 2 * i, 32);
    struct prefixes live = pool;
    for (live.n = 1; live.n <= N; live.n++) {
        assert_int_equal(cidr_tree_add(f.tree, &pool.v[live.n - 1]), ERR_OK);
        check(f.tree, &live, &pool, &r);
    }
    for (live.n = N; live.n > 0;) {
        assert_int_equal(cidr_tree_remove(f.tree, &pool.v[--live.n]), ERR_OK);
        check(f.tree, &live, &pool, &r);
    }
    assert_int_equal(bytes_of(f.tree), empty_bytes);
    prefixes_free(&pool);
    tree_close(&f);
}

static void churn_of_partner_lists(void **state)
{
    (void)state;
    struct prefixes_random r = {5};
    struct prefixes pool = {0};
    prefixes_partner(&pool, &r, ADDR_V4, 3000);
    prefixes_partner(&pool, &r, ADDR_V6, 3000);
    prefixes_routed(&pool, &r, ADDR_V4, 300);
    prefixes_routed(&pool, &r, ADDR_V6, 300);
    churn(&pool, 3000, 40000, 25, 6);
    prefixes_free(&pool);
}

static void churn_of_cloud_lists(void **state)
{
    (void)state;
    struct prefixes_random r = {7};
    struct prefixes pool = {0};
    prefixes_cloud(&pool, &r, ADDR_V4, 2000);
    prefixes_cloud(&pool, &r, ADDR_V6, 2000);
    churn(&pool, 2000, 30000, 25, 8);
    prefixes_free(&pool);
}

static void churn_of_hostile_lists(void **state)
{
    (void)state;
    struct prefixes pool = {0};
    prefixes_hostile(&pool);
    churn(&pool, 2500, 20000, 25, 9);
    prefixes_free(&pool);
}

/* Few places, deep counts: every change meets others at the same boundary. */
static void churn_within_one_small_network(void **state)
{
    (void)state;
    struct prefixes pool = {0};
    for (unsigned len = 28; len <= 32; len++)
        for (uint32_t i = 0; i < 1u << (len - 28); i++) {
            prefixes_v4(&pool, UINT32_C(0xfffffff0) + (i << (32 - len)), len);
            prefixes_v6(&pool, UINT64_MAX, UINT64_C(0xfffffffffffffff0) + (i << (32 - len)), len + 96);
            prefixes_v6(&pool, (uint64_t)i << (32 - len), 0, len + 32);
        }
    churn(&pool, 100, 50000, 400, 10);
    prefixes_free(&pool);
}

/* Loads everything at once, compares, changes it, and takes it all out again one by one. */
static void load_and_unload(const struct prefixes *p, uint64_t seed)
{
    struct open_tree f = tree_open();
    struct prefixes_random r = {seed};
    struct prefixes live = {0}, none = {0};
    assert_int_equal(cidr_tree_build(f.tree, prefixes_next_of, &(struct prefixes_feed){p->v, p->n}), ERR_OK);
    assert_int_equal(cidr_tree_build(f.tree, prefixes_next_of, &(struct prefixes_feed){p->v, 1}), ERR_EXISTS);
    check(f.tree, p, p, &r);
    for (uint32_t i = 0; i < p->n; i++)
        prefixes_push(&live, p->v[i]);
    for (uint32_t i = live.n; i > 1; i--) { /* shuffled */
        const uint32_t k = prefixes_below(&r, i);
        const struct cidr c = live.v[k];
        live.v[k] = live.v[i - 1];
        live.v[i - 1] = c;
    }
    while (live.n) {
        if (live.n == p->n / 2) check(f.tree, &live, p, &r);
        assert_int_equal(cidr_tree_remove(f.tree, &live.v[--live.n]), ERR_OK);
        if (live.n % 256 == 0) (void)epochs_collect(f.epochs);
    }
    check(f.tree, &none, p, &r);
    assert_int_equal(cidr_tree_build(f.tree, prefixes_next_of, &(struct prefixes_feed){p->v, p->n}), ERR_OK);
    check(f.tree, p, p, &r);
    prefixes_free(&live);
    tree_close(&f);
}

static void bulk_load_of_generated_lists(void **state)
{
    (void)state;
    struct prefixes_random r = {11};
    struct prefixes p = {0};
    prefixes_partner(&p, &r, ADDR_V4, 20000);
    prefixes_partner(&p, &r, ADDR_V6, 20000);
    prefixes_routed(&p, &r, ADDR_V4, 5000);
    prefixes_routed(&p, &r, ADDR_V6, 5000);
    prefixes_cloud(&p, &r, ADDR_V4, 5000);
    prefixes_cloud(&p, &r, ADDR_V6, 5000);
    load_and_unload(&p, 12);
    prefixes_free(&p);
}

static void bulk_load_of_hostile_lists(void **state)
{
    (void)state;
    struct prefixes p = {0};
    prefixes_hostile(&p);
    prefixes_v4(&p, 0, 0);
    prefixes_v6(&p, 0, 0, 0);
    load_and_unload(&p, 13);
    prefixes_free(&p);
}

static void bulk_load_of_nothing(void **state)
{
    (void)state;
    struct open_tree f = tree_open();
    assert_int_equal(cidr_tree_build(f.tree, prefixes_next_of, &(struct prefixes_feed){NULL, 0}), ERR_OK);
    tree_close(&f);
}

/* A full /16: every second host is 65,536 boundaries, the most a slot can have. */
static void all_hosts_of_a_v4_slot(void **state)
{
    (void)state;
    struct open_tree f = tree_open();
    struct prefixes even = {0}, odd = {0}, both = {0};
    struct prefixes_random r = {14};
    for (uint32_t i = 0; i < 1 << 16; i += 2)
        prefixes_v4(&even, UINT32_C(0x0a0a0000) + i, 32);
    for (uint32_t i = 1; i < 1 << 16; i += 250)
        prefixes_v4(&odd, UINT32_C(0x0a0a0000) + i, 32);
    assert_int_equal(cidr_tree_build(f.tree, prefixes_next_of, &(struct prefixes_feed){even.v, even.n}),
                     ERR_OK);
    check(f.tree, &even, &even, &r);
    for (uint32_t i = 0; i < odd.n; i++)
        assert_int_equal(cidr_tree_add(f.tree, &odd.v[i]), ERR_OK);
    for (uint32_t i = 0; i < even.n; i++)
        prefixes_push(&both, even.v[i]);
    for (uint32_t i = 0; i < odd.n; i++)
        prefixes_push(&both, odd.v[i]);
    check(f.tree, &both, &both, &r);
    for (uint32_t i = 0; i < odd.n; i++)
        assert_int_equal(cidr_tree_remove(f.tree, &odd.v[i]), ERR_OK);
    check(f.tree, &even, &both, &r);
    prefixes_free(&both);
    prefixes_free(&odd);
    prefixes_free(&even);
    tree_close(&f);
}

/* All 65,536 hosts are one range: nothing but a root entry. */
static void hosts_that_make_a_whole_slot(void **state)
{
    (void)state;
    struct open_tree f = tree_open();
    struct prefixes all = {0};
    struct prefixes_random r = {15};
    const size_t empty_bytes = bytes_of(f.tree);
    for (uint32_t i = 0; i < 1 << 16; i++) {
        prefixes_v4(&all, UINT32_C(0x0a0a0000) + i, 32);
        assert_int_equal(cidr_tree_add(f.tree, &all.v[i]), ERR_OK);
        if (i % 64 == 0) (void)epochs_collect(f.epochs);
    }
    check(f.tree, &all, &all, &r);
    assert_in_range(bytes_of(f.tree), empty_bytes, empty_bytes + 200);
    prefixes_free(&all);
    tree_close(&f);
}

static void real_prefixes(void **state)
{
    (void)state;
    struct prefixes p = {0};
    const char *dir = getenv("GW_CIDR_DATA");
    if (!dir) SKIP("GW_CIDR_DATA names no folder with real prefixes");
    prefixes_real(&p, dir, "cloud-ranges.txt.gz");
    load_and_unload(&p, 15);
    churn(&p, 20000, 100000, 8, 16);
    prefixes_free(&p);
    prefixes_real(&p, dir, "full-table.txt.gz");
    load_and_unload(&p, 17);
    prefixes_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_tree_has_nothing),
        cmocka_unit_test(every_length_comes_and_goes),
        cmocka_unit_test(a_prefix_added_twice_is_removed_twice),
        cmocka_unit_test(removing_what_is_not_all_there_changes_nothing),
        cmocka_unit_test(lengths_do_not_disturb_each_other),
        cmocka_unit_test(a_wide_v6_prefix_has_no_v4_address),
        cmocka_unit_test(a_slot_grows_through_all_forms_and_back),
        cmocka_unit_test(churn_of_partner_lists),
        cmocka_unit_test(churn_of_cloud_lists),
        cmocka_unit_test(churn_of_hostile_lists),
        cmocka_unit_test(churn_within_one_small_network),
        cmocka_unit_test(bulk_load_of_generated_lists),
        cmocka_unit_test(bulk_load_of_hostile_lists),
        cmocka_unit_test(bulk_load_of_nothing),
        cmocka_unit_test(all_hosts_of_a_v4_slot),
        cmocka_unit_test(hosts_that_make_a_whole_slot),
        cmocka_unit_test(real_prefixes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
