/* The append-only writer: numbers, overflow, JSON strings. */
#include "base/outbuf.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static void holds(const struct outbuf *o, const char *text)
{
    assert_false(o->overflow);
    assert_int_equal(o->n, strlen(text));
    assert_memory_equal(o->p, text, o->n);
}

static void numbers(void **state)
{
    (void)state;
    char mem[256];
    struct outbuf o = outbuf_of(mem, sizeof mem);
    outbuf_u64(&o, 0);
    outbuf_char(&o, ' ');
    outbuf_u64(&o, UINT64_MAX);
    outbuf_char(&o, ' ');
    outbuf_hex(&o, 0);
    outbuf_char(&o, ' ');
    outbuf_hex(&o, UINT64_C(0xdeadBEEF00));
    outbuf_char(&o, ' ');
    outbuf_hex(&o, UINT64_MAX);
    holds(&o, "0 18446744073709551615 0 deadbeef00 ffffffffffffffff");
}

static void numbers_of_every_length(void **state)
{
    (void)state;
    uint64_t around = 1;
    for (unsigned digits = 1; digits <= 20; digits++, around *= 10) {
        for (uint64_t v = around - 1; v <= around + 1; v++) {
            char expected[24], mem[24];
            int n = snprintf(expected, sizeof expected, "%" PRIu64, v);
            struct outbuf o = outbuf_of(mem, (size_t)n);
            outbuf_u64(&o, v);
            holds(&o, expected);
            o = outbuf_of(mem, (size_t)n - 1);
            outbuf_u64(&o, v);
            assert_true(o.overflow);
        }
    }
}

static void thousandths_have_three_digits(void **state)
{
    (void)state;
    char mem[64];
    struct outbuf o = outbuf_of(mem, sizeof mem);
    outbuf_milli(&o, 0);
    outbuf_char(&o, ' ');
    outbuf_milli(&o, 7);
    outbuf_char(&o, ' ');
    outbuf_milli(&o, 1234);
    outbuf_char(&o, ' ');
    outbuf_milli(&o, 60000);
    outbuf_char(&o, ' ');
    outbuf_milli(&o, 10980);
    holds(&o, "0.000 0.007 1.234 60.000 10.980");
}

static void memory_is_used_to_the_last_byte(void **state)
{
    (void)state;
    char mem[5] = {0, 0, 0, 0, '!'};
    struct outbuf o = outbuf_of(mem, 4);
    outbuf_str(&o, "abcd");
    holds(&o, "abcd");
    assert_int_equal(mem[4], '!');
}

static void overflow_is_remembered_and_stops_writing(void **state)
{
    (void)state;
    char mem[4];
    struct outbuf o = outbuf_of(mem, sizeof mem);
    outbuf_str(&o, "ab");
    outbuf_str(&o, "cde");
    assert_true(o.overflow);
    assert_int_equal(o.n, 2);
    outbuf_char(&o, 'f'); /* would fit */
    assert_int_equal(o.n, 2);
    outbuf_fmt(&o, "%d", 1);
    assert_int_equal(o.n, 2);
}

static void formatted_text_fits_or_overflows(void **state)
{
    (void)state;
    char mem[8];
    struct outbuf o = outbuf_of(mem, sizeof mem);
    outbuf_fmt(&o, "%s-%d", "abc", 123);
    holds(&o, "abc-123");
    struct outbuf p = outbuf_of(mem, sizeof mem);
    outbuf_fmt(&p, "%s", "12345678");
    assert_true(p.overflow);
    outbuf_char(&p, 'x'); /* would fit */
    assert_int_equal(p.n, 0);
}

static void empty_pieces_write_nothing(void **state)
{
    (void)state;
    struct outbuf o = outbuf_of(NULL, 0);
    outbuf_bytes(&o, NULL, 0);
    outbuf_str(&o, "");
    assert_false(o.overflow);
    outbuf_char(&o, 'x');
    assert_true(o.overflow);
}

static void json_is(struct span in, const char *want)
{
    char mem[512];
    struct outbuf o = outbuf_of(mem, sizeof mem);
    outbuf_json(&o, in);
    holds(&o, want);
}

