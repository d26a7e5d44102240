/* Partners come, change and go: one at a time and by full synchronisations. */
#include "policy/policy.h"

#include "helper_partner.h"
#include "policy/token_table.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOKEN_A "token-a-aaaaaaaaaaaa"
#define TOKEN_B "token-b-bbbbbbbbbbbb"
#define TOKEN_C "token-c-cccccccccccc"
#define HOME    "192.0.2.0/24"
#define AT_HOME "192.0.2.7"
#define AWAY    "198.51.100.7"

static int set_up(void **state)
{
    *state = policy_create();
    return *state ? 0 : -1;
}

static int set_up_ready(void **state)
{
    if (set_up(state)) return -1;
    make_ready(*state);
    return 0;
}

static int tear_down(void **state)
{
    policy_destroy(*state);
    return 0;
}

static struct policy_stats stats_of(const struct policy *p)
{
    struct policy_stats s;
    policy_stats(p, &s);
    return s;
}

static bool is_known(const struct policy *p, enum environment env, const char *source)
{
    struct addr a = addr_of(source);
    return policy_source_known(p, env, &a);
}

static const struct partner_view *view_of(const struct policy *p, const char *id)
{
    return policy_view(p, policy_find(p, span_str(id)));
}

/* --- one at a time ------------------------------------------------------------------------------ */

static void test_a_new_partner_is_let_in_at_once(void **state)
{
    struct policy *p = *state;
    assert_int_equal(deny_of(p, TOKEN_A, AT_HOME), DENY_TOKEN_UNKNOWN);
    assert_true(apply_expect(p, partner_with("x", TOKEN_A, HOME), ERR_OK));
    assert_int_equal(deny_of(p, TOKEN_A, AT_HOME), DENY_NONE);
    assert_int_equal(deny_of(p, TOKEN_A, AWAY), DENY_ADDRESS);
    assert_int_equal(deny_of(p, TOKEN_B, AT_HOME), DENY_TOKEN_UNKNOWN);
    assert_true(is_known(p, ENV_PRODUCTION, AT_HOME));
    assert_false(is_known(p, ENV_SANDBOX, AT_HOME));
    assert_false(is_known(p, ENV_PRODUCTION, AWAY));
}

static void test_the_view_says_what_the_record_said(void **state)
{
    struct policy *p = *state;
    struct partner r = partner_with("acme.eu-1_x", TOKEN_A, HOME);
    partner_give(&r, SLOT_PREVIOUS, TOKEN_B);
    r.previous_expires_ms = 0x123456789abcdefULL;
    r.off_ramp = true;
    (void)snprintf(r.widget_id, sizeof(r.widget_id), "%s", "01234567-89ab-cdef-0123-456789abcdef");
    uint8_t digest[TOKEN_SLOTS][TOKEN_DIGEST_BYTES];
    memcpy(digest, r.digest, sizeof(digest));
    assert_true(apply_expect(p, r, ERR_OK));

    const struct partner_view *v = view_of(p, "acme.eu-1_x");
    assert_non_null(v);
    assert_true(v->enabled);
    assert_true(v->off_ramp);
    assert_true(span_eq(partner_view_id(v), SPAN("acme.eu-1_x")));
    char widget[PARTNER_WIDGET_TEXT_BYTES];
    partner_view_widget_id(v, widget);
    assert_string_equal(widget, "01234567-89ab-cdef-0123-456789abcdef");
    assert_memory_equal(partner_view_digest(v, SLOT_CURRENT), digest[SLOT_CURRENT], TOKEN_DIGEST_BYTES);
    assert_memory_equal(partner_view_digest(v, SLOT_PREVIOUS), digest[SLOT_PREVIOUS], TOKEN_DIGEST_BYTES);
    assert_true(partner_view_previous_expires_ms(v) == 0x123456789abcdefULL);
}

