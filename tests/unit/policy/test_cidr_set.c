/* cidr_set against a naive twin: generated, hostile and (with GW_CIDR_DATA) real lists; sizes around the
 * change of form; the walk over merged prefixes; memory. */
#include "helper_twin.h"
#include "policy/cidr_set.h"
#include "policy/cidr_stree.h"
#include "support/skip.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static bool set_has(const void *s, const struct addr *a)
{
    return cidr_set_has(s, a);
}

/* Small sets are built here; in use until the next one. */
static _Alignas(CIDR_SET_ALIGNMENT) unsigned char room[CIDR_SET_SMALL_BYTES_MAX];

static struct cidr_set *build(const struct prefixes *p)
{
    struct cidr_set *s = NULL;
    assert_int_equal(cidr_set_build(p->v, p->n, room, &s), ERR_OK);
    assert_true(cidr_set_is_large(s) == ((void *)s != room));
    assert_non_null(s);
    return s;
}

static void collect(const struct cidr_set *s, struct prefixes *to)
{
    struct cidr_walk w = cidr_walk_of(s);
    for (struct cidr c; cidr_walk_next(&w, &c);)
        prefixes_push(to, c);
    struct cidr none;
    assert_false(cidr_walk_next(&w, &none));
    assert_int_equal(cidr_set_count(s), to->n);
}

/* The walk is in order, disjoint, without siblings left, and makes the same set again. */
static void check_walk(const struct cidr_set *s, const struct prefixes *p, const struct twin *twin,
                       struct prefixes_random *r)
{
    struct prefixes walked = {0};
    collect(s, &walked);
    for (uint32_t i = 0; i + 1 < walked.n; i++) {
        const struct cidr *a = &walked.v[i], *b = &walked.v[i + 1];
        assert_true(cidr_compare(a, b) < 0);
        assert_false(cidr_contains(a, &b->net));
        if (a->len == 0 || a->len != b->len) continue;
        const struct cidr parent = {.net = a->net, .len = (uint8_t)(a->len - 1)};
        assert_false(cidr_contains(&parent, &a->net) && cidr_contains(&parent, &b->net));
    }
    struct twin again;
    twin_init(&again, walked.v, walked.n);
    for (uint32_t i = 0; i < walked.n; i++) {
        const struct addr last = cidr_last(&walked.v[i]);
        assert_true(twin_has(twin, &walked.v[i].net) && twin_has(twin, &last));
    }
    struct cidr_set *rebuilt = build(&walked);
    twin_compare(&again, p, r, set_has, s);
    twin_compare(twin, p, r, set_has, rebuilt);
    cidr_set_destroy(rebuilt);
    twin_free(&again);
    prefixes_free(&walked);
}

static void check(const struct prefixes *p, uint64_t seed)
{
    struct prefixes_random r = {seed};
    struct twin twin;
    twin_init(&twin, p->v, p->n);
    struct cidr_set *s = build(p);
    twin_compare(&twin, p, &r, set_has, s);
    check_walk(s, p, &twin, &r);
    cidr_set_destroy(s);
    twin_free(&twin);
}

static void an_empty_set_has_nothing(void **state)
{
    (void)state;
    const struct addr probes[] = {
        {.family = ADDR_V4},
        {.family = ADDR_V4, .v4 = UINT32_MAX},
        {.family = ADDR_V6},
        {.family = ADDR_V6, .v6 = {UINT64_MAX, UINT64_MAX}},
    };
    struct cidr_set *s;
    assert_int_equal(cidr_set_build(NULL, 0, room, &s), ERR_OK);
    for (size_t i = 0; i < sizeof probes / sizeof *probes; i++)
        assert_false(cidr_set_has(s, &probes[i]));
    struct prefixes walked = {0};
    collect(s, &walked);
    assert_int_equal(walked.n, 0);
    cidr_set_destroy(s);
}

static void no_address_is_in_no_set(void **state)
{
    (void)state;
    struct prefixes p = {0};
    prefixes_text(&p, "0.0.0.0/1");
    prefixes_text(&p, "::/1");
    struct cidr_set *s = build(&p);
    assert_false(cidr_set_has(s, &(struct addr){.family = ADDR_NONE}));
    cidr_set_destroy(s);
    prefixes_free(&p);
}

