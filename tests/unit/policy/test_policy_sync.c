/* Full synchronisations: who stays, who goes, and that nobody is refused on the way whom old and new data
 * allow. */
#include "policy/policy.h"

#include "helper_partner.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>

static void end_sync(struct policy *p, uint32_t want_removed)
{
    uint32_t removed = 77;
    assert_int_equal(policy_sync_end(p, &removed), ERR_OK);
    assert_int_equal(removed, want_removed);
}

static void test_ready_after_the_first_synchronisation(void **state)
{
    struct policy *p = *state;
    assert_false(policy_is_ready(p));
    policy_sync_begin(p);
    apply_expect(p, partner_with("x", TOKEN_A, HOME), ERR_OK);
    assert_false(policy_is_ready(p));
    assert_int_equal(deny_of(p, TOKEN_A, AT_HOME), DENY_NO_POLICY);
    assert_true(is_known(p, ENV_PRODUCTION, AWAY)); /* nobody is unknown before there is data */
    uint64_t generation = policy_generation(p);
    end_sync(p, 0);
    assert_true(policy_is_ready(p));
    assert_true(policy_generation(p) > generation);
    assert_int_equal(deny_of(p, TOKEN_A, AT_HOME), DENY_NONE);
    assert_true(is_known(p, ENV_PRODUCTION, AT_HOME));
    assert_false(is_known(p, ENV_PRODUCTION, AWAY));
}

/* Changes before the trees are built must be in them, and must leave them again afterwards. */
static void test_changes_during_the_first_synchronisation(void **state)
{
    struct policy *p = *state;
    policy_sync_begin(p);
    apply_expect(p, partner_with("x", TOKEN_A, HOME), ERR_OK);
    apply_expect(p, partner_with("x", TOKEN_B, "198.51.100.0/24"), ERR_OK);
    apply_expect(p, partner_with("y", TOKEN_C, "203.0.113.0/24"), ERR_OK);
    assert_int_equal(policy_remove(p, SPAN("y")), ERR_OK);
    end_sync(p, 0);
    assert_false(is_known(p, ENV_PRODUCTION, AT_HOME));
    assert_true(is_known(p, ENV_PRODUCTION, AWAY));
    assert_false(is_known(p, ENV_PRODUCTION, "203.0.113.1"));
    assert_int_equal(deny_of(p, TOKEN_A, AT_HOME), DENY_TOKEN_UNKNOWN);
    assert_int_equal(policy_remove(p, SPAN("x")), ERR_OK);
    assert_false(is_known(p, ENV_PRODUCTION, AWAY));
    assert_int_equal(stats_of(p).prefixes, 0);
}

static void test_what_a_synchronisation_leaves_out_is_removed(void **state)
{
    struct policy *p = *state;
    apply_expect(p, partner_with("x", TOKEN_A, HOME), ERR_OK);
    apply_expect(p, partner_with("y", TOKEN_B, HOME), ERR_OK);
    policy_sync_begin(p);
    assert_false(apply_expect(p, partner_with("x", TOKEN_A, HOME), ERR_OK));
    assert_int_equal(deny_of(p, TOKEN_B, AT_HOME), DENY_NONE);
    end_sync(p, 1);
    assert_int_equal(deny_of(p, TOKEN_A, AT_HOME), DENY_NONE);
    assert_int_equal(deny_of(p, TOKEN_B, AT_HOME), DENY_TOKEN_UNKNOWN);
}

static void test_an_aborted_synchronisation_removes_nobody(void **state)
{
    struct policy *p = *state;
    apply_expect(p, partner_with("x", TOKEN_A, HOME), ERR_OK);
    policy_sync_begin(p);
    apply_expect(p, partner_with("y", TOKEN_B, HOME), ERR_OK);
    policy_sync_abort(p);
    assert_int_equal(deny_of(p, TOKEN_A, AT_HOME), DENY_NONE);
    assert_int_equal(deny_of(p, TOKEN_B, AT_HOME), DENY_NONE);
    policy_sync_begin(p); /* what the aborted one saw does not count */
    apply_expect(p, partner_with("x", TOKEN_A, HOME), ERR_OK);
    end_sync(p, 1);
    assert_int_equal(deny_of(p, TOKEN_B, AT_HOME), DENY_TOKEN_UNKNOWN);
}

