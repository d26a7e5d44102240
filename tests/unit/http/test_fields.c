/* The table of known field names, and lists. */
#include "http/fields.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static const struct span names[FIELD_COUNT] = {
#define XX(id, text, class) [FIELD_##id] = {text, sizeof(text) - 1},
    FIELD_MAP(XX)
#undef XX
};

static void test_every_name_is_found_in_any_case(void **state)
{
    (void)state;
    for (unsigned id = FIELD_OTHER + 1; id < FIELD_COUNT; id++) {
        struct span name = names[id];
        char upper[64];
        assert_in_range(name.n, 1, sizeof upper);
        for (size_t i = 0; i < name.n; i++)
            upper[i] = name.p[i] >= 'a' && name.p[i] <= 'z' ? (char)(name.p[i] - 32) : name.p[i];
        assert_int_equal(field_find(name), id);
        assert_int_equal(field_find(span_of(upper, name.n)), id);
    }
}

static void test_neighbours_of_names_are_unknown(void **state)
{
    (void)state;
    for (unsigned id = FIELD_OTHER + 1; id < FIELD_COUNT; id++) {
        struct span name = names[id];
        char other[64];
        memcpy(other, name.p, name.n);
        other[name.n] = 'x';
        assert_int_equal(field_find(span_of(other, name.n + 1)), FIELD_OTHER);
        assert_int_equal(field_find(span_of(other, name.n - 1)), FIELD_OTHER);
        for (size_t i = 0; i < name.n; i++) {
            other[i] = (char)(name.p[i] ^ 1);
            assert_int_not_equal(field_find(span_of(other, name.n)), id);
            other[i] = name.p[i];
        }
    }
}

static void test_odd_names_are_unknown(void **state)
{
    (void)state;
    assert_int_equal(field_find(SPAN("")), FIELD_OTHER);
    assert_int_equal(field_find(SPAN("x-a-name-that-is-longer-than-any-known")), FIELD_OTHER);
    assert_int_equal(field_find(SPAN("H\0st")), FIELD_OTHER);
}

static void test_identity(void **state)
{
    (void)state;
    static const struct span yes[] = {
        {"X-Forwarded-For", 15}, {"x_forwarded_for", 15},
        {"x.real-ip", 9},        {"X-Proof-Anything", 16},
        {"x_proof.id", 10},      {"x-proof-", 8},
        {"forwarded", 9},        {"X-Forwarded-Tls-Client-Cert", 27},
    };
    static const struct span no[] = {
        {"x-proof", 7}, {"x-proofs", 8}, {"xx-proof-id", 11}, {"x-forwarded", 11}, {"host", 4}, {"a.b", 3},
    };
    for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++)
        assert_true(field_is_identity(field_find(yes[i]), yes[i]));
    for (size_t i = 0; i < sizeof no / sizeof no[0]; i++)
        assert_false(field_is_identity(field_find(no[i]), no[i]));
}

static void test_folded_names(void **state)
{
    (void)state;
    assert_int_equal(field_find_folded(SPAN("Content_Length")), FIELD_CONTENT_LENGTH);
    assert_int_equal(field_find_folded(SPAN("transfer.ENCODING")), FIELD_TRANSFER_ENCODING);
    assert_int_equal(field_find_folded(SPAN("te")), FIELD_TE);
    assert_int_equal(field_find_folded(SPAN("merchant_id")), FIELD_OTHER);
}

/* RFC 9110 section 5.6.2, written once more as a list. */
static void test_every_byte_of_a_name(void **state)
{
    (void)state;
    static const char token[] =
        "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for (int c = 0; c < 256; c++) {
        char name[] = {'a', (char)c, 'z'};
        bool is_token = c != 0 && strchr(token, c);
        bool is_alias = c == '_' || c == '.';
        assert_int_equal(field_name_is_token(span_of(name, 3)), is_token);
        assert_int_equal(field_name_is_alias_prone(span_of(name, 3)), is_alias);
    }
    assert_false(field_name_is_token(SPAN("")));
    assert_int_equal(field_name_kind(SPAN("a_b c")), NAME_BROKEN);
}

static void test_lists(void **state)
{
    (void)state;
    struct span rest = SPAN(" a ,, \t,b\t, c d,"), item;
    assert_true(list_next(&rest, &item));
    assert_true(span_eq(item, SPAN("a")));
    assert_true(list_next(&rest, &item));
    assert_true(span_eq(item, SPAN("b")));
    assert_true(list_next(&rest, &item));
    assert_true(span_eq(item, SPAN("c d")));
    assert_false(list_next(&rest, &item));
    assert_false(list_next(&rest, &item));
}

static void test_list_has(void **state)
{
    (void)state;
    assert_true(list_has(SPAN("keep-alive, Upgrade"), SPAN("upgrade")));
    assert_false(list_has(SPAN("keep-alive, upgraded"), SPAN("upgrade")));
    assert_false(list_has(SPAN(""), SPAN("upgrade")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_name_is_found_in_any_case),
        cmocka_unit_test(test_neighbours_of_names_are_unknown),
        cmocka_unit_test(test_odd_names_are_unknown),
        cmocka_unit_test(test_identity),
        cmocka_unit_test(test_folded_names),
        cmocka_unit_test(test_every_byte_of_a_name),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_list_has),
    };
    return cmocka_run_group_tests_name("fields", tests, NULL, NULL);
}
