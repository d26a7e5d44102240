/* The text of one operations line: plain and quoted values, and what happens when there is too much. */
#include "base/log_line.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define LINE_START "time=2026-11-21T13:25:03.123Z level=info thread=w0 event=test"

/* Formats an `info` line with these pairs; the result is in `line`, NUL-terminated. */
#define FORMAT(...) format((const struct kv[]){__VA_ARGS__, {.kind = KV_END}})

static char line[LOG_LINE_MAX + 1];

static size_t format(const struct kv *kv)
{
    size_t n = log_line_format(line, 1795267503123, LOG_INFO, "w0", "test", kv);
    assert_in_range(n, 1, LOG_LINE_MAX);
    line[n] = '\0';
    assert_int_equal(strlen(line), n);                  /* no NUL inside */
    assert_ptr_equal(strchr(line, '\n'), line + n - 1); /* one newline, at the end */
    return n;
}

static void fields_come_in_order(void **state)
{
    (void)state;
    FORMAT(KV_STR("name", "plain"), KV_UINT("n", 3));
    assert_string_equal(line, LINE_START " name=plain n=3\n");
}

static void level_is_named(void **state)
{
    (void)state;
    static const char *const names[] = {"level=debug ", "level=info ", "level=warn ", "level=error "};
    for (enum log_level level = LOG_DEBUG; level <= LOG_ERROR; level++) {
        size_t n = log_line_format(line, 0, level, "w0", "test", (const struct kv[]){{.kind = KV_END}});
        line[n] = '\0';
        assert_non_null(strstr(line, names[level]));
    }
}

static void numbers_are_written_whole(void **state)
{
    (void)state;
    FORMAT(KV_INT("a", INT64_MIN), KV_INT("b", -1), KV_INT("c", 0), KV_UINT("d", UINT64_MAX));
    assert_string_equal(line, LINE_START " a=-9223372036854775808 b=-1 c=0 d=18446744073709551615\n");
}

static void harmless_signs_need_no_quotes(void **state)
{
    (void)state;
    FORMAT(KV_STR("a", "[2001:db8::1]:443"), KV_STR("p", "/etc/x-y_z.yaml,+@%*~"));
    assert_string_equal(line, LINE_START " a=[2001:db8::1]:443 p=/etc/x-y_z.yaml,+@%*~\n");
}

static void other_values_are_json_strings(void **state)
{
    (void)state;
    FORMAT(KV_STR("a", "two words"), KV_STR("b", "x=y"), KV_STR("c", ""), KV_STR("d", "q\"q"),
           KV_STR("e", "caf\xc3\xa9"), KV_SPAN("f", span_of("\xff\0", 2)));
    assert_string_equal(line, LINE_START " a=\"two words\" b=\"x=y\" c=\"\" d=\"q\\\"q\" e=\"caf\xc3\xa9\""
                                         " f=\"\\u00ff\\u0000\"\n");
}

static void newline_cannot_start_a_line(void **state)
{
    (void)state;
    FORMAT(KV_STR("reason", "x\ntime=2026 level=error event=FORGED\r\n\x1b[2J"));
    assert_string_equal(line,
                        LINE_START " reason=\"x\\ntime=2026 level=error event=FORGED\\r\\n\\u001b[2J\"\n");
}

static void missing_text_is_a_dash(void **state)
{
    (void)state;
    FORMAT(KV_STR("a", NULL), KV_ERR(ERR_TIMEOUT));
    assert_string_equal(line, LINE_START " a=- err=timeout\n");
}

static void long_value_is_cut(void **state)
{
    (void)state;
    char big[LOG_VALUE_MAX + 10];
    memset(big, 'v', sizeof big);
    size_t n = FORMAT(KV_SPAN("a", span_of(big, sizeof big)), KV_UINT("b", 1));
    assert_int_equal(n, strlen(LINE_START " a= b=1\n") + LOG_VALUE_MAX);
    assert_non_null(strstr(line, "v b=1\n"));
}

static void pairs_without_room_are_left_out_and_said(void **state)
{
    (void)state;
    char big[LOG_VALUE_MAX];
    memset(big, 1, sizeof big); /* six bytes each when escaped */
    FORMAT(KV_UINT("first", 1), KV_SPAN("big", span_of(big, sizeof big)), KV_UINT("last", 2));
    assert_string_equal(line, LINE_START " first=1 cut=1\n");
}

static void line_of_the_greatest_length_is_whole(void **state)
{
    (void)state;
    char big[LOG_VALUE_MAX];
    memset(big, 'v', sizeof big);
    for (size_t n = 500; n <= sizeof big; n++) {
        struct span s = span_of(big, sizeof big), last = span_of(big, n);
        FORMAT(KV_SPAN("a", s), KV_SPAN("b", s), KV_SPAN("c", s), KV_SPAN("d", last));
        bool is_cut = strstr(line, " cut=1\n") != NULL;
        assert_int_equal(is_cut, strstr(line, " d=") == NULL);
    }
}

static void level_names_are_read(void **state)
{
    (void)state;
    enum log_level level = LOG_ERROR;
    assert_true(log_level_parse(SPAN("debug"), &level));
    assert_int_equal(level, LOG_DEBUG);
    assert_true(log_level_parse(SPAN("error"), &level));
    assert_int_equal(level, LOG_ERROR);
    assert_false(log_level_parse(SPAN("Info"), &level));
    assert_false(log_level_parse(SPAN("warning"), &level));
    assert_false(log_level_parse(SPAN(""), &level));
    assert_int_equal(level, LOG_ERROR);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_come_in_order),
        cmocka_unit_test(level_is_named),
        cmocka_unit_test(numbers_are_written_whole),
        cmocka_unit_test(harmless_signs_need_no_quotes),
        cmocka_unit_test(other_values_are_json_strings),
        cmocka_unit_test(newline_cannot_start_a_line),
        cmocka_unit_test(missing_text_is_a_dash),
        cmocka_unit_test(long_value_is_cut),
        cmocka_unit_test(pairs_without_room_are_left_out_and_said),
        cmocka_unit_test(line_of_the_greatest_length_is_whole),
        cmocka_unit_test(level_names_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