static void test_beginning_twice_restarts(void **state)
{
    struct policy *p = *state;
    policy_sync_begin(p);
    apply_expect(p, partner_with("x", TOKEN_A, HOME), ERR_OK);
    policy_sync_begin(p);
    apply_expect(p, partner_with("y", TOKEN_B, HOME), ERR_OK);
    end_sync(p, 1);
    assert_int_equal(policy_find(p, SPAN("x")), PARTNER_INDEX_NONE);
}

static void test_a_renamed_partner_is_never_refused(void **state)
{
    struct policy *p = *state;
    apply_expect(p, partner_with("old", TOKEN_A, HOME), ERR_OK);
    policy_sync_begin(p);
    assert_int_equal(deny_of(p, TOKEN_A, AT_HOME), DENY_NONE);
    apply_expect(p, partner_with("new", TOKEN_A, HOME), ERR_OK);
    struct decision now = decide_at(p, ENV_PRODUCTION, TOKEN_A, AT_HOME, 0);
    assert_int_equal(now.deny, DENY_NONE);
    assert_int_equal(now.partner, policy_find(p, SPAN("new")));
    end_sync(p, 1);
    assert_int_equal(deny_of(p, TOKEN_A, AT_HOME), DENY_NONE);
    assert_int_equal(stats_of(p).tokens, 1);
    assert_int_equal(stats_of(p).partners, 1);
    assert_int_equal(stats_of(p).prefixes, 1);
}

/* A goes from x to y, and x gets a new token; in both orders of the records. */
static void test_a_token_moves_between_partners(void **state)
{
    struct policy *p = *state;
    for (int x_first = 0; x_first < 2; x_first++) {
        apply_expect(p, partner_with("x", TOKEN_A, HOME), ERR_OK);
        apply_expect(p, partner_with("y", TOKEN_B, HOME), ERR_OK);
        policy_sync_begin(p);
        for (int i = 0; i < 2; i++) {
            bool is_x = (i == 0) == (x_first == 1);
            apply_expect(p, is_x ? partner_with("x", TOKEN_C, HOME) : partner_with("y", TOKEN_A, HOME),
                         ERR_OK);
            assert_int_equal(deny_of(p, TOKEN_A, AT_HOME), DENY_NONE);
        }
        end_sync(p, 0);
        assert_int_equal(decide_at(p, ENV_PRODUCTION, TOKEN_A, AT_HOME, 0).partner,
                         policy_find(p, SPAN("y")));
        assert_int_equal(deny_of(p, TOKEN_B, AT_HOME), DENY_TOKEN_UNKNOWN);
        assert_int_equal(deny_of(p, TOKEN_C, AT_HOME), DENY_NONE);
        assert_int_equal(stats_of(p).tokens, 2);
        assert_int_equal(stats_of(p).partners, 2);
        assert_int_equal(stats_of(p).prefixes, 2);
        assert_int_equal(policy_remove(p, SPAN("x")), ERR_OK);
        assert_int_equal(policy_remove(p, SPAN("y")), ERR_OK);
        assert_false(is_known(p, ENV_PRODUCTION, AT_HOME));
        assert_int_equal(stats_of(p).tokens, 0);
    }
}

static void test_two_partners_exchange_tokens(void **state)
{
    struct policy *p = *state;
    apply_expect(p, partner_with("x", TOKEN_A, HOME), ERR_OK);
    apply_expect(p, partner_with("y", TOKEN_B, HOME), ERR_OK);
    policy_sync_begin(p);
    apply_expect(p, partner_with("x", TOKEN_B, HOME), ERR_OK);
    assert_int_equal(deny_of(p, TOKEN_A, AT_HOME), DENY_NONE);
    assert_int_equal(deny_of(p, TOKEN_B, AT_HOME), DENY_NONE);
    apply_expect(p, partner_with("y", TOKEN_A, HOME), ERR_OK);
    end_sync(p, 0);
    assert_int_equal(decide_at(p, ENV_PRODUCTION, TOKEN_B, AT_HOME, 0).partner, policy_find(p, SPAN("x")));
    assert_int_equal(decide_at(p, ENV_PRODUCTION, TOKEN_A, AT_HOME, 0).partner, policy_find(p, SPAN("y")));
}

/* Every synchronisation gives every token to another partner, in random order: all tokens work at every step.
 */
