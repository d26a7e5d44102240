/* Memory runs out at every single place, once or for good: a change is done whole or not at all, and nothing
 * leaks (ASan). The sources are compiled into this file, with an allocator and a prefix tree that fail on
 * command. */
#include "helper_partner.h"
#include "policy/cidr_tree.h"
#include "policy/policy.h"
#include "policy/key_table.h"
#include "support/failing.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <openssl/crypto.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum err failing_set_build(const struct cidr *cidrs, uint32_t n, void *room, struct cidr_set **out)
{
    return fails() ? ERR_NOMEM : cidr_set_build(cidrs, n, room, out);
}

static enum err failing_tree_add(struct cidr_tree *t, const struct cidr *c)
{
    return fails() ? ERR_NOMEM : cidr_tree_add(t, c);
}

static enum err failing_tree_remove(struct cidr_tree *t, const struct cidr *c)
{
    return fails() ? ERR_NOMEM : cidr_tree_remove(t, c);
}

static enum err failing_tree_build(struct cidr_tree *t, cidr_next_fn next, void *arg)
{
    return fails() ? ERR_NOMEM : cidr_tree_build(t, next, arg);
}

static struct cidr_tree *failing_tree_create(struct epochs *epochs)
{
    return fails() ? NULL : cidr_tree_create(epochs);
}

#define malloc           failing_malloc
#define calloc           failing_calloc
#define aligned_alloc    failing_aligned_alloc
#define cidr_set_build   failing_set_build
#define cidr_tree_add    failing_tree_add
#define cidr_tree_remove failing_tree_remove
#define cidr_tree_build  failing_tree_build
#define cidr_tree_create failing_tree_create

#include "policy/cidr_pool.c"
#include "policy/directory.c"
#include "policy/epoch.c"
#include "policy/key_table.c"
#include "policy/partner_view.c"
#include "policy/policy.c"
#include "policy/policy_apply.c"
#include "policy/policy_leave.c"

#undef malloc
#undef calloc
#undef aligned_alloc

/* --- what can be seen of a policy ------------------------------------------------------------------ */

static const char *const tokens[] = {"token-a-aaaaaaaaaaaa", "token-b-bbbbbbbbbbbb", "token-c-cccccccccccc",
                                     "token-d-dddddddddddd", "token-e-eeeeeeeeeeee"};
static const char *const sources[] = {"192.0.2.1",   "198.51.100.1", "203.0.113.1",
                                      "2001:db8::1", "203.0.2.1",    "203.0.112.1"};
enum { NTOKENS = 5, NSOURCES = 6 };

struct snapshot {
    uint64_t generation;
    enum deny deny[ENV_COUNT][NTOKENS][NSOURCES];
    bool is_known[ENV_COUNT][NSOURCES];
    uint32_t partners, tokens;
    uint64_t prefixes;
};

static struct snapshot look(const struct policy *p)
{
    struct snapshot s;
    memset(&s, 0, sizeof(s));
    s.generation = policy_generation(p);
    for (enum environment env = ENV_PRODUCTION; env < ENV_COUNT; env++) {
        for (size_t from = 0; from < NSOURCES; from++) {
            struct addr a = addr_of(sources[from]);
            s.is_known[env][from] = policy_source_known(p, env, &a);
            for (size_t t = 0; t < NTOKENS; t++)
                s.deny[env][t][from] = decide_at(p, env, tokens[t], sources[from], 1000).deny;
        }
    }
    struct policy_stats stats;
    policy_stats(p, &stats);
    s.partners = stats.partners;
    s.tokens = stats.tokens;
    s.prefixes = stats.prefixes;
    return s;
}

/* --- the changes ------------------------------------------------------------------------------------- */

static struct partner record(const char *id, const char *token, const char *production, const char *sandbox)
{
    struct partner r = partner_with(id, token, production);
    partner_allow(&r, ENV_SANDBOX, sandbox);
    return r;
}

/* A list that is shared, and long enough for marks in memory of their own. */
static struct partner long_record(const char *id, const char *token, unsigned first, unsigned n)
{
    struct partner r = partner_with(id, token, "");
    for (unsigned i = first; i < first + n; i++) {
        char text[32];
        (void)snprintf(text, sizeof text, "203.0.%u.0/24", 2 * i % 256);
        partner_allow(&r, ENV_PRODUCTION, text);
    }
    partner_allow(&r, ENV_SANDBOX, "198.51.100.0/24");
    return r;
}