static void test_a_view_with_only_a_previous_token(void **state)
{
    struct policy *p = *state;
    struct partner r = partner_make("x");
    partner_give(&r, SLOT_PREVIOUS, TOKEN_A);
    partner_allow(&r, ENV_PRODUCTION, HOME);
    r.previous_expires_ms = 2000;
    assert_true(apply_expect(p, r, ERR_OK));
    const struct partner_view *v = view_of(p, "x");
    assert_null(partner_view_digest(v, SLOT_CURRENT));
    assert_non_null(partner_view_digest(v, SLOT_PREVIOUS));
    assert_true(span_eq(partner_view_id(v), SPAN("x")));
    assert_int_equal(deny_of(p, TOKEN_A, AT_HOME), DENY_NONE);
}

static void test_the_longest_id(void **state)
{
    struct policy *p = *state;
    char id[PARTNER_ID_MAX + 1];
    memset(id, 'i', PARTNER_ID_MAX);
    id[PARTNER_ID_MAX] = '\0';
    assert_true(apply_expect(p, partner_with(id, TOKEN_A, HOME), ERR_OK));
    assert_true(span_eq(partner_view_id(view_of(p, id)), span_str(id)));
}

static void test_a_record_that_no_validator_let_through(void **state)
{
    struct policy *p = *state;
    uint64_t generation = policy_generation(p);
    static const char *const bad_widgets[] = {
        "", "01234567-89ab-cdef-0123-456789abcde", "01234567-89AB-cdef-0123-456789abcdef",
        "01234567x89ab-cdef-0123-456789abcdef", "g1234567-89ab-cdef-0123-456789abcdef"};
    for (size_t i = 0; i < sizeof(bad_widgets) / sizeof(bad_widgets[0]); i++) {
        struct partner r = partner_with("x", TOKEN_A, HOME);
        memset(r.widget_id, 0, sizeof(r.widget_id));
        memcpy(r.widget_id, bad_widgets[i], strlen(bad_widgets[i]));
        apply_expect(p, r, ERR_PARSE);
    }
    apply_expect(p, partner_with("", TOKEN_A, HOME), ERR_PARSE);
    struct partner endless = partner_with("x", TOKEN_A, HOME);
    memset(endless.id, 'i', sizeof(endless.id));
    apply_expect(p, endless, ERR_PARSE);

    assert_int_equal(stats_of(p).partners, 0);
    assert_int_equal(stats_of(p).tokens, 0);
    assert_int_equal(policy_generation(p), generation);
}

static void test_a_changed_list_replaces_the_old_one(void **state)
{
    struct policy *p = *state;
    apply_expect(p, partner_with("x", TOKEN_A, "192.0.2.0/24 2001:db8:1::/48"), ERR_OK);
    assert_true(apply_expect(p, partner_with("x", TOKEN_A, "198.51.100.0/24 2001:db8:1::/48"), ERR_OK));
    assert_int_equal(deny_of(p, TOKEN_A, AT_HOME), DENY_ADDRESS);
    assert_int_equal(deny_of(p, TOKEN_A, AWAY), DENY_NONE);
    assert_int_equal(deny_of(p, TOKEN_A, "2001:db8:1::1"), DENY_NONE);
    assert_false(is_known(p, ENV_PRODUCTION, AT_HOME));
    assert_true(is_known(p, ENV_PRODUCTION, AWAY));
    assert_true(is_known(p, ENV_PRODUCTION, "2001:db8:1::1"));
}

static void test_a_prefix_of_two_partners_stays_known(void **state)
{
    struct policy *p = *state;
    apply_expect(p, partner_with("x", TOKEN_A, HOME), ERR_OK);
    apply_expect(p, partner_with("y", TOKEN_B, HOME), ERR_OK);
    assert_int_equal(policy_remove(p, SPAN("x")), ERR_OK);
    assert_true(is_known(p, ENV_PRODUCTION, AT_HOME));
    assert_int_equal(policy_remove(p, SPAN("y")), ERR_OK);
    assert_false(is_known(p, ENV_PRODUCTION, AT_HOME));
}

