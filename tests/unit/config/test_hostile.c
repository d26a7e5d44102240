/* Files that nobody writes: junk, cut-off files, bombs. They end in errors, soon, and never in a crash. */
#include "helper_config.h"

#include "config/document.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static FILE *nowhere;

static enum err load(struct span text)
{
    struct config *c = NULL;
    enum err e = config_load_text("g.yaml", text, &c, nowhere);
    config_unref(c);
    return e;
}

static void test_every_prefix_of_a_good_file(void **state)
{
    (void)state;
    struct span text =
        SPAN(CONFIG_REQUIRED "limits:\n  head: 4KiB\nlogs: {level: 'debug', access: \"a\\n\"}\n");
    for (size_t n = 0; n < text.n; n++) {
        enum err e = load(span_of(text.p, n));
        assert_true(e == ERR_OK || e == ERR_PARSE);
    }
}

static void test_every_byte_replaced(void **state)
{
    (void)state;
    static const char bytes[] = {0,   '\t', '\n', '"', '\'', '[', ']', '{',    '}',
                                 ':', '-',  '#',  '&', '*',  '!', '|', '\x80', '\xff'};
    char text[] = CONFIG_REQUIRED;
    for (size_t i = 0; i < sizeof text - 1; i++) {
        char kept = text[i];
        for (size_t j = 0; j < sizeof bytes; j++) {
            text[i] = bytes[j];
            enum err e = load(span_of(text, sizeof text - 1));
            assert_true(e == ERR_OK || e == ERR_PARSE);
        }
        text[i] = kept;
    }
}

/* A file of `n` bytes that repeats `unit` must be refused. */
static void refuse_repeated(const char *head, const char *unit, size_t n)
{
    char *text = malloc(n);
    assert_non_null(text);
    size_t head_n = strlen(head), unit_n = strlen(unit);
    memcpy(text, head, head_n);
    for (size_t i = head_n; i < n; i++)
        text[i] = unit[(i - head_n) % unit_n];
    assert_int_equal(load(span_of(text, n)), ERR_PARSE);
    free(text);
}

static void test_large_files(void **state)
{
    (void)state;
    enum { LARGE = DOCUMENT_BYTES_MAX };
    refuse_repeated("", "[", LARGE);
    refuse_repeated("", "{a: ", LARGE);
    refuse_repeated("", "- ", LARGE);
    refuse_repeated("", "? ", LARGE);
    refuse_repeated("a: [", "1, ", LARGE);
    refuse_repeated("", "a: 1\n", LARGE);
    refuse_repeated("a: \"", "x", LARGE);
    refuse_repeated("", "\xff\n", LARGE);
    refuse_repeated("workers: ", "9", LARGE);
    refuse_repeated("", "\n", LARGE);
    refuse_repeated("", "#", LARGE + 1);
}

static void test_junk(void **state)
{
    (void)state;
    char text[512];
    srand(20251121);
    for (unsigned round = 0; round < 2000; round++) {
        for (size_t i = 0; i < sizeof text; i++)
            text[i] = (char)rand();
        assert_int_equal(load(span_of(text, sizeof text)), ERR_PARSE);
    }
}

static void test_a_value_of_the_largest_length(void **state)
{
    (void)state;
    char text[5000];
    size_t n = (size_t)snprintf(text, sizeof text, CONFIG_REQUIRED "logs: {access: /%4095d}\n", 1);
    for (size_t i = 0; i < n; i++)
        if (text[i] == ' ' && i > strlen(CONFIG_REQUIRED) + 16) text[i] = 'a';
    assert_int_equal(load(span_of(text, n)), ERR_OK);
    n = (size_t)snprintf(text, sizeof text, CONFIG_REQUIRED "logs: {access: /%04096d}\n", 1);
    assert_int_equal(load(span_of(text, n)), ERR_PARSE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_prefix_of_a_good_file),
        cmocka_unit_test(test_every_byte_replaced),
        cmocka_unit_test(test_large_files),
        cmocka_unit_test(test_junk),
        cmocka_unit_test(test_a_value_of_the_largest_length),
    };
    nowhere = fopen("/dev/null", "w");
    if (nowhere == NULL) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    fclose(nowhere);
    return failed;
}