static void test_tokens_go_round(void **state)
{
    struct policy *p = *state;
    enum { N = 7, ROUNDS = 60 };
    int owner[N], order[N];
    uint64_t rng = 5;
    for (int i = 0; i < N; i++)
        owner[i] = order[i] = i;
    for (int round = 0; round < ROUNDS; round++) {
        shuffle(owner, N, &rng);
        shuffle(order, N, &rng);
        policy_sync_begin(p);
        for (int i = 0; i < N; i++) {
            char id[16], token[32];
            (void)snprintf(id, sizeof(id), "p%d", order[i]);
            (void)snprintf(token, sizeof(token), "token-number-%06d", owner[order[i]]);
            apply_expect(p, partner_with(id, token, HOME), ERR_OK);
            for (int t = 0; t < N && round > 0; t++) {
                (void)snprintf(token, sizeof(token), "token-number-%06d", t);
                assert_int_equal(deny_of(p, token, AT_HOME), DENY_NONE);
            }
        }
        end_sync(p, 0);
        policy_collect(p);
        assert_int_equal(stats_of(p).tokens, N);
        assert_int_equal(stats_of(p).partners, N);
        assert_int_equal(stats_of(p).prefixes, N);
        for (int i = 0; i < N; i++) {
            char id[16], token[32];
            (void)snprintf(id, sizeof(id), "p%d", i);
            (void)snprintf(token, sizeof(token), "token-number-%06d", owner[i]);
            assert_int_equal(decide_at(p, ENV_PRODUCTION, token, AT_HOME, 0).partner,
                             policy_find(p, span_str(id)));
        }
    }
}

static void test_a_dropped_token_ends_with_the_synchronisation(void **state)
{
    struct policy *p = *state;
    for (int how = 0; how < 3; how++) {
        apply_expect(p, partner_with("x", TOKEN_A, HOME), ERR_OK);
        policy_sync_begin(p);
        apply_expect(p, partner_with("x", TOKEN_B, HOME), ERR_OK);
        assert_int_equal(deny_of(p, TOKEN_B, AT_HOME), DENY_NONE);
        uint64_t generation = policy_generation(p);
        if (how == 0) end_sync(p, 0);
        if (how == 1) policy_sync_abort(p);
        if (how == 2) policy_sync_begin(p);
        assert_int_equal(deny_of(p, TOKEN_A, AT_HOME), DENY_TOKEN_UNKNOWN);
        assert_true(policy_generation(p) > generation);
        if (how == 2) policy_sync_abort(p);
        assert_int_equal(policy_remove(p, SPAN("x")), ERR_OK);
        assert_int_equal(stats_of(p).tokens, 0);
        assert_int_equal(stats_of(p).prefixes, 0);
        assert_false(is_known(p, ENV_PRODUCTION, AT_HOME));
    }
}

static void test_a_token_given_twice_is_refused_the_second_time(void **state)
{
    struct policy *p = *state;
    apply_expect(p, partner_with("x", TOKEN_A, HOME), ERR_OK);
    policy_sync_begin(p);
    apply_expect(p, partner_with("y", TOKEN_A, HOME), ERR_OK);
    apply_expect(p, partner_with("x", TOKEN_A, HOME), ERR_EXISTS); /* unchanged, but the token is gone */
    end_sync(p, 1);
    assert_int_equal(decide_at(p, ENV_PRODUCTION, TOKEN_A, AT_HOME, 0).partner, policy_find(p, SPAN("y")));
}

static void test_a_robbed_partner_gets_its_token_back(void **state)
{
    struct policy *p = *state;
    apply_expect(p, partner_with("x", TOKEN_A, HOME), ERR_OK);
    policy_sync_begin(p);
    apply_expect(p, partner_with("y", TOKEN_A, HOME), ERR_OK);
    policy_sync_abort(p);
    apply_expect(p, partner_with("x", TOKEN_A, HOME), ERR_EXISTS);
    assert_int_equal(policy_remove(p, SPAN("y")), ERR_OK);
    assert_int_equal(deny_of(p, TOKEN_A, AT_HOME), DENY_TOKEN_UNKNOWN);
    assert_true(apply_expect(p, partner_with("x", TOKEN_A, HOME), ERR_OK));
    assert_int_equal(deny_of(p, TOKEN_A, AT_HOME), DENY_NONE);
    assert_false(apply_expect(p, partner_with("x", TOKEN_A, HOME), ERR_OK));
}

