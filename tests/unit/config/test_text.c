/* Characters, lines, suggestions and substitution: the small pure parts. */
#include "config/text.h"

#include "config/substitute.h"
#include "config/suggest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static void assert_line(struct span text, unsigned line, const char *expected)
{
    assert_true(span_eq(text_line(text, line), span_str(expected)));
}

static void test_lines(void **state)
{
    (void)state;
    struct span text = SPAN("one\ntwo\r\n\nfour");
    assert_line(text, 1, "one");
    assert_line(text, 2, "two");
    assert_line(text, 3, "");
    assert_line(text, 4, "four");
    assert_line(text, 5, "");
    assert_line(text, 4000000, "");
    assert_line(SPAN(""), 1, "");
}

static void test_long_text_is_cut_at_a_character(void **state)
{
    (void)state;
    char shown[TEXT_SHOWN_MAX], bytes[200];
    assert_string_equal(text_shown(SPAN("short"), shown), "short");
    assert_string_equal(text_shown(SPAN(""), shown), "");
    for (size_t i = 0; i < sizeof bytes; i += 2)
        memcpy(bytes + i, "\xc3\xbc", 2);
    text_shown(span_of(bytes, sizeof bytes), shown);
    size_t n = strlen(shown);
    assert_true(n < TEXT_SHOWN_MAX);
    assert_string_equal(shown + n - 5, "\xc3\xbc...");
}

static const char *suggest(const char *word)
{
    struct suggestion s = {.word = span_str(word)};
    static const char *const known[] = {"head", "header_count", "body", "keep_alive", "level"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        suggestion_offer(&s, known[i]);
    return s.best;
}

static void test_suggestions(void **state)
{
    (void)state;
    assert_string_equal(suggest("bdy"), "body");
    assert_string_equal(suggest("boddy"), "body");
    assert_string_equal(suggest("bpdy"), "body");
    assert_string_equal(suggest("obdy"), "body");
    assert_string_equal(suggest("Keep-Alive"), "keep_alive");
    assert_string_equal(suggest("headers"), "head");
    assert_string_equal(suggest("header_cuont"), "header_count");
    assert_string_equal(suggest("head_bytes"), "head");
    assert_null(suggest("zzz"));
    assert_null(suggest(""));
    assert_null(suggest("a_word_that_is_much_longer_than_any_key_could_ever_be"));
}

static void assert_becomes(const char *text, const char *expected)
{
    char bytes[64];
    struct outbuf o = outbuf_of(bytes, sizeof bytes);
    struct errmsg why;
    if (substitute(span_str(text), &o, &why)) fail_msg("\"%s\": %s", text, why.text);
    assert_true(span_eq(span_of(bytes, o.n), span_str(expected)));
}

static void assert_fails(const char *text, enum err expected, unsigned column)
{
    char bytes[64];
    struct outbuf o = outbuf_of(bytes, sizeof bytes);
    struct errmsg why;
    assert_int_equal(substitute(span_str(text), &o, &why), expected);
    assert_int_equal(why.column, column);
}

static void test_substitution(void **state)
{
    (void)state;
    setenv("GW_TEST", "value", 1);
    setenv("GW_EMPTY", "", 1);
    setenv("GW_NESTED", "${GW_TEST}", 1);
    unsetenv("GW_UNSET");
    assert_becomes("", "");
    assert_becomes("plain {text} }", "plain {text} }");
    assert_becomes("a${GW_TEST}b${GW_TEST}", "avaluebvalue");
    assert_becomes("${GW_UNSET:-fallback}", "fallback");
    assert_becomes("${GW_UNSET:-}", "");
    assert_becomes("${GW_UNSET:-a:-b {c}", "a:-b {c");
    assert_becomes("${GW_EMPTY}", "");
    assert_becomes("${GW_EMPTY:-fallback}", "fallback");
    assert_becomes("${GW_TEST:-fallback}", "value");
    assert_becomes("$$ $${GW_TEST}", "$ ${GW_TEST}");
    assert_becomes("${GW_NESTED}", "${GW_TEST}"); /* once, not again */
}

static void test_substitution_refuses(void **state)
{
    (void)state;
    unsetenv("GW_UNSET");
    setenv("GW_LINES", "a\nworkers: 1", 1);
    setenv("GW_LATIN", "\xe4", 1);
    assert_fails("ab${GW_UNSET}", ERR_NOT_FOUND, 3);
    assert_fails("a$b", ERR_PARSE, 2);
    assert_fails("a$", ERR_PARSE, 2);
    assert_fails("${", ERR_PARSE, 1);
    assert_fails("${}", ERR_PARSE, 1);
    assert_fails("${GW_TEST", ERR_PARSE, 1);
    assert_fails("${1A}", ERR_PARSE, 1);
    assert_fails("${A-b}", ERR_PARSE, 1);
    assert_fails("${A:b}", ERR_PARSE, 1);
    assert_fails("${A:-${B}}", ERR_PARSE, 1);
    assert_fails("${GW_LINES}", ERR_PARSE, 1);
    assert_fails("${GW_LATIN}", ERR_PARSE, 1);
}

static void test_substitution_is_bounded(void **state)
{
    (void)state;
    setenv("GW_TEST", "value", 1);
    assert_fails("${GW_TEST}${GW_TEST}${GW_TEST}${GW_TEST}${GW_TEST}${GW_TEST}${GW_TEST}${GW_TEST}"
                 "${GW_TEST}${GW_TEST}${GW_TEST}${GW_TEST}${GW_TEST}",
                 ERR_LIMIT, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_long_text_is_cut_at_a_character),
        cmocka_unit_test(test_suggestions),
        cmocka_unit_test(test_substitution),
        cmocka_unit_test(test_substitution_refuses),
        cmocka_unit_test(test_substitution_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