static void a_wide_v6_prefix_has_no_v4_address(void **state)
{
    (void)state;
    struct prefixes p = {0};
    prefixes_v6(&p, 0, 0, 0);
    struct cidr_set *s = build(&p);
    assert_true(cidr_set_has(s, &(struct addr){.family = ADDR_V6, .v6 = {0, UINT64_C(0xffff0a000001)}}));
    assert_false(cidr_set_has(s, &(struct addr){.family = ADDR_V4, .v4 = 0x0a000001}));
    cidr_set_destroy(s);
    prefixes_free(&p);
}

static void two_v4_prefixes_take_20_bytes(void **state)
{
    (void)state;
    struct prefixes p = {0};
    prefixes_text(&p, "192.0.2.0/24");
    prefixes_text(&p, "198.51.100.7");
    struct cidr_set *s = build(&p);
    assert_int_equal(cidr_set_bytes(s), 20);
    cidr_set_destroy(s);
    prefixes_free(&p);
}

static void halves_merge_into_everything(void **state)
{
    (void)state;
    struct prefixes p = {0}, walked = {0};
    prefixes_text(&p, "128.0.0.0/1");
    prefixes_text(&p, "0.0.0.0/1");
    prefixes_text(&p, "8000::/1");
    prefixes_text(&p, "::/1");
    struct cidr_set *s = build(&p);
    collect(s, &walked);
    assert_int_equal(walked.n, 2);
    assert_int_equal(walked.v[0].len, 0);
    assert_int_equal(walked.v[1].len, 0);
    check(&p, 1);
    cidr_set_destroy(s);
    prefixes_free(&walked);
    prefixes_free(&p);
}

