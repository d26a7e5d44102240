/* Scalars: what each type accepts, and the neighbours it refuses. */
#include "config/value.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

typedef enum err (*number_fn)(struct span text, uint64_t *out, struct errmsg *why);

struct number_case {
    const char *text;
    uint64_t value;
};

static void check_good(number_fn parse, const struct number_case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t value = 0;
        struct errmsg why;
        if (parse(span_str(cases[i].text), &value, &why)) fail_msg("\"%s\" was refused", cases[i].text);
        assert_int_equal(value, cases[i].value);
    }
}

static void check_bad(number_fn parse, const char *const *texts, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t value = 77;
        struct errmsg why = {0};
        if (parse(span_str(texts[i]), &value, &why) != ERR_PARSE) fail_msg("\"%s\" was accepted", texts[i]);
        assert_int_equal(value, 77);
        assert_true(why.text[0] != 0);
    }
}

static void test_sizes(void **state)
{
    (void)state;
    static const struct number_case good[] = {
        {"0", 0},
        {"1", 1},
        {"4096", 4096},
        {"010", 10},
        {"64KiB", 65536},
        {"10MiB", 10485760},
        {"1GiB", 1ULL << 30},
        {"0KiB", 0},
        {"17179869183GiB", 17179869183ULL << 30},
    };
    static const char *const bad[] = {"",
                                      "KiB",
                                      "-1",
                                      "+1",
                                      " 1",
                                      "1 ",
                                      "1 KiB",
                                      "1kib",
                                      "1KB",
                                      "1k",
                                      "1B",
                                      "1.5MiB",
                                      "0x1",
                                      "1e3",
                                      "17179869184GiB",
                                      "1TiB",
                                      "1KiBx",
                                      "1_000",
                                      "99999999999999999999"};
    check_good(value_size, good, sizeof good / sizeof good[0]);
    check_bad(value_size, bad, sizeof bad / sizeof bad[0]);
}

static void test_durations(void **state)
{
    (void)state;
    static const struct number_case good[] = {{"250ms", 250},  {"30s", 30000},   {"5m", 300000},
                                              {"2h", 7200000}, {"1d", 86400000}, {"0s", 0}};
    static const char *const bad[] = {"",    "30",   "s",     "30 s", "30S",  "1h30m",
                                      "-1s", "1.5s", "30sec", "1w",   "1min", "9999999999999999d"};
    check_good(value_duration, good, sizeof good / sizeof good[0]);
    check_bad(value_duration, bad, sizeof bad / sizeof bad[0]);
}

static void test_counts(void **state)
{
    (void)state;
    static const struct number_case good[] = {{"0", 0}, {"256", 256}, {"00012", 12}};
    static const char *const bad[] = {"", "-1", "+1", "1.0", "1e3", "0x10", "1KiB", "one", "1,000"};
    check_good(value_count, good, sizeof good / sizeof good[0]);
    check_bad(value_count, bad, sizeof bad / sizeof bad[0]);
}

static void test_booleans_are_two_words(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "True", "TRUE", "yes", "no", "on", "off", "1", "0", "truee", "tru"};
    struct errmsg why;
    bool value = false;
    assert_int_equal(value_bool(SPAN("true"), &value, &why), ERR_OK);
    assert_true(value);
    assert_int_equal(value_bool(SPAN("false"), &value, &why), ERR_OK);
    assert_false(value);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(value_bool(span_str(bad[i]), &value, &why), ERR_PARSE);
}

static void test_shortest_exact_text(void **state)
{
    (void)state;
    char text[VALUE_TEXT_MAX];
    assert_string_equal(value_size_text(0, text), "0");
    assert_string_equal(value_size_text(1023, text), "1023");
    assert_string_equal(value_size_text(1024, text), "1KiB");
    assert_string_equal(value_size_text(1536, text), "1536");
    assert_string_equal(value_size_text(3 << 20, text), "3MiB");
    assert_string_equal(value_duration_text(0, text), "0s");
    assert_string_equal(value_duration_text(1500, text), "1500ms");
    assert_string_equal(value_duration_text(75000, text), "75s");
    assert_string_equal(value_duration_text(60000, text), "1m");
    assert_string_equal(value_duration_text(86400000, text), "1d");
}

static void test_texts_parse_back(void **state)
{
    (void)state;
    char text[VALUE_TEXT_MAX];
    struct errmsg why;
    for (uint64_t v = 1; v < UINT64_MAX / 7; v *= 3) {
        uint64_t bytes = 0, ms = 0;
        assert_int_equal(value_size(span_str(value_size_text(v, text)), &bytes, &why), ERR_OK);
        assert_int_equal(value_duration(span_str(value_duration_text(v, text)), &ms, &why), ERR_OK);
        assert_int_equal(bytes, v);
        assert_int_equal(ms, v);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_durations),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_booleans_are_two_words),
        cmocka_unit_test(test_shortest_exact_text),
        cmocka_unit_test(test_texts_parse_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
