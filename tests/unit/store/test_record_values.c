/* Partner records: every field at its good value and at the neighbour that is refused. */
#include "helper_expect.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct value_case {
    const char *key;
    const char *good, *bad; /* NULL: only the other */
};

static const struct value_case value_cases[] = {
    {"partner_id", "\"A.b_c-9\"", "\"a b\""},
    {"partner_id", "\"a\"", "\"\""},
    {"partner_id", "\"1234567890123456789012345678901234567890123456789012345678901234\"",
     "\"12345678901234567890123456789012345678901234567890123456789012345\""},
    {"partner_id", NULL, "\"a/b\""},
    {"partner_id", NULL, "\"\xc3\xa4\""},
    {"partner_id", NULL, "17"},
    {"company", "\"\xe6\xa0\xaa\xe5\xbc\x8f\"", "\"\""},
    {"company", "\"A \\\"B\\\"\"", "\"   \""},
    {"company", "\"\xc2\xa0-\"", "\"a\xc2\x85\""},
    {"company", NULL, "\"a\\u0007\""},
    {"company", NULL, "\"a\x7f\""},
    {"company", NULL, "null"},
    {"contact", "\"first.last+proof@mail.example.com\"", "\"first.last\""},
    {"contact", "\"o'neil@x.io\"", "\"a@b@c.example\""},
    {"contact", NULL, "\"@acme.example\""},
    {"contact", NULL, "\"ops@\""},
    {"contact", NULL, "\"ops@localhost\""},
    {"contact", NULL, "\"ops@acme..example\""},
    {"contact", NULL, "\"ops@-acme.example\""},
    {"contact", NULL, "\".ops@acme.example\""},
    {"contact", NULL, "\"o ps@acme.example\""},
    {"contact", NULL, "\"<ops@acme.example>\""},
    {"contact", NULL, "\"a@acme.example, b@acme.example\""},
    {"client_token_sha256", NULL, "\"5E884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8\""},
    {"client_token_sha256", NULL, "\"5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d\""},
    {"client_token_sha256", NULL, "\"5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8a\""},
    {"client_token_sha256", NULL, "\"5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542dg\""},
    {"client_token_sha256", NULL, "true"},
    {"previous_token_sha256", NULL, "\"\""},
    {"previous_token_expires_at", "\"2026-11-30T12:00:00.5+01:00\"", "\"2026-11-30T12:00:00\""},
    {"previous_token_expires_at", "\"2028-02-29T00:00:00Z\"", "\"2027-02-29T00:00:00Z\""},
    {"previous_token_expires_at", NULL, "1796040000"},
    {"widget_id", "\"FFFFFFFF-0000-0000-0000-000000000000\"", "\"0190c5b27a6470008000-3f2a9c1d5e77-000\""},
    {"widget_id", NULL, "\"0190c5b2-7a64-7000-8000-3f2a9c1d5e7\""},
    {"widget_id", NULL, "\"0190c5b2-7a64-7000-8000-3f2a9c1d5e7g\""},
    {"off_ramp", "false", "\"false\""},
    {"off_ramp", NULL, "0"},
    {"webhook_url", "\"https://h.example\"", "\"http://h.example\""},
    {"webhook_url", "\"HTTPS://h.example:8443/a?b=c%20d\"", "\"https://\""},
    {"webhook_url", "\"https://[2001:db8::1]:443/\"", "\"https://[2001:db8::1\""},
    {"webhook_url", "\"https://192.0.2.1?x\"", "\"https://user@h.example/\""},
    {"webhook_url", "\"https://h.example:65535\"", "\"https://h.example:65536\""},
    {"webhook_url", "\"https://h.example:1/@\"", "\"https://h.example:0/\""},
    {"webhook_url", NULL, "\"https://user:pw@h.example/\""},
    {"webhook_url", NULL, "\"https:///path\""},
    {"webhook_url", NULL, "\"https://h.example:/\""},
    {"webhook_url", NULL, "\"https://[192.0.2.1]/\""},
    {"webhook_url", NULL, "\"https://[::1]x/\""},
    {"webhook_url", NULL, "\"https://h.example/#part\""},
    {"webhook_url", NULL, "\"https://h.example/a b\""},
    {"webhook_url", NULL, "\"https://h.example\\\\@evil.example/\""},
    {"webhook_url", NULL, "\"\""},
    {"webhook_url", NULL, "null"},
    {"production_cidrs", "[\"192.0.2.7\"]", "[]"},
    {"production_cidrs", NULL, "\"192.0.2.7\""},
    {"production_cidrs", NULL, "{\"0\":\"192.0.2.7\"}"},
    {"sandbox_cidrs", "[]", "null"},
    {"client_certificate_sha256", "[]", "null"},
    {"client_certificate_sha256", "[" TWO_DIGESTS "]", "\"" DIGEST_A "\""},
    {"client_certificate_sha256", NULL, "[\"none\"]"},
    {"client_certificate_sha256", NULL, "[[]]"},
    {"client_certificate_sha256", EIGHT_DIGESTS "]", EIGHT_DIGESTS ",\"" DIGEST_A "\"]"},
    {"enabled", "true", "1"},
};