/* The same with so many holes elsewhere that the set is a tree: ranges that begin or end with the space. */
static void ranges_reach_both_ends_of_the_address_space(void **state)
{
    (void)state;
    struct prefixes p = {0};
    for (uint32_t i = 0; i < 12; i++) {
        prefixes_v4(&p, UINT32_C(0x0a000000) + i * 0x200, 24);
        prefixes_v6(&p, UINT64_C(0x20010db800000000) + i * 2, 0, 64);
    }
    prefixes_text(&p, "0.0.0.0");
    prefixes_text(&p, "255.255.255.255");
    prefixes_text(&p, "::");
    prefixes_text(&p, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
    check(&p, 2);
    prefixes_text(&p, "255.255.255.0/24");
    prefixes_text(&p, "ffff:ffff:ffff:ffff::/64");
    check(&p, 3);
    prefixes_text(&p, "128.0.0.0/1");
    prefixes_text(&p, "8000::/1");
    check(&p, 4);
    prefixes_free(&p);
}

/* 8 scanned entries, 9 in a tree, then each size at which a line or a level of the tree is added. */
static void every_size_around_the_borders_of_the_layout(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {1,   7,   8,   9,   15,  16,   17,   36,  37,
                                     135, 136, 137, 324, 325, 2311, 2312, 2313};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (unsigned wide = 0; wide < 2; wide++) {
            struct prefixes p = {0};
            for (uint32_t k = 0; k < sizes[i]; k++) {
                prefixes_v4(&p, UINT32_C(0x0b000000) + k * 64, wide ? 32 : 27);
                prefixes_v6(&p, UINT64_C(0x2a00000000000000) + k * 4, k, wide ? 128 : 63);
            }
            check(&p, sizes[i]);
            prefixes_free(&p);
        }
}

static void every_length_in_both_forms(void **state)
{
    (void)state;
    for (unsigned len = 5; len <= 128; len++)
        for (uint32_t n = 4; n <= 12; n += 8) {
            struct prefixes p = {0};
            for (uint32_t i = 0; i < n; i++) {
                const uint64_t spread = (uint64_t)i << 60; /* 16 places that no length of 5 or more joins */
                if (len <= 32) prefixes_v4(&p, (uint32_t)(spread >> 32) | 0x05555555, len);
                prefixes_v6(&p, spread | UINT64_C(0x0555555555555555), UINT64_C(0xaaaaaaaaaaaaaaaa), len);
            }
            check(&p, len);
            prefixes_free(&p);
        }
}

static void many_small_lists(void **state)
{
    (void)state;
    struct prefixes_random r = {42};
    for (uint32_t i = 0; i < 4000; i++) {
        struct prefixes p = {0};
        const uint32_t n4 = prefixes_below(&r, 12), n6 = prefixes_below(&r, 12);
        (i % 2 ? prefixes_partner : prefixes_cloud)(&p, &r, ADDR_V4, n4);
        (i % 3 ? prefixes_partner : prefixes_cloud)(&p, &r, ADDR_V6, n6);
        check(&p, i);
        prefixes_free(&p);
    }
}

static void large_lists(void **state)
{
    (void)state;
    struct prefixes_random r = {7};
    for (unsigned i = 0; i < 4; i++) {
        struct prefixes p = {0};
        (i % 2 ? prefixes_partner : prefixes_cloud)(&p, &r, ADDR_V4, 10000);
        (i / 2 ? prefixes_partner : prefixes_cloud)(&p, &r, ADDR_V6, 10000);
        check(&p, i);
        prefixes_free(&p);
    }
}

static void hostile_lists(void **state)
{
    (void)state;
    struct prefixes p = {0};
    prefixes_hostile(&p);
    check(&p, 5);
    for (uint32_t i = 0; i < p.n; i++) /* the same without the short ones, which hide the rest */
        if (p.v[i].len < (p.v[i].net.family == ADDR_V4 ? 24 : 64)) p.v[i--] = p.v[--p.n];
    check(&p, 6);
    prefixes_free(&p);
}

static void a_tree_costs_little_more_than_its_boundaries(void **state)
{
    (void)state;
    struct prefixes p = {0};
    for (uint32_t i = 0; i < 10000; i++)
        prefixes_v4(&p, i * 1024, 24);
    struct cidr_set *s = build(&p);
    assert_in_range(cidr_set_bytes(s), 2 * 4 * p.n, 2 * 4 * p.n * 11 / 10);
    cidr_set_destroy(s);
    prefixes_free(&p);
}

static void real_prefixes(void **state)
{
    (void)state;
    struct prefixes p = {0};
    const char *dir = getenv("GW_CIDR_DATA");
    if (!dir) SKIP("GW_CIDR_DATA names no folder with real prefixes");
    prefixes_real(&p, dir, "cloud-ranges.txt.gz");
    check(&p, 8);
    prefixes_free(&p);
    prefixes_real(&p, dir, "full-table.txt.gz");
    check(&p, 9);
    prefixes_free(&p);
}

static void the_line_search_agrees_with_its_portable_form(void **state)
{
    (void)state;
    struct prefixes_random r = {11};
    _Alignas(LINE_BYTES) uint16_t line16[LINE_KEYS_16];
    _Alignas(LINE_BYTES) int32_t line32[LINE_KEYS_32];
    for (uint32_t round = 0; round < 20000; round++) {
        const unsigned shift = prefixes_below(&r, 16);
        uint16_t a = 0;
        uint32_t b = 0;
        for (uint32_t i = 0; i < LINE_KEYS_16; i++) {
            const uint32_t left = LINE_KEYS_16 - i; /* sums to at most the largest key */
            line16[i] = a = (uint16_t)(a + prefixes_below(&r, (65535u - a) / left + 1) / (1 + shift));
        }
        for (uint32_t i = 0; i < LINE_KEYS_32; i++) {
            b += prefixes_below(&r, (UINT32_MAX - b) / (LINE_KEYS_32 - i)) >> shift;
            line32[i] = line_key32(b);
        }
        for (uint32_t i = 0; i < LINE_KEYS_16; i++)
            for (int by = -1; by <= 1; by++) {
                const uint16_t x = (uint16_t)(line16[i] + by);
                assert_int_equal(line_rank16(line16, x), line_rank16_portable(line16, x));
                const int32_t y = line_key32(line_value32(line32[i % LINE_KEYS_32]) + (uint32_t)by);
                assert_int_equal(line_rank32(line32, y), line_rank32_portable(line32, y));
            }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_set_has_nothing),
        cmocka_unit_test(no_address_is_in_no_set),
        cmocka_unit_test(a_wide_v6_prefix_has_no_v4_address),
        cmocka_unit_test(two_v4_prefixes_take_20_bytes),
        cmocka_unit_test(halves_merge_into_everything),
        cmocka_unit_test(ranges_reach_both_ends_of_the_address_space),
        cmocka_unit_test(every_size_around_the_borders_of_the_layout),
        cmocka_unit_test(every_length_in_both_forms),
        cmocka_unit_test(many_small_lists),
        cmocka_unit_test(large_lists),
        cmocka_unit_test(hostile_lists),
        cmocka_unit_test(a_tree_costs_little_more_than_its_boundaries),
        cmocka_unit_test(real_prefixes),
        cmocka_unit_test(the_line_search_agrees_with_its_portable_form),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
