/* Short and long lists that come, change, are shared and go, in random order, against a naive model: every
 * answer after every change, and memory and trees empty at the end. And what a change costs: the sources are
 * compiled into this file with the trees' changes counted. */
#include "helper_partner.h"
#include "policy/cidr_tree.h"
#include "policy/key_table.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned tree_changes;

static enum err counting_add(struct cidr_tree *t, const struct cidr *c)
{
    tree_changes++;
    return cidr_tree_add(t, c);
}

static enum err counting_remove(struct cidr_tree *t, const struct cidr *c)
{
    tree_changes++;
    return cidr_tree_remove(t, c);
}

#define cidr_tree_add    counting_add
#define cidr_tree_remove counting_remove
#include "policy/policy.c"
#include "policy/policy_apply.c"
#include "policy/policy_leave.c"

/* Prefixes are networks 10.<i>.0.0/16 and 2001:db8:<i>::/48, for both families by the same bit of a list; a
 * list may be everything from nothing to all of them, and neighbours merge. */
enum { NETWORKS = 256, WORDS = NETWORKS / 64, PARTNERS = 9, ROUNDS = 4000, SEEDS = 4 };

struct list {
    uint64_t bits[WORDS];
};

struct model {
    bool is_there;
    struct list lists[ENV_COUNT];
};

static bool list_has(const struct list *l, unsigned i)
{
    return l->bits[i / 64] >> i % 64 & 1;
}

static void list_set(struct list *l, unsigned i)
{
    l->bits[i / 64] |= UINT64_C(1) << i % 64;
}

/* Few prefixes, many apart, many that merge, or one of a handful that several partners have. */
static struct list draw_list(uint64_t *random)
{
    struct list l = {{0}};
    unsigned shape = (unsigned)(next_random(random) % 4), n = (unsigned)(next_random(random) % 60);
    uint64_t shared = 1 + next_random(random) % SEEDS;
    if (shape == 0) n %= 5;
    for (unsigned i = 0; i < n; i++)
        list_set(&l, (unsigned)(next_random(shape == 3 ? &shared : random) % NETWORKS));
    if (shape == 2)
        for (unsigned i = 0; i + 1 < NETWORKS; i++)
            if (list_has(&l, i) && next_random(random) % 2) list_set(&l, i + 1);
    return l;
}

static struct partner make_record(unsigned partner, const struct model *m)
{
    char id[16], text[64];
    (void)snprintf(id, sizeof id, "p%u", partner);
    struct partner r = partner_make(id);
    for (enum environment env = ENV_PRODUCTION; env < ENV_COUNT; env++)
        for (unsigned i = 0; i < NETWORKS; i++) {
            if (!list_has(&m->lists[env], i)) continue;
            (void)snprintf(text, sizeof text, "10.%u.0.0/16 2001:db8:%x::/48", i, i);
            partner_allow(&r, env, text);
        }
    return r;
}

static struct addr address(unsigned i, bool is_v4)
{
    if (is_v4) return (struct addr){.family = ADDR_V4, .v4 = 0x0a000007 | i << 16};
    return (struct addr){.family = ADDR_V6, .v6 = {UINT64_C(0x20010db800000000) | (uint64_t)i << 16, 7}};
}

static void check_all(const struct policy *p, const struct model *models)
{
    const struct partner_view *views[PARTNERS];
    for (unsigned k = 0; k < PARTNERS; k++) {
        char id[16];
        (void)snprintf(id, sizeof id, "p%u", k);
        views[k] = policy_view(p, policy_find(p, span_str(id)));
        assert_true((views[k] != NULL) == models[k].is_there);
    }
    for (enum environment env = ENV_PRODUCTION; env < ENV_COUNT; env++)
        for (unsigned i = 0; i < 2 * NETWORKS; i++) {
            struct addr a = address(i / 2, i % 2);
            bool is_known = false;
            for (unsigned k = 0; k < PARTNERS; k++) {
                bool want = models[k].is_there && list_has(&models[k].lists[env], i / 2);
                if (views[k]) assert_true(partner_view_allows(views[k], env, &a) == want);
                is_known = is_known || want;
            }
            assert_true(policy_source_known(p, env, &a) == is_known);
        }
}