static void each_value_is_checked(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(value_cases); i++) {
        const struct value_case *v = &value_cases[i];
        if (v->good) expect_value_accepted(v->key, v->good);
        if (v->bad) expect_value_refused(v->key, v->bad);
    }
}

/* A string of `n` times `unit`, between `before` and `after`. */
static const char *repeat(const char *before, const char *unit, size_t n, const char *after)
{
    static char out[TEXT_MAX / 2];
    size_t used = (size_t)snprintf(out, sizeof out, "\"%s", before);
    for (size_t i = 0; i < n; i++)
        used += (size_t)snprintf(out + used, sizeof out - used, "%s", unit);
    assert_true(used + strlen(after) + 2 < sizeof out);
    (void)snprintf(out + used, sizeof out - used, "%s\"", after);
    return out;
}

static void long_values_are_refused_at_their_limit(void **state)
{
    (void)state;
    expect_value_accepted("company", repeat("", "\xc3\xa4", 200, ""));
    expect_value_refused("company", repeat("", "\xc3\xa4", 201, ""));
    expect_value_accepted("contact", repeat("", "a", 64, "@b.example"));
    expect_value_refused("contact", repeat("", "a", 65, "@b.example"));
    expect_value_accepted("contact", repeat("aaaaaaaa@", "abcd.", 48, "abcde"));
    expect_value_refused("contact", repeat("aaaaaaaa@", "abcd.", 48, "abcdef"));
    expect_value_accepted("webhook_url", repeat("https://h.example/", "a", 2048 - 18, ""));
    expect_value_refused("webhook_url", repeat("https://h.example/", "a", 2049 - 18, ""));
}

static void an_escaped_value_longer_than_any_field_is_refused(void **state)
{
    (void)state;
    expect_value_accepted("webhook_url", repeat("https://h.example/", "\\u0061", 2048 - 18, ""));
    expect_value_refused("webhook_url", repeat("https://h.example/", "\\u0061", 2049 - 18, ""));
}

static void bad_prefixes_are_reported_one_by_one(void **state)
{
    struct partner_record r;
    (void)state;
    const char *text =
        record_with("production_cidrs", "[\"10.0.0.1/8\", \"192.0.2.7\", 5, \"x\", [\"192.0.2.8\"]]");
    assert_int_equal(expect_parse(text, &r), ERR_PARSE);
    assert_int_equal(reported.faults.total, 4);
    assert_int_equal(reported.faults.list[0].column, column_of(text, "\"10.0.0.1/8\""));
    assert_non_null(strstr(reported.faults.list[0].text, "production_cidrs: "));
    assert_non_null(strstr(reported.faults.list[0].text, "10.0.0.0/8"));
    assert_int_equal(reported.faults.list[1].column, column_of(text, "5, \"x\""));
    assert_int_equal(reported.faults.list[2].column, column_of(text, "\"x\""));
    assert_int_equal(reported.faults.list[3].column, column_of(text, "[\"192.0.2.8\"]"));
}

static void a_very_wide_prefix_is_a_warning(void **state)
{
    struct partner_record r;
    (void)state;
    const char *text = record_with("sandbox_cidrs", "[\"10.0.0.0/9\"]");
    assert_int_equal(expect_parse(text, &r), ERR_OK);
    assert_int_equal(reported.warnings.total, 1);
    assert_int_equal(reported.warnings.list[0].line, 7);
    assert_int_equal(reported.warnings.list[0].column, column_of(text, "\"10.0.0.0/9\""));
    record_deinit(&r);
}

/* A record whose production list has `n` entries. */
static char *record_with_prefixes(unsigned n)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    const char *base = record_with("production_cidrs", NULL);
    fprintf(out, "%.*s, \"production_cidrs\": [", (int)strlen(base) - 1, base);
    for (unsigned i = 0; i < n; i++)
        fprintf(out, "%s\"192.%u.%u.%u\"", i ? "," : "", i >> 16 & 255, i >> 8 & 255, i & 255);
    fputs("]}", out);
    fclose(out);
    return text;
}

static void a_list_ends_at_its_limit(void **state)
{
    struct partner_record r;
    (void)state;
    char *text = record_with_prefixes(PARTNER_CIDRS_MAX);
    assert_int_equal(expect_parse(text, &r), ERR_OK);
    assert_int_equal(r.partner.ncidrs[ENV_PRODUCTION], PARTNER_CIDRS_MAX);
    record_deinit(&r);
    free(text);
    text = record_with_prefixes(PARTNER_CIDRS_MAX + 2);
    assert_int_equal(expect_parse(text, &r), ERR_PARSE);
    assert_int_equal(reported.faults.total, 1);
    assert_non_null(strstr(reported.faults.list[0].text, "more than 100000 entries"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_value_is_checked),
        cmocka_unit_test(long_values_are_refused_at_their_limit),
        cmocka_unit_test(an_escaped_value_longer_than_any_field_is_refused),
        cmocka_unit_test(bad_prefixes_are_reported_one_by_one),
        cmocka_unit_test(a_very_wide_prefix_is_a_warning),
        cmocka_unit_test(a_list_ends_at_its_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