static void test_a_removal_during_a_synchronisation_is_final(void **state)
{
    struct policy *p = *state;
    apply_expect(p, partner_with("x", TOKEN_A, HOME), ERR_OK);
    policy_sync_begin(p);
    assert_int_equal(policy_remove(p, SPAN("x")), ERR_OK);
    assert_int_equal(deny_of(p, TOKEN_A, AT_HOME), DENY_TOKEN_UNKNOWN);
    end_sync(p, 0);
}

static void test_destroying_in_the_middle_of_a_synchronisation(void **state)
{
    struct policy *p = *state;
    apply_expect(p, partner_with("x", TOKEN_A, HOME), ERR_OK);
    policy_sync_begin(p);
    apply_expect(p, partner_with("x", TOKEN_B, HOME), ERR_OK); /* tear_down destroys it with a ghost inside */
}

/* --- many --------------------------------------------------------------------------------------- */

static struct partner numbered(int i)
{
    char id[32], token[32], prefixes[64];
    (void)snprintf(id, sizeof(id), "partner-%d", i);
    (void)snprintf(token, sizeof(token), "token-of-partner-%06d", i);
    (void)snprintf(prefixes, sizeof(prefixes), "10.%d.%d.0/24 10.200.%d.%d", i >> 8, i & 255, i >> 8,
                   i & 255);
    return partner_with(id, token, prefixes);
}

/* More than one block of views, names that grow and move, and the sweep of half of all. */
static void test_thousands_of_partners(void **state)
{
    struct policy *p = *state;
    enum { N = 6000 };
    policy_sync_begin(p);
    for (int i = 0; i < N; i++)
        apply_expect(p, numbered(i), ERR_OK);
    end_sync(p, 0);
    assert_int_equal(stats_of(p).partners, N);
    assert_int_equal(stats_of(p).tokens, N);
    assert_int_equal(stats_of(p).prefixes, 2 * N);

    policy_sync_begin(p);
    for (int i = 0; i < N; i += 2)
        assert_false(apply_expect(p, numbered(i), ERR_OK));
    end_sync(p, N / 2);
    policy_collect(p);
    assert_int_equal(stats_of(p).partners, N / 2);
    for (int i = 0; i < N; i++) {
        char id[32], token[32], source[32];
        (void)snprintf(id, sizeof(id), "partner-%d", i);
        (void)snprintf(token, sizeof(token), "token-of-partner-%06d", i);
        (void)snprintf(source, sizeof(source), "10.%d.%d.9", i >> 8, i & 255);
        assert_int_equal(policy_find(p, span_str(id)) == PARTNER_INDEX_NONE, i % 2);
        assert_int_equal(deny_of(p, token, source), i % 2 ? DENY_TOKEN_UNKNOWN : DENY_NONE);
        assert_int_equal(is_known(p, ENV_PRODUCTION, source), i % 2 == 0);
    }
    for (int i = 0; i < N; i += 2) {
        char id[32];
        (void)snprintf(id, sizeof(id), "partner-%d", i);
        assert_int_equal(policy_remove(p, span_str(id)), ERR_OK);
    }
    struct policy_stats s = stats_of(p);
    assert_int_equal(s.partners + s.tokens + s.prefixes, 0);
}

#define TEST(f)       cmocka_unit_test_setup_teardown(f, policy_setup, policy_teardown)
#define TEST_READY(f) cmocka_unit_test_setup_teardown(f, policy_setup_ready, policy_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_ready_after_the_first_synchronisation),
        TEST(test_changes_during_the_first_synchronisation),
        TEST_READY(test_what_a_synchronisation_leaves_out_is_removed),
        TEST_READY(test_an_aborted_synchronisation_removes_nobody),
        TEST_READY(test_beginning_twice_restarts),
        TEST_READY(test_a_renamed_partner_is_never_refused),
        TEST_READY(test_a_token_moves_between_partners),
        TEST_READY(test_two_partners_exchange_tokens),
        TEST_READY(test_tokens_go_round),
        TEST_READY(test_a_dropped_token_ends_with_the_synchronisation),
        TEST_READY(test_a_token_given_twice_is_refused_the_second_time),
        TEST_READY(test_a_robbed_partner_gets_its_token_back),
        TEST_READY(test_a_removal_during_a_synchronisation_is_final),
        TEST_READY(test_destroying_in_the_middle_of_a_synchronisation),
        TEST(test_thousands_of_partners),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