static struct policy *prepare_policy(void)
{
    struct policy *p = policy_create();
    assert_non_null(p);
    make_ready(p);
    apply_expect(p, record("x", tokens[0], "192.0.2.0/24 2001:db8::/48", "198.51.100.0/24"), ERR_OK);
    apply_expect(p, record("y", tokens[1], "198.51.100.0/24", "198.51.100.0/24"), ERR_OK);
    apply_expect(p, long_record("s", tokens[4], 0, 80), ERR_OK);
    policy_collect(p);
    return p;
}

static enum err apply(struct policy *p, struct partner r)
{
    bool changed;
    enum err e = policy_apply(p, &r, &changed);
    partner_deinit(&r);
    return e;
}

static enum err add(struct policy *p)
{
    return apply(p, record("z", tokens[2], "203.0.113.0/25 203.0.113.128/26 10.0.0.0/8", "203.0.113.0/24"));
}

static enum err replace(struct policy *p)
{
    return apply(p, record("x", tokens[3], "203.0.113.0/24 10.0.0.0/9 10.192.0.0/10", "192.0.2.0/24"));
}

static enum err rotate(struct policy *p)
{
    struct partner r = record("x", tokens[2], "192.0.2.0/24 2001:db8::/48", "198.51.100.0/24");
    partner_give(&r, SLOT_PREVIOUS, tokens[0]);
    r.previous_expires_ms = 5000;
    return apply(p, r);
}

/* The list of "s" grows at both ends, becomes short, is shared, and ends with its only user. */
static enum err grow_long(struct policy *p)
{
    return apply(p, long_record("s", tokens[4], 0, 90));
}

static enum err shorten(struct policy *p)
{
    return apply(p, long_record("s", tokens[4], 56, 1));
}

static enum err share(struct policy *p)
{
    return apply(p, long_record("z", tokens[2], 0, 80));
}

static enum err end_long(struct policy *p)
{
    enum err e = policy_remove(p, SPAN("s"));
    return e == ERR_NOT_FOUND ? ERR_OK : e;
}

static enum err disappear(struct policy *p)
{
    enum err e = policy_remove(p, SPAN("x"));
    return e == ERR_NOT_FOUND ? ERR_OK : e;
}

/* Runs `change` with each of its allocations failing in turn. */
static void sweep(enum err (*change)(struct policy *p), bool for_good)
{
    for (long n = 0;; n++) {
        assert_in_range(n, 0, 400);
        struct policy *p = prepare_policy();
        struct snapshot before = look(p);
        failing_begin(n, for_good);
        enum err e = change(p);
        bool is_last = !failing_end();
        policy_collect(p); /* what could not leave the trees leaves now */

        struct snapshot after = look(p);
        if (e) {
            assert_int_equal(e, ERR_NOMEM);
            assert_memory_equal(&before, &after, sizeof(before));
            assert_int_equal(change(p), ERR_OK);
            after = look(p);
        }
        struct policy *reference = prepare_policy();
        assert_int_equal(change(reference), ERR_OK);
        struct snapshot want = look(reference);
        assert_memory_equal(&after, &want, sizeof(want));
        policy_destroy(reference);
        policy_destroy(p);
        if (is_last) return;
    }
}

static void test_adding(void **state)
{
    (void)state;
    sweep(add, false);
    sweep(add, true);
}

static void test_replacing(void **state)
{
    (void)state;
    sweep(replace, false);
    sweep(replace, true);
}

static void test_rotating(void **state)
{
    (void)state;
    sweep(rotate, false);
    sweep(rotate, true);
}

static void test_long_lists(void **state)
{
    (void)state;
    static enum err (*const changes[])(struct policy *) = {grow_long, shorten, share, end_long};
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        sweep(changes[i], false);
        sweep(changes[i], true);
    }
}

static void test_removing(void **state)
{
    (void)state;
    sweep(disappear, false);
    sweep(disappear, true);
}

/* x is replaced, y left out, z new. As a store does it: what fails is given up and begun again later. */
static enum err synchronise(struct policy *p)
{
    policy_sync_begin(p);
    enum err e = replace(p);
    if (!e) e = add(p);
    if (!e) e = policy_sync_end(p, NULL);
    if (e) policy_sync_abort(p);
    return e;
}

