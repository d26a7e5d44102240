/* Time texts: RFC 3339 both ways, against the C library's calendar. */
#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static void writes(uint64_t wall_ms, const char *want)
{
    char out[CLOCK_RFC3339_LEN + 1];
    out[CLOCK_RFC3339_LEN] = '!';
    clock_rfc3339(wall_ms, out);
    assert_int_equal(out[CLOCK_RFC3339_LEN], '!');
    out[CLOCK_RFC3339_LEN] = '\0';
    assert_string_equal(out, want);
}

static void reads(const char *text, uint64_t want)
{
    uint64_t got = 1;
    if (clock_parse_rfc3339(span_str(text), &got)) fail_msg("refused: %s", text);
    if (got != want) fail_msg("%s: %llu", text, (unsigned long long)got);
}

static void refuses(const char *text)
{
    uint64_t got = 77;
    if (clock_parse_rfc3339(span_str(text), &got) != ERR_PARSE) fail_msg("accepted: %s", text);
    assert_true(got == 77);
}

static void known_instants(void **state)
{
    (void)state;
    writes(0, "1970-01-01T00:00:00.000Z");
    writes(951782400000, "2000-02-29T00:00:00.000Z");
    writes(1795267503123, "2026-11-21T13:25:03.123Z");
    writes(4107542399999, "2100-02-28T23:59:59.999Z");
    writes(4107542400000, "2100-03-01T00:00:00.000Z");
    writes(253402300799999, "9999-12-31T23:59:59.999Z");
    writes(UINT64_MAX, "9999-12-31T23:59:59.999Z");
}

static void milliseconds_change_within_a_second(void **state)
{
    (void)state;
    writes(1795267503000, "2026-11-21T13:25:03.000Z");
    writes(1795267503999, "2026-11-21T13:25:03.999Z");
    writes(1795267504000, "2026-11-21T13:25:04.000Z");
    writes(1795267503001, "2026-11-21T13:25:03.001Z"); /* clocks also step back */
}

static void every_day_agrees_with_the_c_library(void **state)
{
    (void)state;
    for (int64_t day = 0; day <= 2932896; day += day < 60000 ? 1 : 97) { /* to the end of 9999 */
        time_t t = (time_t)(day * 86400 + day % 86400);
        struct tm tm;
        char want[64];
        assert_non_null(gmtime_r(&t, &tm));
        (void)snprintf(want, sizeof want, "%04d-%02d-%02dT%02d:%02d:%02d.007Z", tm.tm_year + 1900,
                       tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
        writes((uint64_t)t * 1000 + 7, want);
        reads(want, (uint64_t)t * 1000 + 7);
    }
}

static void fractions_are_cut_to_milliseconds(void **state)
{
    (void)state;
    reads("1970-01-01T00:00:00Z", 0);
    reads("1970-01-01T00:00:00.1Z", 100);
    reads("1970-01-01T00:00:00.12Z", 120);
    reads("1970-01-01T00:00:00.123Z", 123);
    reads("1970-01-01T00:00:00.1239999999999999999999Z", 123);
    refuses("1970-01-01T00:00:00.Z");
    refuses("1970-01-01T00:00:00,5Z");
    refuses("1970-01-01T00:00:00.5");
}

static void offsets_are_taken_off(void **state)
{
    (void)state;
    reads("2026-11-21T13:25:03+00:00", 1795267503000);
    reads("2026-11-21T13:25:03-00:00", 1795267503000);
    reads("2026-11-21T15:25:03+02:00", 1795267503000);
    reads("2026-11-21T07:55:03-05:30", 1795267503000);
    reads("2026-11-22T13:24:03+23:59", 1795267503000);
    refuses("2026-11-21T13:25:03+24:00");
    refuses("2026-11-21T13:25:03+01:60");
    refuses("2026-11-21T13:25:03+0100");
    refuses("2026-11-21T13:25:03+01");
    refuses("2026-11-21T13:25:03 +01:00");
    refuses("2026-11-21T13:25:03");
}

static void lower_case_letters_are_in_the_grammar(void **state)
{
    (void)state;
    reads("2026-11-21t13:25:03z", 1795267503000);
}

static void impossible_dates(void **state)
{
    (void)state;
    refuses("2026-00-10T00:00:00Z");
    refuses("2026-13-10T00:00:00Z");
    refuses("2026-01-00T00:00:00Z");
    refuses("2026-01-32T00:00:00Z");
    refuses("2026-04-31T00:00:00Z");
    refuses("2026-02-29T00:00:00Z");
    refuses("2100-02-29T00:00:00Z");
    reads("2000-02-29T00:00:00Z", 951782400000);
    reads("2024-02-29T00:00:00Z", 1709164800000);
}

static void impossible_times(void **state)
{
    (void)state;
    refuses("2026-11-21T24:00:00Z");
    refuses("2026-11-21T23:60:00Z");
    refuses("2016-12-31T23:59:60Z"); /* a real leap second; has no place in Unix time */
}

static void instants_outside_the_range(void **state)
{
    (void)state;
    refuses("1969-12-31T23:59:59Z");
    refuses("1970-01-01T00:59:59+01:00");
    reads("1970-01-01T01:00:00+01:00", 0);
    reads("9999-12-31T23:59:59.999Z", 253402300799999);
    refuses("9999-12-31T23:59:59-00:01");
    refuses("10000-01-01T00:00:00Z");
    refuses("0000-01-01T00:00:00Z");
}

static void other_texts(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "2026",
        "2026-11-21",
        "2026-11-21 13:25:03Z",
        "2026-11-21T13:25Z",
        "2026-1-21T13:25:03Z",
        "26-11-21T13:25:03Z",
        "2026-11-21T13:25:03ZZ",
        " 2026-11-21T13:25:03Z",
        "2026-11-21T13:25:03Z\n",
        "2026/11/21T13:25:03Z",
        "+026-11-21T13:25:03Z",
        "2026-11-21T-1:25:03Z",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        refuses(bad[i]);
    uint64_t got = 77;
    assert_int_equal(clock_parse_rfc3339(SPAN("2026-11-21T13:25:03Z\0"), &got), ERR_PARSE);
}

static void every_cut_of_a_text_is_refused(void **state)
{
    (void)state;
    static const char text[] = "2026-11-21T13:25:03.123+01:00";
    uint64_t got;
    for (size_t n = 0; n < sizeof text - 1; n++)
        assert_int_equal(clock_parse_rfc3339(span_of(text, n), &got), ERR_PARSE);
    assert_int_equal(clock_parse_rfc3339(span_str(text), &got), ERR_OK);
}

static void clocks_move_forward(void **state)
{
    (void)state;
    uint64_t before = clock_mono_us();
    assert_true(clock_mono_us() >= before);
    assert_true(clock_wall_ms() > 1700000000000); /* 2023: milliseconds, not seconds */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_instants),
        cmocka_unit_test(milliseconds_change_within_a_second),
        cmocka_unit_test(every_day_agrees_with_the_c_library),
        cmocka_unit_test(fractions_are_cut_to_milliseconds),
        cmocka_unit_test(offsets_are_taken_off),
        cmocka_unit_test(lower_case_letters_are_in_the_grammar),
        cmocka_unit_test(impossible_dates),
        cmocka_unit_test(impossible_times),
        cmocka_unit_test(instants_outside_the_range),
        cmocka_unit_test(other_texts),
        cmocka_unit_test(every_cut_of_a_text_is_refused),
        cmocka_unit_test(clocks_move_forward),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
