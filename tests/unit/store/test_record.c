/* Partner records: every field at its good value and at the neighbour that is refused, the place and the text
 * of each complaint, and what is never said. */
#include "store/record.h"

#include "helper_records.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define DIGEST_A        "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8"
#define DIGEST_B        "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
#define COUNT_OF(array) (sizeof(array) / sizeof *(array))

enum { TEXT_MAX = 32768 };

#define TWO_DIGESTS   "\"" DIGEST_A "\",\"" DIGEST_B "\""
#define EIGHT_DIGESTS "[" TWO_DIGESTS "," TWO_DIGESTS "," TWO_DIGESTS "," TWO_DIGESTS

/* A good record with all fields. */
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

/* The good record with the value of `key` replaced (a key that is not in it is added), or left out (NULL). */
static const char *record_with(const char *key, const char *value)
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

static struct record_report report;

static enum err parse(const char *text, struct partner_record *out)
{
    /* A copy of exact size, so that the sanitizer sees a read beyond the end. */
    size_t n = strlen(text);
    char *copy = malloc(n + 1);
    memcpy(copy, text, n);
    report = (struct record_report){0};
    enum err e = record_parse(span_of(copy, n), 7, out, &report);
    free(copy);
    return e;
}

static void accepts(const char *text)
{
    struct partner_record record;
    if (parse(text, &record)) fail_msg("refused (%s): %s", report.faults.list[0].text, text);
    assert_int_equal(report.faults.total, 0);
    record_deinit(&record);
}

/* The text is refused for one reason, at `column`, with `words` in the message. */
static void refuses(const char *text, unsigned column, const char *words)
{
    struct partner_record record;
    if (parse(text, &record) != ERR_PARSE) fail_msg("accepted: %s", text);
    const struct errmsg *m = &report.faults.list[0];
    if (report.faults.total != 1 || m->line != 7 || m->column != column || !strstr(m->text, words))
        fail_msg("%u messages, %u:%u: %s\nexpected 7:%u: ...%s...\n%s", (unsigned)report.faults.total,
                 m->line, m->column, m->text, column, words, text);
}

static unsigned column_of(const char *text, const char *place)
{
    const char *at = strstr(text, place);
    assert_non_null(at);
    return (unsigned)(at - text) + 1;
}

/* The value is refused, at its place, by a message that starts with the name of its field. */
static void refuses_value(const char *key, const char *value)
{
    const char *text = record_with(key, value);
    refuses(text, column_of(text, key) + (unsigned)strlen(key) + 3, key);
}

static void accepts_value(const char *key, const char *value)
{
    accepts(record_with(key, value));
}

/* --- good records ----------------------------------------------------------------------------------- */

static void every_field_arrives(void **state)
{
    struct partner_record r;
    char text[CIDR_TEXT_MAX];
    (void)state;
    assert_int_equal(parse(record_with(NULL, NULL), &r), ERR_OK);
    assert_string_equal(r.partner.id, "acme-1");
    assert_string_equal(r.company, "Acme GmbH");
    assert_string_equal(r.contact, "ops@acme.example");
    assert_string_equal(r.webhook_url, "https://hooks.acme.example/proof");
    assert_string_equal(r.partner.widget_id, "0190c5b2-7a64-7000-8000-3f2a9c1d5e77");
    assert_true(r.partner.off_ramp);
    assert_false(r.partner.enabled);
    assert_true(r.partner.has_token[SLOT_CURRENT] && r.partner.has_token[SLOT_PREVIOUS]);
    assert_int_equal(r.partner.digest[SLOT_CURRENT][0], 0x5e);
    assert_int_equal(r.partner.digest[SLOT_CURRENT][31], 0xd8);
    assert_int_equal(r.partner.digest[SLOT_PREVIOUS][0], 0x2c);
    assert_int_equal(r.partner.previous_expires_ms, UINT64_C(1796040000000));
    assert_int_equal(r.partner.ncidrs[ENV_PRODUCTION], 2);
    assert_int_equal(r.partner.ncidrs[ENV_SANDBOX], 1);
    (void)cidr_format(&r.partner.cidrs[ENV_PRODUCTION][1], text);
    assert_memory_equal(text, "2001:db8:1::/48", 15);
    record_deinit(&r);
}

