/* New names: partner ids and widget ids. */
#include "proofctl/ident.h"

#include "store/record_value.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* The id of a company without its random end. */
static const char *slug(const char *company)
{
    static char id[PARTNER_ID_MAX + 1];
    assert_int_equal(ident_partner_id(span_str(company), id), ERR_OK);
    assert_true(record_value_is_partner_id(span_str(id)));
    size_t n = strlen(id);
    assert_int_equal(strspn(id + n - 4, "23456789abcdefghijkmnpqrstuvwxyz"), 4);
    assert_int_equal(id[n - 5], '-');
    id[n - 5] = '\0';
    return id;
}

static void partner_id_is_made_from_the_company(void **state)
{
    (void)state;
    assert_string_equal(slug("Acme Exchange GmbH"), "acme-exchange-gmbh");
    assert_string_equal(slug("  A & B -- (Pay)  "), "a-b-pay");
    assert_string_equal(slug("4Coins.io"), "4coins-io");
    assert_string_equal(slug("B\xc3\xa9ta"), "b-ta");
}

static void a_company_without_ascii_letters_is_a_partner(void **state)
{
    (void)state;
    assert_string_equal(slug("\xe6\xad\xa3\xe7\xa1\xae"), "partner");
    assert_string_equal(slug(""), "partner");
    assert_string_equal(slug("..."), "partner");
}

static void a_long_name_is_cut(void **state)
{
    (void)state;
    char name[500];
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    assert_int_equal(strlen(slug(name)), 40);
    for (size_t i = 1; i < sizeof name - 1; i += 2)
        name[i] = ' ';
    assert_in_range(strlen(slug(name)), 39, 40);
}

static void ids_of_one_company_differ(void **state)
{
    (void)state;
    char first[PARTNER_ID_MAX + 1], next[PARTNER_ID_MAX + 1];
    int same = 0;
    assert_int_equal(ident_partner_id(SPAN("Acme"), first), ERR_OK);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(ident_partner_id(SPAN("Acme"), next), ERR_OK);
        same += strcmp(first, next) == 0;
    }
    assert_true(same < 2); /* each is the same as the first with a chance of 1 in a million */
}

static void widget_id_is_a_version_4_uuid(void **state)
{
    (void)state;
    char first[IDENT_UUID_CHARS + 1], uuid[IDENT_UUID_CHARS + 1];
    uint8_t bytes[UUID_BYTES];
    assert_int_equal(ident_uuid4(first), ERR_OK);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(ident_uuid4(uuid), ERR_OK);
        assert_int_equal(strspn(uuid, "0123456789abcdef-"), UUID_LEN);
        assert_true(uuid_parse(uuid, bytes));
        assert_int_equal(uuid[14], '4');
        assert_non_null(memchr("89ab", uuid[19], 4));
        assert_string_not_equal(uuid, first);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(partner_id_is_made_from_the_company),
        cmocka_unit_test(a_company_without_ascii_letters_is_a_partner),
        cmocka_unit_test(a_long_name_is_cut),
        cmocka_unit_test(ids_of_one_company_differ),
        cmocka_unit_test(widget_id_is_a_version_4_uuid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
