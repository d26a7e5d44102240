#include "helper_config.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

enum err load_reporting(const char *path, const char *text, struct config **out, char **report)
{
    size_t n = 0;
    *report = NULL;
    *out = NULL;
    FILE *to = open_memstream(report, &n);
    assert_non_null(to);
    enum err e = text ? config_load_text(path, span_str(text), out, to) : config_load(path, out, to);
    fclose(to);
    return e;
}

struct config *load_good(const char *text)
{
    char *report;
    struct config *config;
    enum err e = load_reporting("/etc/proofgw/gateway.yaml", text, &config, &report);
    assert_string_equal(report, "");
    assert_int_equal(e, ERR_OK);
    free(report);
    return config;
}

char *load_bad(const char *text)
{
    char *report;
    struct config *config;
    assert_int_equal(load_reporting("gateway.yaml", text, &config, &report), ERR_PARSE);
    assert_null(config);
    return report;
}

void assert_refused(const char *text, const char *expected)
{
    char *report = load_bad(text);
    if (strstr(report, expected) == NULL) fail_msg("\"%s\" is not in the report:\n%s", expected, report);
    free(report);
}