static void defaults_hold_for_what_is_left_out(void **state)
{
    struct partner_record r;
    (void)state;
    assert_int_equal(
        parse("{\"partner_id\":\"a\",\"company\":\"A\",\"contact\":\"a@b.example\",\"client_token_sha256\":"
              "\"" DIGEST_A "\",\"widget_id\":\"0190c5b2-7a64-7000-8000-3f2a9c1d5e77\","
              "\"production_cidrs\":[\"192.0.2.7\"]}",
              &r),
        ERR_OK);
    assert_true(r.partner.enabled);
    assert_false(r.partner.off_ramp);
    assert_false(r.partner.has_token[SLOT_PREVIOUS]);
    assert_null(r.webhook_url);
    assert_int_equal(r.partner.ncidrs[ENV_SANDBOX], 0);
    record_deinit(&r);
}

static void escapes_are_read_as_what_they_mean(void **state)
{
    struct partner_record r;
    (void)state;
    assert_int_equal(parse(record_with("company", "\"M\\u00fcller \\u0026 S\\u00f6hne\""), &r), ERR_OK);
    assert_string_equal(r.company, "M\xc3\xbcller & S\xc3\xb6hne");
    record_deinit(&r);
    accepts(
        "{\"partner\\u005fid\":\"a\",\"company\":\"A\",\"contact\":\"a@b.example\",\"client_token_sha256\":"
        "\"" DIGEST_A "\",\"widget_id\":\"0190c5b2-7a64-7000-8000-3f2a9c1d5e77\","
        "\"production_cidrs\":[\"192.0.2.\\u0037\"]}");
}

static void generated_records_are_good(void **state)
{
    char line[RECORD_LINE_MAX];
    (void)state;
    for (unsigned i = 0; i < 200; i++) {
        (void)record_line(i, 0, line);
        accepts(line);
    }
}

static void the_example_of_the_documentation_is_good(void **state)
{
    char text[TEXT_MAX];
    (void)state;
    FILE *in = fopen(GW_SOURCE_DIR "/docs/PARTNERS-FILE.md", "r");
    assert_non_null(in);
    text[fread(text, 1, sizeof text - 1, in)] = '\0';
    fclose(in);
    char *begin = strstr(text, "```json\n");
    assert_non_null(begin);
    begin += strlen("```json\n");
    char *end = strstr(begin, "```");
    assert_non_null(end);
    *end = '\0';
    accepts(begin);
}

/* --- values ----------------------------------------------------------------------------------------- */

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
        if (v->good) accepts_value(v->key, v->good);
        if (v->bad) refuses_value(v->key, v->bad);
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
    accepts_value("company", repeat("", "\xc3\xa4", 200, ""));
    refuses_value("company", repeat("", "\xc3\xa4", 201, ""));
    accepts_value("contact", repeat("", "a", 64, "@b.example"));
    refuses_value("contact", repeat("", "a", 65, "@b.example"));
    accepts_value("contact", repeat("aaaaaaaa@", "abcd.", 48, "abcde"));
    refuses_value("contact", repeat("aaaaaaaa@", "abcd.", 48, "abcdef"));
    accepts_value("webhook_url", repeat("https://h.example/", "a", 2048 - 18, ""));
    refuses_value("webhook_url", repeat("https://h.example/", "a", 2049 - 18, ""));
}

static void an_escaped_value_longer_than_any_field_is_refused(void **state)
{
    (void)state;
    accepts_value("webhook_url", repeat("https://h.example/", "\\u0061", 2048 - 18, ""));
    refuses_value("webhook_url", repeat("https://h.example/", "\\u0061", 2049 - 18, ""));
}

