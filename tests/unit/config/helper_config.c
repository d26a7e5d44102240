#include "helper_config.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

struct config *load_good(const char *text)
{
    char *report = NULL;
    size_t n = 0;
    struct config *config = NULL;
    FILE *out = open_memstream(&report, &n);
    assert_non_null(out);
    enum err e = config_load_text("/etc/proofgw/gateway.yaml", span_str(text), &config, out);
    fclose(out);
    assert_string_equal(report, "");
    assert_int_equal(e, ERR_OK);
    free(report);
    return config;
}

char *load_bad(const char *text)
{
    char *report = NULL;
    size_t n = 0;
    struct config *config = NULL;
    FILE *out = open_memstream(&report, &n);
    assert_non_null(out);
    assert_int_equal(config_load_text("gateway.yaml", span_str(text), &config, out), ERR_PARSE);
    fclose(out);
    assert_null(config);
    return report;
}

void assert_refused(const char *text, const char *expected)
{
    char *report = load_bad(text);
    if (strstr(report, expected) == NULL) fail_msg("\"%s\" is not in the report:\n%s", expected, report);
    free(report);
}

char *read_source_file(const char *path, size_t *n)
{
    char name[4096];
    snprintf(name, sizeof name, "%s/%s", GW_SOURCE_DIR, path);
    FILE *in = fopen(name, "rb");
    if (in == NULL) fail_msg("%s cannot be read", name);
    enum { BYTES_MAX = 1 << 20 };
    char *bytes = malloc(BYTES_MAX + 1);
    assert_non_null(bytes);
    *n = fread(bytes, 1, BYTES_MAX, in);
    fclose(in);
    bytes[*n] = 0;
    return bytes;
}
