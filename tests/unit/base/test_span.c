/* Borrowed byte runs: comparison, trimming, numbers, copies. */
#include "base/span.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static void equality_looks_at_length_and_bytes(void **state)
{
    (void)state;
    assert_true(span_eq(SPAN("abc"), SPAN("abc")));
    assert_false(span_eq(SPAN("abc"), SPAN("abd")));
    assert_false(span_eq(SPAN("abc"), SPAN("ab")));
    assert_true(span_eq(SPAN(""), span_of(NULL, 0)));
    assert_false(span_eq(SPAN("a\0b"), SPAN("a\0c")));
}

static void case_is_ignored_for_ascii_letters_only(void **state)
{
    (void)state;
    assert_true(span_ieq(SPAN("Content-LENGTH"), SPAN("content-length")));
    assert_false(span_ieq(SPAN("content-length"), SPAN("content-lengt")));
    assert_false(span_ieq(SPAN("["), SPAN("{")));            /* 0x5b, 0x7b differ by the case bit only */
    assert_false(span_ieq(SPAN("@"), SPAN("`")));            /* 0x40, 0x60 */
    assert_false(span_ieq(SPAN("\xc4"), SPAN("\xe4")));      /* Latin-1 A and a umlaut */
    assert_false(span_ieq(SPAN("\xe2\x84\xaa"), SPAN("k"))); /* Kelvin sign */
}

/* Eight bytes are compared at once: each byte value at each place of each length against the plain way. */
static void case_is_ignored_at_every_place(void **state)
{
    (void)state;
    for (size_t n = 1; n <= 25; n++) {
        for (size_t i = 0; i < n; i++) {
            for (unsigned x = 0; x <= UINT8_MAX; x++) {
                char a[25], b[25];
                memset(a, 'Q', sizeof a);
                memset(b, 'q', sizeof b);
                for (unsigned y = 0; y <= UINT8_MAX; y++) {
                    a[i] = (char)x;
                    b[i] = (char)y;
                    bool same = ascii_lower(a[i]) == ascii_lower(b[i]);
                    if (span_ieq(span_of(a, n), span_of(b, n)) != same) fail();
                }
            }
        }
    }
}

static void bytes_become_two_lower_case_digits_each(void **state)
{
    (void)state;
    for (unsigned byte = 0; byte <= UINT8_MAX; byte++) {
        const uint8_t bytes[] = {(uint8_t)byte, 0x5a};
        char out[] = "XXXXX", want[sizeof out];
        ascii_hex_write(out, bytes, sizeof bytes);
        (void)snprintf(want, sizeof want, "%02x5aX", byte);
        assert_string_equal(out, want);
    }
}

static void only_hexadecimal_digits_have_a_value(void **state)
{
    (void)state;
    static const char digits[] = "0123456789abcdef", capitals[] = "ABCDEF";
    for (int c = 0; c <= UINT8_MAX; c++) {
        const char *small = memchr(digits, c, 16), *capital = memchr(capitals, c, 6);
        int value = small ? (int)(small - digits) : capital ? (int)(capital - capitals) + 10 : -1;
        assert_int_equal(ascii_hex_value((char)c), value);
    }
}

static void prefix_must_fit(void **state)
{
    (void)state;
    assert_true(span_starts(SPAN("/widget/x"), SPAN("/widget/")));
    assert_false(span_starts(SPAN("/widget"), SPAN("/widget/")));
    assert_true(span_starts(SPAN(""), SPAN("")));
    assert_true(span_starts(span_of(NULL, 0), span_of(NULL, 0)));
}

static void trim_takes_spaces_and_tabs_only(void **state)
{
    (void)state;
    assert_true(span_eq(span_trim(SPAN(" \ta b\t ")), SPAN("a b")));
    assert_true(span_eq(span_trim(SPAN(" \t ")), SPAN("")));
    assert_true(span_eq(span_trim(SPAN("\na\r")), SPAN("\na\r")));
    assert_true(span_eq(span_trim(SPAN("\va")), SPAN("\va")));
}

static void number_of_digits_decides(void **state)
{
    (void)state;
    uint64_t v = 7;
    assert_true(span_to_u64(SPAN("0"), &v));
    assert_true(v == 0);
    assert_true(span_to_u64(SPAN("9999999999999999999"), &v));
    assert_true(v == UINT64_C(9999999999999999999));
    assert_true(span_to_u64(SPAN("007"), &v));
    assert_true(v == 7);
    assert_false(span_to_u64(SPAN("10000000000000000000"), &v)); /* 20 digits */
    assert_false(span_to_u64(SPAN(""), &v));
    assert_true(v == 7);
}

static void numbers_hold_digits_only(void **state)
{
    (void)state;
    static const char *const bad[] = {"+1", "-1", " 1", "1 ", "1,000", "0x1", "1e3", "\xd9\xa1", "/", ":"};
    uint64_t v = 7;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(span_to_u64(span_str(bad[i]), &v));
    assert_false(span_to_u64(span_of("1\0", 2), &v));
    assert_true(v == 7);
}

static void copy_needs_room_for_the_nul(void **state)
{
    (void)state;
    char out[4] = "old";
    assert_true(span_to_cstr(SPAN("abc"), out, sizeof out));
    assert_string_equal(out, "abc");
    assert_false(span_to_cstr(SPAN("abcd"), out, sizeof out));
    assert_string_equal(out, "");
    assert_true(span_to_cstr(span_of(NULL, 0), out, 1));
    assert_string_equal(out, "");
    assert_false(span_to_cstr(SPAN(""), out, 0));
}

static void copy_refuses_an_embedded_nul(void **state)
{
    (void)state;
    char out[8] = "old";
    assert_false(span_to_cstr(span_of("a\0b", 3), out, sizeof out));
    assert_string_equal(out, "");
}

static void secrets_differ_at_any_byte(void **state)
{
    (void)state;
    char a[35], b[35];
    for (size_t n = 0; n <= sizeof a; n++) {
        memset(a, 'x', sizeof a);
        memset(b, 'x', sizeof b);
        assert_true(bytes_equal_secret(a, b, n));
        for (size_t i = 0; i < sizeof a; i++) {
            b[i] = 'y';
            assert_int_equal(bytes_equal_secret(a, b, n), i >= n);
            b[i] = 'x';
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equality_looks_at_length_and_bytes),
        cmocka_unit_test(case_is_ignored_for_ascii_letters_only),
        cmocka_unit_test(case_is_ignored_at_every_place),
        cmocka_unit_test(only_hexadecimal_digits_have_a_value),
        cmocka_unit_test(bytes_become_two_lower_case_digits_each),
        cmocka_unit_test(prefix_must_fit),
        cmocka_unit_test(trim_takes_spaces_and_tabs_only),
        cmocka_unit_test(number_of_digits_decides),
        cmocka_unit_test(numbers_hold_digits_only),
        cmocka_unit_test(copy_needs_room_for_the_nul),
        cmocka_unit_test(copy_refuses_an_embedded_nul),
        cmocka_unit_test(secrets_differ_at_any_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