static void bad_prefixes_are_reported_one_by_one(void **state)
{
    struct partner_record r;
    (void)state;
    const char *text =
        record_with("production_cidrs", "[\"10.0.0.1/8\", \"192.0.2.7\", 5, \"x\", [\"192.0.2.8\"]]");
    assert_int_equal(parse(text, &r), ERR_PARSE);
    assert_int_equal(report.faults.total, 4);
    assert_int_equal(report.faults.list[0].column, column_of(text, "\"10.0.0.1/8\""));
    assert_non_null(strstr(report.faults.list[0].text, "production_cidrs: "));
    assert_non_null(strstr(report.faults.list[0].text, "10.0.0.0/8"));
    assert_int_equal(report.faults.list[1].column, column_of(text, "5, \"x\""));
    assert_int_equal(report.faults.list[2].column, column_of(text, "\"x\""));
    assert_int_equal(report.faults.list[3].column, column_of(text, "[\"192.0.2.8\"]"));
}

static void a_very_wide_prefix_is_a_warning(void **state)
{
    struct partner_record r;
    (void)state;
    const char *text = record_with("sandbox_cidrs", "[\"10.0.0.0/9\"]");
    assert_int_equal(parse(text, &r), ERR_OK);
    assert_int_equal(report.warnings.total, 1);
    assert_int_equal(report.warnings.list[0].line, 7);
    assert_int_equal(report.warnings.list[0].column, column_of(text, "\"10.0.0.0/9\""));
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
    assert_int_equal(parse(text, &r), ERR_OK);
    assert_int_equal(r.partner.ncidrs[ENV_PRODUCTION], PARTNER_CIDRS_MAX);
    record_deinit(&r);
    free(text);
    text = record_with_prefixes(PARTNER_CIDRS_MAX + 2);
    assert_int_equal(parse(text, &r), ERR_PARSE);
    assert_int_equal(report.faults.total, 1);
    assert_non_null(strstr(report.faults.list[0].text, "more than 100000 entries"));
    free(text);
}

/* --- whole records ---------------------------------------------------------------------------------- */

static void each_required_field_is_missed(void **state)
{
    static const char *const required[] = {"partner_id",          "company",   "contact",
                                           "client_token_sha256", "widget_id", "production_cidrs"};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(required); i++) {
        const char *text = record_with(required[i], NULL);
        refuses(text, 1, required[i]);
        assert_non_null(strstr(report.faults.list[0].text, "is missing"));
    }
}

static void each_optional_field_may_be_left_out(void **state)
{
    static const char *const optional[] = {"off_ramp", "webhook_url", "sandbox_cidrs", "enabled"};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(optional); i++)
        accepts(record_with(optional[i], NULL));
}

static void previous_token_and_its_expiry_come_together(void **state)
{
    (void)state;
    const char *text = record_with("previous_token_expires_at", NULL);
    refuses(text, column_of(text, "\"" DIGEST_B), "needs previous_token_expires_at");
    text = record_with("previous_token_sha256", NULL);
    refuses(text, column_of(text, "\"2026-11-30"), "needs previous_token_sha256");
}

static void previous_and_current_token_must_differ(void **state)
{
    (void)state;
    const char *text = record_with("previous_token_sha256", "\"" DIGEST_A "\"");
    refuses(text, column_of(text, "previous_token_sha256") + 24, "is the same as client_token_sha256");
}

static void an_unknown_key_is_refused_with_a_guess(void **state)
{
    (void)state;
    const char *text = record_with("widgetid", "\"x\"");
    refuses(text, column_of(text, "\"widgetid"), "unknown key \"widgetid\"; did you mean \"widget_id\"?");
    text = record_with("colour", "{\"a\":[1,2]}");
    refuses(text, column_of(text, "\"colour"), "unknown key \"colour\"; remove it");
}

static void a_repeated_key_is_refused(void **state)
{
    char text[TEXT_MAX];
    (void)state;
    int n = snprintf(text, sizeof text, "%s", record_with(NULL, NULL));
    (void)snprintf(text + n - 1, sizeof text - (size_t)n, ", \"enabl\\u0065d\": true}");
    refuses(text, column_of(text, "\"enabl\\u0065d"), "enabled is written twice");
}

static void all_faults_are_reported_at_once(void **state)
{
    struct partner_record r;
    (void)state;
    assert_int_equal(
        parse("{\"partner_id\":\"\",\"company\":7,\"contact\":\"x\",\"off_ramp\":null,\"extra\":1}", &r),
        ERR_PARSE);
    assert_int_equal(report.faults.total, 5 + 3);
}