static void test_the_lists_of_the_environments_are_apart(void **state)
{
    struct policy *p = *state;
    struct partner r = partner_with("x", TOKEN_A, HOME);
    partner_allow(&r, ENV_SANDBOX, "198.51.100.0/24");
    apply_expect(p, r, ERR_OK);
    assert_int_equal(decide_at(p, ENV_SANDBOX, TOKEN_A, AT_HOME, 0).deny, DENY_ADDRESS);
    assert_int_equal(decide_at(p, ENV_SANDBOX, TOKEN_A, AWAY, 0).deny, DENY_NONE);
    assert_true(is_known(p, ENV_SANDBOX, AWAY));
    assert_false(is_known(p, ENV_SANDBOX, AT_HOME));
}

/* The same prefixes on the other list are another content, although the sum of prefixes is the same. */
static void test_lists_that_change_places_are_a_change(void **state)
{
    struct policy *p = *state;
    apply_expect(p, partner_with("x", TOKEN_A, HOME), ERR_OK);
    struct partner r = partner_make("x");
    partner_give(&r, SLOT_CURRENT, TOKEN_A);
    partner_allow(&r, ENV_SANDBOX, HOME);
    assert_true(apply_expect(p, r, ERR_OK));
    assert_int_equal(deny_of(p, TOKEN_A, AT_HOME), DENY_ADDRESS);
    assert_false(is_known(p, ENV_PRODUCTION, AT_HOME));
}

static void test_rotation_keeps_the_old_token_as_previous(void **state)
{
    struct policy *p = *state;
    apply_expect(p, partner_with("x", TOKEN_A, HOME), ERR_OK);
    struct partner r = partner_with("x", TOKEN_B, HOME);
    partner_give(&r, SLOT_PREVIOUS, TOKEN_A);
    r.previous_expires_ms = 5000;
    assert_true(apply_expect(p, r, ERR_OK));
    struct decision now = decide_at(p, ENV_PRODUCTION, TOKEN_A, AT_HOME, 4999);
    assert_int_equal(now.deny, DENY_NONE);
    assert_int_equal(now.slot, SLOT_PREVIOUS);
    assert_int_equal(now.valid_until_ms, 5000);
    assert_int_equal(decide_at(p, ENV_PRODUCTION, TOKEN_B, AT_HOME, 4999).slot, SLOT_CURRENT);
    assert_int_equal(stats_of(p).tokens, 2);

    assert_true(apply_expect(p, partner_with("x", TOKEN_B, HOME), ERR_OK));
    assert_int_equal(deny_of(p, TOKEN_A, AT_HOME), DENY_TOKEN_UNKNOWN);
    assert_int_equal(stats_of(p).tokens, 1);
}

static void test_a_removed_partner_is_unknown(void **state)
{
    struct policy *p = *state;
    apply_expect(p, partner_with("x", TOKEN_A, HOME), ERR_OK);
    uint32_t index = policy_find(p, SPAN("x"));
    assert_int_equal(policy_remove(p, SPAN("x")), ERR_OK);
    assert_int_equal(deny_of(p, TOKEN_A, AT_HOME), DENY_TOKEN_UNKNOWN);
    assert_null(policy_view(p, index));
    assert_int_equal(policy_find(p, SPAN("x")), PARTNER_INDEX_NONE);
    assert_false(is_known(p, ENV_PRODUCTION, AT_HOME));
    assert_int_equal(policy_remove(p, SPAN("x")), ERR_NOT_FOUND);
    assert_int_equal(stats_of(p).partners, 0);
    assert_int_equal(stats_of(p).tokens, 0);
    assert_int_equal(stats_of(p).prefixes, 0);
}

