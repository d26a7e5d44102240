/* Partners come, change and go, one at a time. */
#include "policy/policy.h"

#include "helper_partner.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    assert_true(uuid_parse("01234567-89ab-cdef-0123-456789abcdef", r.widget_id));
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
        if (field == 7) r.widget_id[0] ^= 1;
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

/* Twelve networks of 2001:db8::/32 and twelve of 10.0.0.0/8 from `first` on, each apart from its neighbours.
 */
static struct partner with_long_list(const char *id, const char *token, unsigned first)
{
    struct partner r = partner_with(id, token, "");
    for (unsigned i = first; i < first + 12; i++) {
        char text[64];
        (void)snprintf(text, sizeof text, "10.%u.0.0/24 2001:db8:%x::/56", i, i);
        partner_allow(&r, ENV_PRODUCTION, text);
    }
    return r;
}

static const struct cidr_set *list_of(const struct policy *p, const char *id)
{
    return partner_view_list(view_of(p, id), ENV_PRODUCTION);
}

/* A rotated token leaves the lists alone, the shared one and the one that lies in the view. */
static void test_lists_survive_a_rotation(void **state)
{
    struct policy *p = *state;
    apply_expect(p, partner_with("x", TOKEN_A, HOME), ERR_OK);
    apply_expect(p, partner_with("x", TOKEN_B, HOME), ERR_OK);
    apply_expect(p, with_long_list("y", TOKEN_C, 0), ERR_OK);
    const struct cidr_set *list = list_of(p, "y");
    apply_expect(p, with_long_list("y", TOKEN_A, 0), ERR_OK);
    assert_ptr_equal(list_of(p, "y"), list);
    policy_collect(p);
    assert_int_equal(deny_of(p, TOKEN_B, AT_HOME), DENY_NONE);
    assert_int_equal(deny_of(p, TOKEN_A, "10.11.0.7"), DENY_NONE);
    assert_int_equal(stats_of(p).prefixes, 1 + 24);
    assert_int_equal(policy_remove(p, SPAN("x")), ERR_OK);
    assert_int_equal(policy_remove(p, SPAN("y")), ERR_OK);
    assert_false(is_known(p, ENV_PRODUCTION, AT_HOME));
    assert_false(is_known(p, ENV_PRODUCTION, "10.11.0.7"));
}

/* Equal long lists are one object, however they are written; the last user takes it away. */
static void test_equal_long_lists_are_shared(void **state)
{
    struct policy *p = *state;
    size_t before = stats_of(p).bytes;
    apply_expect(p, with_long_list("x", TOKEN_A, 0), ERR_OK);
    size_t first = stats_of(p).bytes - before;
    apply_expect(p, with_long_list("y", TOKEN_B, 1), ERR_OK);
    assert_ptr_not_equal(list_of(p, "x"), list_of(p, "y"));
    struct partner other = with_long_list("z", TOKEN_C, 0);
    partner_allow(&other, ENV_PRODUCTION, "10.3.0.0/25 10.3.0.128/25");
    apply_expect(p, other, ERR_OK);
    assert_ptr_equal(list_of(p, "x"), list_of(p, "z"));
    assert_int_equal(policy_remove(p, SPAN("z")), ERR_OK);
    apply_expect(p, with_long_list("y", TOKEN_B, 0), ERR_OK);
    assert_ptr_equal(list_of(p, "x"), list_of(p, "y"));
    policy_collect(p);
    assert_in_range(stats_of(p).bytes - before, first, first + 128); /* a view more */

    assert_int_equal(policy_remove(p, SPAN("x")), ERR_OK);
    policy_collect(p);
    assert_true(is_known(p, ENV_PRODUCTION, "10.3.0.1"));
    assert_int_equal(deny_of(p, TOKEN_B, "2001:db8:b::1"), DENY_NONE);
    apply_expect(p, with_long_list("y", TOKEN_B, 1), ERR_OK);
    policy_collect(p);
    assert_false(is_known(p, ENV_PRODUCTION, "10.0.0.1"));
    assert_true(is_known(p, ENV_PRODUCTION, "10.12.0.1"));
    assert_int_equal(policy_remove(p, SPAN("y")), ERR_OK);
    policy_collect(p);
    assert_false(is_known(p, ENV_PRODUCTION, "10.12.0.1"));
    assert_int_equal(stats_of(p).prefixes, 0);
}

/* The same list in other words is no change. */
static void test_a_long_list_in_other_words_is_the_same(void **state)
{
    struct policy *p = *state;
    apply_expect(p, with_long_list("x", TOKEN_A, 0), ERR_OK);
    struct partner again = with_long_list("x", TOKEN_A, 0);
    partner_allow(&again, ENV_PRODUCTION, "10.3.0.0/30 2001:db8:4:80::/57");
    assert_false(apply_expect(p, again, ERR_OK));
    assert_false(apply_expect(p, with_long_list("x", TOKEN_A, 0), ERR_OK));
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

#define TEST_READY(f) cmocka_unit_test_setup_teardown(f, policy_setup_ready, policy_teardown)

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
        TEST_READY(test_lists_survive_a_rotation),
        TEST_READY(test_equal_long_lists_are_shared),
        TEST_READY(test_a_long_list_in_other_words_is_the_same),
        TEST_READY(test_an_index_is_reused_only_after_a_grace_period),
        TEST_READY(test_any_index_may_be_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