static void change_one(struct policy *p, struct model *models, uint64_t *random)
{
    unsigned k = (unsigned)(next_random(random) % PARTNERS);
    struct model *m = &models[k];
    char id[16];
    (void)snprintf(id, sizeof id, "p%u", k);
    if (m->is_there && next_random(random) % 4 == 0) {
        assert_int_equal(policy_remove(p, span_str(id)), ERR_OK);
        m->is_there = false;
        return;
    }
    struct model before = *m;
    m->is_there = true;
    for (enum environment env = ENV_PRODUCTION; env < ENV_COUNT; env++) {
        unsigned what = (unsigned)(next_random(random) % 4);
        if (what == 0) list_set(&m->lists[env], (unsigned)(next_random(random) % NETWORKS));
        if (what == 1) m->lists[env] = models[next_random(random) % PARTNERS].lists[env];
        if (what == 2) m->lists[env] = draw_list(random);
    }
    bool changed = apply_expect(p, make_record(k, m), ERR_OK);
    assert_true(changed == (!before.is_there || memcmp(before.lists, m->lists, sizeof m->lists) != 0));
}

static void test_random_changes(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 2; seed++) {
        struct policy *p = policy_create();
        struct model models[PARTNERS] = {0};
        uint64_t random = seed;
        assert_non_null(p);
        make_ready(p);
        for (unsigned round = 0; round < ROUNDS / 2; round++) {
            change_one(p, models, &random);
            if (next_random(&random) % 4 == 0) policy_collect(p);
            check_all(p, models);
        }
        policy_sync_begin(p);
        assert_int_equal(policy_sync_end(p, NULL), ERR_OK); /* nobody was delivered */
        policy_collect(p);
        struct policy_stats s = stats_of(p);
        assert_int_equal(s.partners + s.prefixes + s.limbo_bytes, 0);
        for (size_t env = 0; env < ENV_COUNT; env++)
            assert_int_equal(p->pools[env].nsets + p->pools[env].set_bytes, 0);
        memset(models, 0, sizeof models);
        check_all(p, models);
        policy_destroy(p);
    }
}

/* The first load counts nothing; then the trees are built from short and shared lists together. */
static void test_random_first_load(void **state)
{
    (void)state;
    struct model models[PARTNERS] = {0};
    uint64_t random = 77;
    struct policy *p = policy_create();
    assert_non_null(p);
    policy_sync_begin(p);
    for (unsigned round = 0; round < 200; round++)
        change_one(p, models, &random);
    for (unsigned k = 0; k < PARTNERS; k++)
        if (models[k].is_there) (void)apply_expect(p, make_record(k, &models[k]), ERR_OK);
    assert_int_equal(policy_sync_end(p, NULL), ERR_OK);
    check_all(p, models);
    for (unsigned round = 0; round < 200; round++)
        change_one(p, models, &random);
    policy_collect(p);
    check_all(p, models);
    policy_destroy(p);
}

/* Every other network up to `n` of them: nothing merges. */
static struct model with_networks(unsigned n)
{
    struct model m = {.is_there = true};
    for (unsigned i = 0; i < n; i++)
        list_set(&m.lists[ENV_PRODUCTION], 2 * i);
    return m;
}

static unsigned cost_of(struct policy *p, unsigned partner, unsigned n)
{
    struct model m = with_networks(n);
    tree_changes = 0;
    (void)apply_expect(p, make_record(partner, &m), ERR_OK);
    return tree_changes;
}

static void test_a_change_costs_its_difference(void **state)
{
    (void)state;
    struct policy *p = policy_create();
    assert_non_null(p);
    make_ready(p);
    assert_int_equal(cost_of(p, 0, 3), 2 * 3);
    assert_int_equal(cost_of(p, 0, 4), 2);
    assert_int_equal(cost_of(p, 0, 100), 2 * 96); /* short to long */
    assert_int_equal(cost_of(p, 0, 101), 2);
    assert_int_equal(cost_of(p, 0, 101), 0);
    assert_int_equal(cost_of(p, 1, 101), 0); /* shared: counted already */
    assert_int_equal(cost_of(p, 2, 101), 0);
    assert_int_equal(cost_of(p, 2, 100), 2 * 100); /* the others still have theirs */
    assert_int_equal(cost_of(p, 2, 101), 2 * 100);
    assert_int_equal(cost_of(p, 1, 2), 2 * 2);
    tree_changes = 0;
    assert_int_equal(policy_remove(p, SPAN("p2")), ERR_OK);
    assert_int_equal(tree_changes, 0);
    assert_int_equal(policy_remove(p, SPAN("p0")), ERR_OK); /* the last user */
    assert_int_equal(tree_changes, 2 * 101);
    policy_destroy(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_changes),
        cmocka_unit_test(test_random_first_load),
        cmocka_unit_test(test_a_change_costs_its_difference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