static void test_a_synchronisation_is_tried_again(void **state)
{
    (void)state;
    for (int for_good = 0; for_good < 2; for_good++) {
        for (long n = 0;; n++) {
            assert_in_range(n, 0, 300);
            struct policy *p = prepare_policy();
            failing_begin(n, for_good);
            enum err e = synchronise(p);
            bool is_last = !failing_end();
            if (e) {
                assert_int_equal(e, ERR_NOMEM);
                assert_int_equal(synchronise(p), ERR_OK);
            }
            policy_collect(p);
            struct snapshot s = look(p);
            assert_int_equal(s.partners, 2);
            assert_int_equal(s.tokens, 2);
            assert_int_equal(policy_find(p, SPAN("y")), PARTNER_INDEX_NONE);
            for (size_t t = 0; t < NTOKENS; t++)
                assert_int_equal(s.deny[ENV_PRODUCTION][t][2],
                                 t == 2 || t == 3 ? DENY_NONE : DENY_TOKEN_UNKNOWN);
            for (size_t from = 0; from < NSOURCES; from++) {
                assert_int_equal(s.is_known[ENV_PRODUCTION][from], from == 2);
                assert_int_equal(s.is_known[ENV_SANDBOX][from], from == 0 || from == 2);
            }
            policy_destroy(p);
            if (is_last) break;
        }
    }
}

static void test_the_first_load(void **state)
{
    (void)state;
    for (long n = 0;; n++) {
        assert_in_range(n, 0, 100);
        struct policy *p = policy_create();
        assert_non_null(p);
        policy_sync_begin(p);
        assert_int_equal(add(p), ERR_OK);
        failing_begin(n, false);
        enum err e = policy_sync_end(p, NULL);
        bool is_last = !failing_end();
        if (e) {
            assert_false(policy_is_ready(p));
            /* One tree may be there already: what changes now must reach it. */
            assert_int_equal(policy_remove(p, SPAN("z")), ERR_OK);
            assert_int_equal(add(p), ERR_OK);
            assert_int_equal(policy_sync_end(p, NULL), ERR_OK);
        }
        policy_collect(p);
        struct snapshot s = look(p);
        assert_int_equal(s.deny[ENV_PRODUCTION][2][2], DENY_NONE);
        assert_true(s.is_known[ENV_PRODUCTION][2] && s.is_known[ENV_SANDBOX][2]);
        assert_false(s.is_known[ENV_PRODUCTION][0] || s.is_known[ENV_SANDBOX][1]);
        assert_int_equal(policy_remove(p, SPAN("z")), ERR_OK);
        s = look(p);
        assert_false(s.is_known[ENV_PRODUCTION][2] || s.is_known[ENV_SANDBOX][2]);
        policy_destroy(p);
        if (is_last) return;
    }
}

static void test_creating(void **state)
{
    (void)state;
    for (long n = 0;; n++) {
        assert_in_range(n, 0, 100);
        failing_begin(n, false);
        struct policy *p = policy_create();
        bool has_failed = failing_end();
        assert_int_equal(p == NULL, has_failed);
        policy_destroy(p);
        if (!has_failed) return;
    }
}

static void test_a_table_that_cannot_grow_stays_as_it_is(void **state)
{
    (void)state;
    struct epochs *epochs = epochs_create();
    struct key_table *t = key_table_create(epochs);
    uint8_t digest[TOKEN_DIGEST_BYTES] = {0};
    uint32_t n = 0, owner;
    failing_begin(0, true);
    for (;; n++) {
        digest[0] = (uint8_t)n;
        if (key_table_add(t, token_key(digest), n)) break;
    }
    assert_in_range(n, 20, 48);
    assert_int_equal(key_table_count(t), n);
    assert_false(key_table_find(t, token_key(digest), &owner));
    for (uint32_t i = 0; i < n; i++) {
        digest[0] = (uint8_t)i;
        assert_true(key_table_find(t, token_key(digest), &owner));
        assert_int_equal(owner, i);
    }
    assert_true(failing_end());
    digest[0] = (uint8_t)n;
    assert_int_equal(key_table_add(t, token_key(digest), n), ERR_OK);
    key_table_destroy(t);
    epochs_destroy(epochs);
}

static void clear(void *p)
{
    *(int *)p = 0;
}

static void test_retiring_without_memory_frees_at_once(void **state)
{
    (void)state;
    struct epochs *e = epochs_create();
    int object = 1;
    failing_begin(0, true);
    assert_int_equal(epochs_retire(e, &object, 1, clear), ERR_NOMEM);
    assert_true(failing_end());
    assert_int_equal(object, 0);
    assert_int_equal(epochs_collect(e), 0);
    assert_int_equal(epochs_limbo_bytes(e), 0);
    epochs_destroy(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adding),
        cmocka_unit_test(test_replacing),
        cmocka_unit_test(test_rotating),
        cmocka_unit_test(test_long_lists),
        cmocka_unit_test(test_removing),
        cmocka_unit_test(test_a_synchronisation_is_tried_again),
        cmocka_unit_test(test_the_first_load),
        cmocka_unit_test(test_creating),
        cmocka_unit_test(test_a_table_that_cannot_grow_stays_as_it_is),
        cmocka_unit_test(test_retiring_without_memory_frees_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