static void json_plain_text(void **state)
{
    (void)state;
    json_is(SPAN(""), "\"\"");
    json_is(span_of(NULL, 0), "\"\"");
    json_is(SPAN("GET /a?b ~"), "\"GET /a?b ~\"");
}

static void json_escapes(void **state)
{
    (void)state;
    json_is(SPAN("a\"b\\c/"), "\"a\\\"b\\\\c/\"");
    json_is(SPAN("\b\f\n\r\t"), "\"\\b\\f\\n\\r\\t\"");
    json_is(span_of("\0\x01\x1b\x1f\x7f", 5), "\"\\u0000\\u0001\\u001b\\u001f\\u007f\"");
}

static void json_passes_valid_utf8(void **state)
{
    (void)state;
    json_is(SPAN("\xc2\x80 \xdf\xbf"), "\"\xc2\x80 \xdf\xbf\"");
    json_is(SPAN("\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf"),
            "\"\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf\"");
    json_is(SPAN("\xf0\x90\x80\x80\xf4\x8f\xbf\xbf"), "\"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf\"");
}

static void json_escapes_bytes_that_are_not_utf8(void **state)
{
    (void)state;
    json_is(SPAN("a\xff"), "\"a\\u00ff\"");
    json_is(SPAN("\x80"), "\"\\u0080\"");
    json_is(SPAN("\xc0\xaf"), "\"\\u00c0\\u00af\"");                       /* overlong "/" */
    json_is(SPAN("\xe0\x9f\xbf"), "\"\\u00e0\\u009f\\u00bf\"");            /* overlong */
    json_is(SPAN("\xed\xa0\x80"), "\"\\u00ed\\u00a0\\u0080\"");            /* surrogate */
    json_is(SPAN("\xf0\x8f\xbf\xbf"), "\"\\u00f0\\u008f\\u00bf\\u00bf\""); /* overlong */
    json_is(SPAN("\xf4\x90\x80\x80"), "\"\\u00f4\\u0090\\u0080\\u0080\""); /* above U+10FFFF */
    json_is(SPAN("\xf5\x80\x80\x80"), "\"\\u00f5\\u0080\\u0080\\u0080\"");
    json_is(SPAN("\xe2\x82"), "\"\\u00e2\\u0082\""); /* cut short at the end */
    json_is(SPAN("\xe2\x82x"), "\"\\u00e2\\u0082x\"");
    json_is(SPAN("\xf0\x9f\x98\""), "\"\\u00f0\\u009f\\u0098\\\"\""); /* the quote must not be eaten */
}

static void json_never_breaks_out_of_its_quotes(void **state)
{
    (void)state;
    uint64_t seed = 1;
    for (int round = 0; round < 20000; round++) {
        char in[16], mem[256];
        for (size_t i = 0; i < sizeof in; i++) {
            seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
            in[i] = (char)(seed >> 56);
        }
        struct outbuf o = outbuf_of(mem, sizeof mem);
        outbuf_json(&o, span_of(in, sizeof in));
        assert_false(o.overflow);
        for (size_t i = 1; i + 1 < o.n; i++) {
            assert_true((unsigned char)mem[i] >= 0x20);
            if (mem[i] == '\\')
                i++;
            else
                assert_int_not_equal(mem[i], '"');
        }
        assert_int_equal(mem[o.n - 1], '"');
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers),
        cmocka_unit_test(numbers_of_every_length),
        cmocka_unit_test(thousandths_have_three_digits),
        cmocka_unit_test(memory_is_used_to_the_last_byte),
        cmocka_unit_test(overflow_is_remembered_and_stops_writing),
        cmocka_unit_test(formatted_text_fits_or_overflows),
        cmocka_unit_test(empty_pieces_write_nothing),
        cmocka_unit_test(json_plain_text),
        cmocka_unit_test(json_escapes),
        cmocka_unit_test(json_passes_valid_utf8),
        cmocka_unit_test(json_escapes_bytes_that_are_not_utf8),
        cmocka_unit_test(json_never_breaks_out_of_its_quotes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
