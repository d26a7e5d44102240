/* Partner records: every field at its good value and at the neighbour that is refused, the place and the text
 * of each complaint, and what is never said. The values of each field: test_record_values.c. */
#include "helper_expect.h"
#include "helper_records.h"
#include "support/folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* --- good records ----------------------------------------------------------------------------------- */

static void every_field_arrives(void **state)
{
    struct partner_record r;
    char text[CIDR_TEXT_MAX];
    (void)state;
    assert_int_equal(expect_parse(record_with(NULL, NULL), &r), ERR_OK);
    assert_string_equal(r.partner.id, "acme-1");
    assert_string_equal(r.company, "Acme GmbH");
    assert_string_equal(r.contact, "ops@acme.example");
    assert_string_equal(r.webhook_url, "https://hooks.acme.example/proof");
    static const uint8_t widget_id[UUID_BYTES] = {0x01, 0x90, 0xc5, 0xb2, 0x7a, 0x64, 0x70, 0x00,
                                                  0x80, 0x00, 0x3f, 0x2a, 0x9c, 0x1d, 0x5e, 0x77};
    assert_memory_equal(r.partner.widget_id, widget_id, UUID_BYTES);
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
        expect_parse(
            "{\"partner_id\":\"a\",\"company\":\"A\",\"contact\":\"a@b.example\",\"client_token_sha256\":"
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
    assert_int_equal(expect_parse(record_with("company", "\"M\\u00fcller \\u0026 S\\u00f6hne\""), &r),
                     ERR_OK);
    assert_string_equal(r.company, "M\xc3\xbcller & S\xc3\xb6hne");
    record_deinit(&r);
    expect_accepted(
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
        expect_accepted(line);
    }
}

static void the_example_of_the_documentation_is_good(void **state)
{
    (void)state;
    char *text = source_text("docs/PARTNERS-FILE.md");
    char *begin = strstr(text, "```json\n");
    assert_non_null(begin);
    begin += strlen("```json\n");
    char *end = strstr(begin, "```");
    assert_non_null(end);
    *end = '\0';
    expect_accepted(begin);
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
        expect_refused(text, 1, required[i]);
        assert_non_null(strstr(reported.faults.list[0].text, "is missing"));
    }
}

static void each_optional_field_may_be_left_out(void **state)
{
    static const char *const optional[] = {"off_ramp", "webhook_url", "sandbox_cidrs", "enabled"};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(optional); i++)
        expect_accepted(record_with(optional[i], NULL));
}

static void previous_token_and_its_expiry_come_together(void **state)
{
    (void)state;
    const char *text = record_with("previous_token_expires_at", NULL);
    expect_refused(text, column_of(text, "\"" DIGEST_B), "needs previous_token_expires_at");
    text = record_with("previous_token_sha256", NULL);
    expect_refused(text, column_of(text, "\"2026-11-30"), "needs previous_token_sha256");
}

static void previous_and_current_token_must_differ(void **state)
{
    (void)state;
    const char *text = record_with("previous_token_sha256", "\"" DIGEST_A "\"");
    expect_refused(text, column_of(text, "previous_token_sha256") + 24, "is the same as client_token_sha256");
}

static void an_unknown_key_is_refused_with_a_guess(void **state)
{
    (void)state;
    const char *text = record_with("widgetid", "\"x\"");
    expect_refused(text, column_of(text, "\"widgetid"),
                   "unknown key \"widgetid\"; did you mean \"widget_id\"?");
    text = record_with("colour", "{\"a\":[1,2]}");
    expect_refused(text, column_of(text, "\"colour"), "unknown key \"colour\"; remove it");
}

static void a_repeated_key_is_refused(void **state)
{
    char text[TEXT_MAX];
    (void)state;
    int n = snprintf(text, sizeof text, "%s", record_with(NULL, NULL));
    (void)snprintf(text + n - 1, sizeof text - (size_t)n, ", \"enabl\\u0065d\": true}");
    expect_refused(text, column_of(text, "\"enabl\\u0065d"), "enabled is written twice");
}

static void all_faults_are_reported_at_once(void **state)
{
    struct partner_record r;
    (void)state;
    assert_int_equal(
        expect_parse("{\"partner_id\":\"\",\"company\":7,\"contact\":\"x\",\"off_ramp\":null,\"extra\":1}",
                     &r),
        ERR_PARSE);
    assert_int_equal(reported.faults.total, 5 + 3);
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
    assert_int_equal(expect_parse(text, &r), ERR_PARSE);
    assert_int_equal(reported.faults.n, RECORD_MESSAGES_MAX);
    assert_int_equal(reported.faults.total, 2 * RECORD_MESSAGES_MAX + 5);
}

static void what_is_no_object_is_refused(void **state)
{
    (void)state;
    expect_refused("[]", 1, "must be one JSON object");
    expect_refused("  \"x\"", 3, "must be one JSON object");
    expect_refused("", 1, "not valid JSON");
}

static void a_syntax_error_is_the_only_complaint(void **state)
{
    (void)state;
    expect_refused("{\"partner_id\":\"a\" \"company\":\"A\"}", 19, "not valid JSON: expected ',' or '}'");
    expect_refused("{\"company\":\"\xc3\xa4\",}", 16, "not valid JSON: expected a key");
    expect_refused("{\"production_cidrs\":[\"192.0.2.7\",]}", 34, "not valid JSON");
    expect_refused("{} {}", 4, "not valid JSON: unexpected text");
}

static void a_record_cut_anywhere_is_refused(void **state)
{
    char text[TEXT_MAX];
    (void)state;
    (void)snprintf(text, sizeof text, "%s", record_with(NULL, NULL));
    for (size_t n = strlen(text); n-- > 0;) {
        struct partner_record r;
        text[n] = '\0';
        if (expect_parse(text, &r) != ERR_PARSE) fail_msg("accepted: %s", text);
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
        assert_int_equal(expect_parse(record_with(texts[i][0], texts[i][1]), &r), ERR_PARSE);
        for (uint32_t m = 0; m < reported.faults.n; m++) {
            assert_null(strstr(reported.faults.list[m].text, "canary"));
            assert_null(strstr(reported.faults.list[m].text, DIGEST_B));
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
