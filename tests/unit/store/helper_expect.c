#include "helper_expect.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const good[][2] = {
    {"partner_id", "\"acme-1\""},
    {"company", "\"Acme GmbH\""},
    {"contact", "\"ops@acme.example\""},
    {"client_token_sha256", "\"" DIGEST_A "\""},
    {"previous_token_sha256", "\"" DIGEST_B "\""},
    {"previous_token_expires_at", "\"2026-11-30T12:00:00Z\""},
    {"widget_id", "\"0190c5b2-7a64-7000-8000-3F2A9C1D5E77\""},
    {"off_ramp", "true"},
    {"webhook_url", "\"https://hooks.acme.example/proof\""},
    {"production_cidrs", "[\"192.0.2.7\", \"2001:db8:1::/48\"]"},
    {"sandbox_cidrs", "[\"198.51.100.0/24\"]"},
    {"enabled", "false"},
};

const char *record_with(const char *key, const char *value)
{
    static char out[TEXT_MAX];
    bool is_known = false;
    int n = snprintf(out, sizeof out, "{");
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        bool is_it = key && strcmp(good[i][0], key) == 0;
        is_known |= is_it;
        if (is_it && !value) continue;
        n += snprintf(out + n, sizeof out - (size_t)n, "%s\"%s\": %s", n > 1 ? ", " : "", good[i][0],
                      is_it ? value : good[i][1]);
    }
    if (key && value && !is_known) n += snprintf(out + n, sizeof out - (size_t)n, ", \"%s\": %s", key, value);
    assert_in_range(n, 1, sizeof out - 2);
    out[n] = '}';
    out[n + 1] = '\0';
    return out;
}

struct record_report reported;

enum err expect_parse(const char *text, struct partner_record *out)
{
    /* A copy of exact size, so that the sanitizer sees a read beyond the end. */
    size_t n = strlen(text);
    char *copy = malloc(n + 1);
    memcpy(copy, text, n);
    reported = (struct record_report){0};
    enum err e = record_parse(span_of(copy, n), 7, out, &reported);
    free(copy);
    return e;
}

void expect_accepted(const char *text)
{
    struct partner_record record;
    if (expect_parse(text, &record)) fail_msg("refused (%s): %s", reported.faults.list[0].text, text);
    assert_int_equal(reported.faults.total, 0);
    record_deinit(&record);
}

void expect_value_accepted(const char *key, const char *value)
{
    expect_accepted(record_with(key, value));
}

void expect_refused(const char *text, unsigned column, const char *words)
{
    struct partner_record record;
    if (expect_parse(text, &record) != ERR_PARSE) fail_msg("accepted: %s", text);
    const struct errmsg *m = &reported.faults.list[0];
    if (reported.faults.total != 1 || m->line != 7 || m->column != column || !strstr(m->text, words))
        fail_msg("%u messages, %u:%u: %s\nexpected 7:%u: ...%s...\n%s", (unsigned)reported.faults.total,
                 m->line, m->column, m->text, column, words, text);
}

void expect_value_refused(const char *key, const char *value)
{
    const char *text = record_with(key, value);
    expect_refused(text, column_of(text, key) + (unsigned)strlen(key) + 3, key);
}

unsigned column_of(const char *text, const char *place)
{
    const char *at = strstr(text, place);
    assert_non_null(at);
    return (unsigned)(at - text) + 1;
}