static void test_a_token_of_another_partner_is_refused(void **state)
{
    struct policy *p = *state;
    apply_expect(p, partner_with("x", TOKEN_A, HOME), ERR_OK);
    apply_expect(p, partner_with("y", TOKEN_B, HOME), ERR_OK);
    uint64_t generation = policy_generation(p);
    struct policy_stats before = stats_of(p);

    apply_expect(p, partner_with("z", TOKEN_A, "203.0.113.0/24"), ERR_EXISTS);
    struct partner r = partner_with("y", TOKEN_C, "203.0.113.0/24");
    partner_give(&r, SLOT_PREVIOUS, TOKEN_A);
    apply_expect(p, r, ERR_EXISTS);

    assert_int_equal(policy_generation(p), generation);
    struct policy_stats after = stats_of(p);
    assert_memory_equal(&before, &after, sizeof(before));
    assert_int_equal(policy_find(p, SPAN("z")), PARTNER_INDEX_NONE);
    assert_int_equal(deny_of(p, TOKEN_A, AT_HOME), DENY_NONE);
    assert_int_equal(deny_of(p, TOKEN_B, AT_HOME), DENY_NONE);
    assert_int_equal(deny_of(p, TOKEN_C, AT_HOME), DENY_TOKEN_UNKNOWN);
    assert_false(is_known(p, ENV_PRODUCTION, "203.0.113.1"));
}

static void test_one_token_in_both_slots_is_refused(void **state)
{
    struct policy *p = *state;
    struct partner r = partner_with("x", TOKEN_A, HOME);
    partner_give(&r, SLOT_PREVIOUS, TOKEN_A);
    apply_expect(p, r, ERR_EXISTS);
    assert_int_equal(stats_of(p).tokens, 0);
}

static void test_unchanged_records_change_nothing(void **state)
{
    struct policy *p = *state;
    apply_expect(p, partner_with("x", TOKEN_A, "192.0.2.0/24 198.51.100.0/24"), ERR_OK);
    const struct partner_view *v = view_of(p, "x");
    uint64_t generation = policy_generation(p);
    assert_false(apply_expect(p, partner_with("x", TOKEN_A, "192.0.2.0/24 198.51.100.0/24"), ERR_OK));
    assert_false(apply_expect(p, partner_with("x", TOKEN_A, "198.51.100.0/24 192.0.2.0/24"), ERR_OK));
    assert_int_equal(policy_generation(p), generation);
    assert_ptr_equal(view_of(p, "x"), v);
}

/* Each field alone makes a record a changed one. */
static void test_each_field_counts(void **state)
{
    struct policy *p = *state;
    for (int field = 0; field < 9; field++) {
        struct partner before = partner_with("x", TOKEN_A, HOME);
        partner_give(&before, SLOT_PREVIOUS, TOKEN_B);
        before.previous_expires_ms = 5000;
        apply_expect(p, before, ERR_OK);
        uint64_t generation = policy_generation(p);

        struct partner r =
            partner_with("x", field == 0 ? TOKEN_C : TOKEN_A, field == 1 ? "10.0.0.0/8" : HOME);
        if (field != 2) partner_give(&r, SLOT_PREVIOUS, field == 3 ? TOKEN_C : TOKEN_B);
        r.previous_expires_ms = field == 4 ? 5001 : 5000;
        if (field == 5) r.enabled = false;
        if (field == 6) r.off_ramp = true;
        if (field == 7) r.widget_id[0] = r.widget_id[0] == 'f' ? 'e' : 'f';
        if (field == 8) partner_allow(&r, ENV_SANDBOX, HOME);
        assert_true(apply_expect(p, r, ERR_OK));
        assert_true(policy_generation(p) > generation);
    }
}

static void test_every_visible_change_raises_the_generation(void **state)
{
    struct policy *p = *state;
    uint64_t g = policy_generation(p);
    apply_expect(p, partner_with("x", TOKEN_A, HOME), ERR_OK);
    assert_true(policy_generation(p) > g);
    g = policy_generation(p);
    assert_int_equal(policy_remove(p, SPAN("x")), ERR_OK);
    assert_true(policy_generation(p) > g);
    g = policy_generation(p);
    policy_collect(p);
    assert_int_equal(policy_generation(p), g);
}

