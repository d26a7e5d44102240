/* Every mistake has its message: errors/NAME.yaml is loaded and its report compared with
 * errors/NAME.expected.
 *
 * With GW_UPDATE_GOLDENS set, the .expected files are written anew instead: read the difference before
 * keeping it. */
#include "helper_config.h"
#include "support/folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <dirent.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

enum { GOLDENS_MIN = 47 };

/* The report of a file that must be refused; the caller frees it. */
static char *report_of(const char *name)
{
    char *report;
    struct config *c;
    enum err e = load_reporting(name, NULL, &c, &report);
    if (e != ERR_PARSE) fail_msg("%s: %s\n%s", name, err_text(e), report);
    return report;
}

static void write_golden(const char *name, const char *report)
{
    FILE *out = fopen(name, "w");
    assert_non_null(out);
    fputs(report, out);
    fclose(out);
}

static void check_golden(const char *yaml)
{
    char name[300], path[340];
    snprintf(name, sizeof name, "%.*s.expected", (int)(strlen(yaml) - strlen(".yaml")), yaml);
    snprintf(path, sizeof path, "tests/unit/config/errors/%s", name);
    char *report = report_of(yaml);
    if (getenv("GW_UPDATE_GOLDENS")) write_golden(name, report);
    char *expected = source_text(path);
    if (strcmp(report, expected) != 0) fail_msg("%s: expected\n%s\ngot\n%s", yaml, expected, report);
    free(expected);
    free(report);
}

static int is_yaml(const struct dirent *entry)
{
    size_t n = strlen(entry->d_name);
    return n > 5 && strcmp(entry->d_name + n - 5, ".yaml") == 0;
}

static void test_goldens(void **state)
{
    (void)state;
    unsetenv("PROOFGW_TEST_UNSET");
    unsetenv("BACKEND");
    setenv("PROOFGW_TEST_TEXT", "some text", 1);
    setenv("PROOFGW_TEST_CONTROL", "a\nb: c", 1);
    assert_int_equal(chdir(GW_SOURCE_DIR "/tests/unit/config/errors"), 0);
    struct dirent **entries;
    int n = scandir(".", &entries, is_yaml, alphasort);
    assert_true(n >= GOLDENS_MIN);
    for (int i = 0; i < n; i++) {
        check_golden(entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
}

/* The report never passes control characters on to a terminal. */
static void test_reports_are_printable(void **state)
{
    (void)state;
    static const char *const texts[] = {"\"a\\e[31m\": 1\n", "workers: \"\\x9b31m\"\n",
                                        "workers: \"\\u0085\"\n", "a\x1b[0m: 1\n"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        char *report = load_bad(texts[i]);
        for (const char *p = report; *p; p++)
            assert_true(*p == '\n' || (unsigned char)*p >= ' ');
        assert_null(strstr(report, "\xc2\x9b"));
        free(report);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goldens),
        cmocka_unit_test(test_reports_are_printable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