static void messages_beyond_the_limit_are_counted(void **state)
{
    char text[TEXT_MAX] = "{";
    struct partner_record r;
    size_t n = 1;
    (void)state;
    for (unsigned i = 0; i < 2 * RECORD_MESSAGES_MAX; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "\"k%u\":%u,", i, i);
    (void)snprintf(text + n, sizeof text - n, "\"company\":\"A\"}");
    assert_int_equal(parse(text, &r), ERR_PARSE);
    assert_int_equal(report.faults.n, RECORD_MESSAGES_MAX);
    assert_int_equal(report.faults.total, 2 * RECORD_MESSAGES_MAX + 5);
}

static void what_is_no_object_is_refused(void **state)
{
    (void)state;
    refuses("[]", 1, "must be one JSON object");
    refuses("  \"x\"", 3, "must be one JSON object");
    refuses("", 1, "not valid JSON");
}

static void a_syntax_error_is_the_only_complaint(void **state)
{
    (void)state;
    refuses("{\"partner_id\":\"a\" \"company\":\"A\"}", 19, "not valid JSON: expected ',' or '}'");
    refuses("{\"company\":\"\xc3\xa4\",}", 16, "not valid JSON: expected a key");
    refuses("{\"production_cidrs\":[\"192.0.2.7\",]}", 34, "not valid JSON");
    refuses("{} {}", 4, "not valid JSON: unexpected text");
}

static void a_record_cut_anywhere_is_refused(void **state)
{
    char text[TEXT_MAX];
    (void)state;
    (void)snprintf(text, sizeof text, "%s", record_with(NULL, NULL));
    for (size_t n = strlen(text); n-- > 0;) {
        struct partner_record r;
        text[n] = '\0';
        if (parse(text, &r) != ERR_PARSE) fail_msg("accepted: %s", text);
    }
}

static void no_message_repeats_a_secret(void **state)
{
    static const char *const texts[][2] = {
        {"client_token_sha256", "\"" DIGEST_B "canary\""},
        {"canary5e884898da28047151d0e56f8dc62927", "1"},
        {"contact", "\"canary\""},
        {"webhook_url", "\"canary\""},
        {"previous_token_sha256", "\"canary\" \"canary\""},
        {"production_cidrs", "[\"canary\", \"" DIGEST_B "\"]"},
        {"sandbox_cidrs", "[\"canary.5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a1\"]"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        struct partner_record r;
        assert_int_equal(parse(record_with(texts[i][0], texts[i][1]), &r), ERR_PARSE);
        for (uint32_t m = 0; m < report.faults.n; m++) {
            assert_null(strstr(report.faults.list[m].text, "canary"));
            assert_null(strstr(report.faults.list[m].text, DIGEST_B));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_field_arrives),
        cmocka_unit_test(defaults_hold_for_what_is_left_out),
        cmocka_unit_test(escapes_are_read_as_what_they_mean),
        cmocka_unit_test(generated_records_are_good),
        cmocka_unit_test(the_example_of_the_documentation_is_good),
        cmocka_unit_test(each_value_is_checked),
        cmocka_unit_test(long_values_are_refused_at_their_limit),
        cmocka_unit_test(an_escaped_value_longer_than_any_field_is_refused),
        cmocka_unit_test(bad_prefixes_are_reported_one_by_one),
        cmocka_unit_test(a_very_wide_prefix_is_a_warning),
        cmocka_unit_test(a_list_ends_at_its_limit),
        cmocka_unit_test(each_required_field_is_missed),
        cmocka_unit_test(each_optional_field_may_be_left_out),
        cmocka_unit_test(previous_token_and_its_expiry_come_together),
        cmocka_unit_test(previous_and_current_token_must_differ),
        cmocka_unit_test(an_unknown_key_is_refused_with_a_guess),
        cmocka_unit_test(a_repeated_key_is_refused),
        cmocka_unit_test(all_faults_are_reported_at_once),
        cmocka_unit_test(messages_beyond_the_limit_are_counted),
        cmocka_unit_test(what_is_no_object_is_refused),
        cmocka_unit_test(a_syntax_error_is_the_only_complaint),
        cmocka_unit_test(a_record_cut_anywhere_is_refused),
        cmocka_unit_test(no_message_repeats_a_secret),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