/* A rotated token leaves the lists alone: the view changes, the list objects do not. */
static void test_lists_are_handed_on(void **state)
{
    struct policy *p = *state;
    apply_expect(p, partner_with("x", TOKEN_A, HOME), ERR_OK);
    const struct cidr_set *list = view_of(p, "x")->allow[ENV_PRODUCTION];
    apply_expect(p, partner_with("x", TOKEN_B, HOME), ERR_OK);
    assert_ptr_equal(view_of(p, "x")->allow[ENV_PRODUCTION], list);
    policy_collect(p);
    assert_int_equal(deny_of(p, TOKEN_B, AT_HOME), DENY_NONE);
    assert_int_equal(stats_of(p).prefixes, 1);
    assert_int_equal(policy_remove(p, SPAN("x")), ERR_OK);
    assert_false(is_known(p, ENV_PRODUCTION, AT_HOME));
}

static void test_an_index_is_reused_only_after_a_grace_period(void **state)
{
    struct policy *p = *state;
    struct epoch_reader *r;
    assert_int_equal(epochs_register(policy_epochs(p), &r), ERR_OK);
    apply_expect(p, partner_with("x", TOKEN_A, HOME), ERR_OK);
    uint32_t index = policy_find(p, SPAN("x"));
    epoch_online(r);
    const struct partner_view *held = policy_view(p, index);
    assert_int_equal(policy_remove(p, SPAN("x")), ERR_OK);
    policy_collect(p);
    apply_expect(p, partner_with("y", TOKEN_A, HOME), ERR_OK);
    assert_int_not_equal(policy_find(p, SPAN("y")), index);
    assert_true(span_eq(partner_view_id(held), SPAN("x"))); /* still there for the reader */
    assert_true(stats_of(p).limbo_bytes > 0);

    epoch_offline(r);
    policy_collect(p);
    assert_int_equal(stats_of(p).limbo_bytes, 0);
    apply_expect(p, partner_with("z", TOKEN_B, HOME), ERR_OK);
    assert_int_equal(policy_find(p, SPAN("z")), index);
}

static void test_any_index_may_be_asked_for(void **state)
{
    struct policy *p = *state;
    static const uint32_t indices[] = {0, 4095, 4096, 1u << 24, UINT32_MAX - 1, PARTNER_INDEX_NONE};
    for (size_t i = 0; i < sizeof(indices) / sizeof(indices[0]); i++)
        assert_null(policy_view(p, indices[i]));
}

/* --- synchronisation ---------------------------------------------------------------------------- */

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
        for (int i = N - 1; i > 0; i--) {
            int j = (int)(next_random(&rng) % (uint64_t)(i + 1)),
                k = (int)(next_random(&rng) % (uint64_t)(i + 1));
            int t = owner[i];
            owner[i] = owner[j], owner[j] = t;
            t = order[i];
            order[i] = order[k], order[k] = t;
        }
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

#define TEST(f)       cmocka_unit_test_setup_teardown(f, set_up, tear_down)
#define TEST_READY(f) cmocka_unit_test_setup_teardown(f, set_up_ready, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_READY(test_a_new_partner_is_let_in_at_once),
        TEST_READY(test_the_view_says_what_the_record_said),
        TEST_READY(test_a_view_with_only_a_previous_token),
        TEST_READY(test_the_longest_id),
        TEST_READY(test_a_record_that_no_validator_let_through),
        TEST_READY(test_a_changed_list_replaces_the_old_one),
        TEST_READY(test_a_prefix_of_two_partners_stays_known),
        TEST_READY(test_the_lists_of_the_environments_are_apart),
        TEST_READY(test_lists_that_change_places_are_a_change),
        TEST_READY(test_rotation_keeps_the_old_token_as_previous),
        TEST_READY(test_a_removed_partner_is_unknown),
        TEST_READY(test_a_token_of_another_partner_is_refused),
        TEST_READY(test_one_token_in_both_slots_is_refused),
        TEST_READY(test_unchanged_records_change_nothing),
        TEST_READY(test_each_field_counts),
        TEST_READY(test_every_visible_change_raises_the_generation),
        TEST_READY(test_lists_are_handed_on),
        TEST_READY(test_an_index_is_reused_only_after_a_grace_period),
        TEST_READY(test_any_index_may_be_asked_for),
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
