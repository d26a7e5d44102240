/* UTF-8: the first and last character of each length, every malformed kind, and all code points. */
#include "base/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void decodes_the_limits_of_each_length(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        uint32_t code;
    } good[] = {{"a", 1, 'a'},
                {"\xc2\x80", 2, 0x80},
                {"\xdf\xbf", 2, 0x7ff},
                {"\xe0\xa0\x80", 3, 0x800},
                {"\xed\x9f\xbf", 3, 0xd7ff},
                {"\xee\x80\x80", 3, 0xe000},
                {"\xf0\x90\x80\x80", 4, 0x10000},
                {"\xf4\x8f\xbf\xbf", 4, 0x10ffff}};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        uint32_t code = 0;
        assert_int_equal(utf8_decode(good[i].bytes, good[i].n, &code), good[i].n);
        assert_int_equal(code, good[i].code);
        for (size_t cut = 1; cut < good[i].n; cut++)
            assert_int_equal(utf8_decode(good[i].bytes, cut, &code), 0);
    }
}

static void refuses_what_is_malformed(void **state)
{
    (void)state;
    static const char *const bad[] = {"\x80",
                                      "\xbf",
                                      "\xc0\x80",
                                      "\xc1\xbf",
                                      "\xe0\x9f\xbf",
                                      "\xed\xa0\x80",
                                      "\xf0\x8f\xbf\xbf",
                                      "\xf4\x90\x80\x80",
                                      "\xf8\x88\x80\x80",
                                      "\xff",
                                      "\xc3(",
                                      "\xe2\x82("};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        uint32_t code = 0;
        assert_int_equal(utf8_decode(bad[i], strlen(bad[i]), &code), 0);
    }
}

/* The encoder is written from the table of RFC 3629 section 3; what is not in it must be refused. */
static void agrees_with_the_table_for_every_code_point(void **state)
{
    (void)state;
    for (uint32_t code = 0x800; code <= 0x110fff; code++) {
        char text[4];
        size_t n = code < 0x10000 ? 3 : 4;
        text[0] = (char)(n == 3 ? 0xe0 | code >> 12 : 0xf0 | code >> 18);
        text[1] = (char)(0x80 | ((n == 3 ? code >> 6 : code >> 12) & 0x3f));
        text[2] = (char)(0x80 | ((n == 3 ? code : code >> 6) & 0x3f));
        text[3] = (char)(0x80 | (code & 0x3f));
        bool is_good = code <= 0x10ffff && (code < 0xd800 || code > 0xdfff);
        uint32_t got = code;
        assert_int_equal(utf8_decode(text, n, &got), is_good ? n : 0);
        assert_int_equal(got, code);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decodes_the_limits_of_each_length),
        cmocka_unit_test(refuses_what_is_malformed),
        cmocka_unit_test(agrees_with_the_table_for_every_code_point),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
