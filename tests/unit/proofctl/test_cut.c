/* What a change takes away: when the operator is asked, and when not. */
#include "proofctl/cut.h"

#include "proofctl/token_text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { NOW = 1000, LISTS = 4, LIST_MAX = 3 };

static struct cidr memory[LISTS][LIST_MAX]; /* lists of the partners of one test */
static unsigned nlists;

/* A partner with the current token `current` and, unless it is 0, the previous token `previous` until
 * `end_ms`. */
static struct partner partner(uint8_t current, uint8_t previous, uint64_t end_ms)
{
    struct partner p = {.id = "acme", .enabled = true, .previous_expires_ms = end_ms};
    p.has_token[SLOT_CURRENT] = true;
    p.has_token[SLOT_PREVIOUS] = previous != 0;
    memset(p.digest[SLOT_CURRENT], current, TOKEN_DIGEST_BYTES);
    memset(p.digest[SLOT_PREVIOUS], previous, TOKEN_DIGEST_BYTES);
    return p;
}

static void set_list(struct partner *p, enum environment env, const char *const *texts, uint32_t n)
{
    struct errmsg why;
    p->cidrs[env] = memory[nlists++ % LISTS];
    p->ncidrs[env] = n;
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(cidr_parse(span_str(texts[i]), &cidr_rules_default, &p->cidrs[env][i], &why),
                         ERR_OK);
}

static const char *described(const struct partner *before, const struct partner *after)
{
    static char text[240];
    struct outbuf o = outbuf_of(text, sizeof text - 1);
    struct cut cut;
    assert_int_equal(cut_compute(before, after, NOW, &cut), ERR_OK);
    cut_describe(&cut, &o);
    assert_int_equal(cut_is_any(&cut), o.n > 0);
    text[o.n] = '\0';
    return text;
}

static void the_same_partner_loses_nothing(void **state)
{
    (void)state;
    struct partner p = partner(1, 2, NOW + 1);
    assert_string_equal(described(&p, &p), "");
}

static void removing_is_asked_even_for_a_disabled_partner(void **state)
{
    (void)state;
    struct partner p = partner(1, 0, 0);
    assert_string_equal(described(&p, NULL), "it is removed for good and its tokens stop working");
    p.enabled = false;
    assert_string_equal(described(&p, NULL), "it is removed for good and its tokens stop working");
}

static void disabling_is_asked_once(void **state)
{
    (void)state;
    struct partner on = partner(1, 0, 0), off = on;
    off.enabled = false;
    assert_string_equal(described(&on, &off), "it is disabled and its tokens stop working");
    assert_string_equal(described(&off, &off), "");
    assert_string_equal(described(&off, &on), "");
}

static void a_rotation_with_grace_cuts_nothing(void **state)
{
    (void)state;
    struct partner before = partner(1, 0, 0), after = partner(2, 1, NOW + 1);
    assert_string_equal(described(&before, &after), "");
}

static void a_rotation_without_grace_cuts_the_current_token(void **state)
{
    (void)state;
    struct partner before = partner(1, 0, 0), after = partner(2, 0, 0), ended = partner(2, 1, NOW);
    assert_string_equal(described(&before, &after), "its current token stops working");
    assert_string_equal(described(&before, &ended), "its current token stops working");
}

static void a_second_rotation_cuts_the_oldest_token(void **state)
{
    (void)state;
    struct partner before = partner(2, 1, NOW + 1), after = partner(3, 2, NOW + 9);
    assert_string_equal(described(&before, &after), "its previous token stops working");
}

static void a_previous_token_past_its_end_is_no_loss(void **state)
{
    (void)state;
    struct partner before = partner(2, 1, NOW), after = partner(2, 0, 0);
    assert_string_equal(described(&before, &after), "");
}

static void a_revoked_token_is_no_loss(void **state)
{
    (void)state;
    struct partner before = partner(0, 0, 0), after = partner(2, 0, 0);
    assert_int_equal(token_text_revoked_digest("acme", before.digest[SLOT_CURRENT]), ERR_OK);
    assert_string_equal(described(&before, &after), "");
}

static void prefixes_that_leave_are_counted(void **state)
{
    (void)state;
    static const char *const some[] = {"192.0.2.7", "198.51.100.0/24", "2001:db8:1::/48"};
    static const char *const fewer[] = {"2001:db8:1::/48", "203.0.113.1"};
    struct partner before = partner(1, 0, 0), after = before;
    set_list(&before, ENV_PRODUCTION, some, 3);
    set_list(&after, ENV_PRODUCTION, fewer, 2);
    set_list(&before, ENV_SANDBOX, some, 1);
    assert_string_equal(described(&before, &after),
                        "2 prefixes leave its production list, 1 prefix leaves its sandbox list");
    assert_string_equal(described(&after, &before), "1 prefix leaves its production list");
}

static void another_order_and_repetition_lose_nothing(void **state)
{
    (void)state;
    static const char *const twice[] = {"192.0.2.7", "192.0.2.8", "192.0.2.7/32"}, *const once[] = {
                                                                                       "192.0.2.8",
                                                                                       "192.0.2.7"};
    struct partner before = partner(1, 0, 0), after = before;
    set_list(&before, ENV_PRODUCTION, twice, 3);
    set_list(&after, ENV_PRODUCTION, once, 2);
    assert_string_equal(described(&before, &after), "");
}

static void prefixes_of_a_disabled_partner_are_not_live(void **state)
{
    (void)state;
    static const char *const some[] = {"192.0.2.7"};
    struct partner before = partner(1, 0, 0), after = before;
    before.enabled = after.enabled = false;
    set_list(&before, ENV_PRODUCTION, some, 1);
    assert_string_equal(described(&before, &after), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_partner_loses_nothing),
        cmocka_unit_test(removing_is_asked_even_for_a_disabled_partner),
        cmocka_unit_test(disabling_is_asked_once),
        cmocka_unit_test(a_rotation_with_grace_cuts_nothing),
        cmocka_unit_test(a_rotation_without_grace_cuts_the_current_token),
        cmocka_unit_test(a_second_rotation_cuts_the_oldest_token),
        cmocka_unit_test(a_previous_token_past_its_end_is_no_loss),
        cmocka_unit_test(a_revoked_token_is_no_loss),
        cmocka_unit_test(prefixes_that_leave_are_counted),
        cmocka_unit_test(another_order_and_repetition_lose_nothing),
        cmocka_unit_test(prefixes_of_a_disabled_partner_are_not_live),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
