/* The one decision: every reason, their order, and the grace period to the millisecond. */
#include "policy/decide.h"

#include "helper_partner.h"
#include "policy/key_table.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <string.h>

#define CURRENT  "current-token-0123456"
#define PREVIOUS "previous-token-012345"
#define DISABLED "disabled-token-012345"
#define EMPTY    "empty-list-token-0123"
#define SHOWING  "certificate-token-0123"
#define EXPIRES  100000

struct fixture {
    struct policy *policy;
    struct token_hasher *hasher;
};

static int set_up(void **state)
{
    static struct fixture f;
    f = (struct fixture){policy_create(), token_hasher_create()};
    assert_non_null(f.policy);
    assert_non_null(f.hasher);
    policy_sync_begin(f.policy);

    struct partner r = partner_with("acme", CURRENT, "192.0.2.0/24 2001:db8::/32");
    partner_give(&r, SLOT_PREVIOUS, PREVIOUS);
    r.previous_expires_ms = EXPIRES;
    partner_allow(&r, ENV_SANDBOX, "198.51.100.0/24");
    apply_expect(f.policy, r, ERR_OK);

    r = partner_with("gone", DISABLED, "192.0.2.0/24");
    r.enabled = false;
    apply_expect(f.policy, r, ERR_OK);

    r = partner_make("closed");
    partner_give(&r, SLOT_CURRENT, EMPTY);
    apply_expect(f.policy, r, ERR_OK);

    r = partner_with("shows", SHOWING, "192.0.2.0/24");
    r.ncertificates = 2;
    memset(r.certificates[0], 1, CERTIFICATE_DIGEST_BYTES);
    memset(r.certificates[1], 2, CERTIFICATE_DIGEST_BYTES);
    apply_expect(f.policy, r, ERR_OK);

    assert_int_equal(policy_sync_end(f.policy, NULL), ERR_OK);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    token_hasher_destroy(f->hasher);
    policy_destroy(f->policy);
    return 0;
}

/* A request that is let in; the tests spoil one thing or several. */
struct request {
    bool no_route, no_environment;
    enum environment env;
    uint32_t nauthorization;
    const char *authorization;
    const char *source;
    uint64_t wall_ms;
    uint8_t certificate; /* of 32 such bytes; 0 = none */
};

static const struct request good = {
    .nauthorization = 1, .authorization = "Bearer " CURRENT, .source = "192.0.2.1", .wall_ms = EXPIRES - 1};

static struct decision ask(const struct fixture *f, struct request r)
{
    uint8_t certificate[CERTIFICATE_DIGEST_BYTES];
    memset(certificate, r.certificate, sizeof certificate);
    struct addr source = r.source ? addr_of(r.source) : (struct addr){.family = ADDR_NONE};
    struct decide_query q = {.has_route = !r.no_route,
                             .has_environment = !r.no_environment,
                             .env = r.env,
                             .nauthorization = r.nauthorization,
                             .authorization = span_str(r.authorization),
                             .certificate = r.certificate ? certificate : NULL,
                             .source = &source,
                             .wall_ms = r.wall_ms};
    struct decision out;
    memset(&out, 0xaa, sizeof(out));
    decide(f->policy, f->hasher, &q, &out);
    return out;
}

/* Behind the token, before the address; open tunnels are judged in the same way. */
static void test_client_certificates(void **state)
{
    struct fixture *f = *state;
    struct request r = good;
    r.authorization = "Bearer " SHOWING;
    static const enum deny expected[] = {DENY_CLIENT_CERTIFICATE, DENY_NONE, DENY_NONE,
                                         DENY_CLIENT_CERTIFICATE};
    for (uint8_t shown = 0; shown < 4; shown++) {
        uint8_t certificate[CERTIFICATE_DIGEST_BYTES];
        struct addr source = addr_of(r.source);
        struct decision again;
        r.certificate = shown;
        memset(certificate, shown, sizeof certificate);
        struct decision d = ask(f, r);
        assert_int_equal(d.deny, expected[shown]);
        const struct decide_query q = {.env = r.env,
                                       .digest = d.digest,
                                       .certificate = shown ? certificate : NULL,
                                       .source = &source,
                                       .wall_ms = r.wall_ms};
        decide_again(f->policy, &q, &again);
        assert_int_equal(again.deny, expected[shown]);
    }
    r.certificate = 0;
    r.source = "198.51.100.1";
    assert_int_equal(ask(f, r).deny, DENY_CLIENT_CERTIFICATE);
    r.certificate = 1;
    assert_int_equal(ask(f, r).deny, DENY_ADDRESS);
    r = good;
    r.certificate = 3; /* of a partner that asks for none */
    assert_int_equal(ask(f, r).deny, DENY_NONE);
}

static void test_a_good_request(void **state)
{
    struct fixture *f = *state;
    struct decision d = ask(f, good);
    assert_int_equal(d.deny, DENY_NONE);
    assert_int_equal(d.slot, SLOT_CURRENT);
    assert_int_equal(d.partner, policy_find(f->policy, SPAN("acme")));
    assert_int_equal(d.generation, policy_generation(f->policy));
    assert_true(d.valid_until_ms == UINT64_MAX);
}

/* One row per reason: everything before it is in order, everything after it is wrong as well. */
static void test_every_reason_in_order(void **state)
{
    struct fixture *f = *state;
    static const struct {
        struct request r;
        enum deny want;
        const char *partner; /* whose index the answer names, or NULL */
    } rows[] = {
        {{.no_route = true, .no_environment = true, .authorization = ""}, DENY_NO_ROUTE, NULL},
        {{.no_environment = true, .authorization = ""}, DENY_NO_HOST, NULL},
        {{.authorization = ""}, DENY_TOKEN_MISSING, NULL},
        {{.nauthorization = 2, .authorization = ""}, DENY_TOKEN_REPEATED, NULL},
        {{.nauthorization = 2, .authorization = "Bearer " CURRENT, .source = "192.0.2.1"},
         DENY_TOKEN_REPEATED,
         NULL},
        {{.nauthorization = UINT32_MAX, .authorization = ""}, DENY_TOKEN_REPEATED, NULL},
        {{.nauthorization = 1, .authorization = ""}, DENY_TOKEN_SCHEME, NULL},
        {{.nauthorization = 1, .authorization = "Basic " CURRENT}, DENY_TOKEN_SCHEME, NULL},
        {{.nauthorization = 1, .authorization = "Bearer"}, DENY_TOKEN_MALFORMED, NULL},
        {{.nauthorization = 1, .authorization = "Bearer " CURRENT " x"}, DENY_TOKEN_MALFORMED, NULL},
        {{.nauthorization = 1, .authorization = "Bearer nobody-has-this-token"}, DENY_TOKEN_UNKNOWN, NULL},
        {{.nauthorization = 1, .authorization = "Bearer " CURRENT "x"}, DENY_TOKEN_UNKNOWN, NULL},
        {{.nauthorization = 1, .authorization = "Bearer " DISABLED}, DENY_PARTNER_DISABLED, "gone"},
        {{.nauthorization = 1, .authorization = "Bearer " PREVIOUS, .wall_ms = EXPIRES},
         DENY_TOKEN_EXPIRED,
         "acme"},
        {{.nauthorization = 1, .authorization = "Bearer " CURRENT, .source = "192.0.3.0"},
         DENY_ADDRESS,
         "acme"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct decision d = ask(f, rows[i].r);
        assert_int_equal(d.deny, rows[i].want);
        assert_int_equal(d.partner, rows[i].partner ? policy_find(f->policy, span_str(rows[i].partner))
                                                    : PARTNER_INDEX_NONE);
        assert_int_equal(d.generation, policy_generation(f->policy));
    }
}

static void test_no_data_comes_before_the_token(void **state)
{
    struct fixture *f = *state;
    struct fixture empty = {policy_create(), f->hasher};
    assert_non_null(empty.policy);
    assert_int_equal(ask(&empty, good).deny, DENY_NO_POLICY);
    struct request r = good;
    r.nauthorization = 0;
    assert_int_equal(ask(&empty, r).deny, DENY_NO_POLICY);
    r.no_route = true;
    assert_int_equal(ask(&empty, r).deny, DENY_NO_ROUTE);
    policy_destroy(empty.policy);
}

static void test_the_end_of_the_grace_period(void **state)
{
    struct fixture *f = *state;
    static const struct {
        uint64_t at;
        enum deny want;
    } rows[] = {{0, DENY_NONE},
                {EXPIRES - 1, DENY_NONE},
                {EXPIRES, DENY_TOKEN_EXPIRED},
                {EXPIRES + 1, DENY_TOKEN_EXPIRED},
                {UINT64_MAX, DENY_TOKEN_EXPIRED}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct request r = good;
        r.authorization = "Bearer " PREVIOUS;
        r.wall_ms = rows[i].at;
        struct decision d = ask(f, r);
        assert_int_equal(d.deny, rows[i].want);
        assert_int_equal(d.slot, SLOT_PREVIOUS);
        assert_true(d.valid_until_ms == (rows[i].want ? UINT64_MAX : EXPIRES));
        r.authorization = "Bearer " CURRENT;
        assert_int_equal(ask(f, r).deny, DENY_NONE);
    }
}

/* A refusal for the address with a previous token holds only as long as the token. */
static void test_a_403_by_the_previous_token_has_an_end(void **state)
{
    struct fixture *f = *state;
    struct request r = good;
    r.authorization = "Bearer " PREVIOUS;
    r.source = "203.0.113.1";
    struct decision d = ask(f, r);
    assert_int_equal(d.deny, DENY_ADDRESS);
    assert_true(d.valid_until_ms == EXPIRES);
}

static void test_both_environments(void **state)
{
    struct fixture *f = *state;
    static const struct {
        enum environment env;
        const char *source;
        enum deny want;
    } rows[] = {
        {ENV_PRODUCTION, "192.0.2.255", DENY_NONE},    {ENV_PRODUCTION, "198.51.100.1", DENY_ADDRESS},
        {ENV_PRODUCTION, "2001:db8::1", DENY_NONE},    {ENV_PRODUCTION, "::ffff:192.0.2.9", DENY_NONE},
        {ENV_PRODUCTION, "2001:db9::1", DENY_ADDRESS}, {ENV_SANDBOX, "192.0.2.255", DENY_ADDRESS},
        {ENV_SANDBOX, "198.51.100.1", DENY_NONE},      {ENV_SANDBOX, "2001:db8::1", DENY_ADDRESS},
        {ENV_PRODUCTION, NULL, DENY_ADDRESS}, /* a unix socket has no address */
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct request r = good;
        r.env = rows[i].env;
        r.source = rows[i].source;
        assert_int_equal(ask(f, r).deny, rows[i].want);
    }
}

static void test_an_empty_list_admits_nobody(void **state)
{
    struct fixture *f = *state;
    struct request r = good;
    r.authorization = "Bearer " EMPTY;
    for (r.env = ENV_PRODUCTION; r.env < ENV_COUNT; r.env++) {
        r.source = "192.0.2.1";
        assert_int_equal(ask(f, r).deny, DENY_ADDRESS);
        r.source = "::1";
        assert_int_equal(ask(f, r).deny, DENY_ADDRESS);
    }
}

static void test_disabled_goes_before_expired(void **state)
{
    struct fixture *f = *state;
    struct partner r = partner_make("gone");
    partner_give(&r, SLOT_PREVIOUS, DISABLED);
    r.previous_expires_ms = 1;
    r.enabled = false;
    apply_expect(f->policy, r, ERR_OK);
    struct request q = good;
    q.authorization = "Bearer " DISABLED;
    assert_int_equal(ask(f, q).deny, DENY_PARTNER_DISABLED);
}

/* The table compares half of the digest; the other half decides here. */
static void test_all_of_the_digest_counts(void **state)
{
    struct fixture *f = *state;
    for (size_t byte = TOKEN_KEY_BYTES; byte < TOKEN_DIGEST_BYTES; byte++) {
        struct partner r = partner_with("twin", "token-of-the-twin-012", "192.0.2.0/24");
        r.digest[SLOT_CURRENT][byte] ^= 0x80;
        apply_expect(f->policy, r, ERR_OK);
        uint8_t digest[TOKEN_DIGEST_BYTES];
        digest_of("token-of-the-twin-012", digest);
        uint32_t owner;
        assert_true(key_table_find(policy_tokens(f->policy), token_key(digest), &owner));
        struct request q = good;
        q.authorization = "Bearer token-of-the-twin-012";
        struct decision d = ask(f, q);
        assert_int_equal(d.deny, DENY_TOKEN_UNKNOWN);
        assert_int_equal(d.partner, PARTNER_INDEX_NONE);
    }
}

static void test_the_generation_is_the_one_before_the_look_up(void **state)
{
    struct fixture *f = *state;
    uint64_t before = ask(f, good).generation;
    assert_int_equal(policy_remove(f->policy, SPAN("acme")), ERR_OK);
    struct decision d = ask(f, good);
    assert_int_equal(d.deny, DENY_TOKEN_UNKNOWN);
    assert_true(d.generation > before);
}

static void test_each_reason_has_a_label_and_a_verdict(void **state)
{
    (void)state;
    static const struct {
        enum deny deny;
        const char *text;
        enum verdict verdict;
    } rows[] = {
        {DENY_NONE, "none", VERDICT_ALLOW},
        {DENY_NO_ROUTE, "no_route", VERDICT_NOT_FOUND},
        {DENY_NO_HOST, "no_host", VERDICT_NOT_FOUND},
        {DENY_OTHER_CERTIFICATE, "other_certificate", VERDICT_NOT_FOUND},
        {DENY_NO_POLICY, "no_policy", VERDICT_UNAVAILABLE},
        {DENY_TOKEN_MISSING, "token_missing", VERDICT_MISSING_TOKEN},
        {DENY_TOKEN_REPEATED, "token_repeated", VERDICT_MISSING_TOKEN},
        {DENY_TOKEN_SCHEME, "token_scheme", VERDICT_MISSING_TOKEN},
        {DENY_TOKEN_MALFORMED, "token_malformed", VERDICT_INVALID_TOKEN},
        {DENY_TOKEN_UNKNOWN, "token_unknown", VERDICT_INVALID_TOKEN},
        {DENY_TOKEN_EXPIRED, "token_expired", VERDICT_INVALID_TOKEN},
        {DENY_PARTNER_DISABLED, "partner_disabled", VERDICT_INVALID_TOKEN},
        {DENY_CLIENT_CERTIFICATE, "client_certificate", VERDICT_INVALID_TOKEN},
        {DENY_ADDRESS, "address", VERDICT_FORBIDDEN_ORIGIN},
        {DENY_RATE, "rate", VERDICT_RATE_LIMITED},
        {DENY_CONCURRENCY, "concurrency", VERDICT_RATE_LIMITED},
        {DENY_TUNNELS, "tunnels", VERDICT_RATE_LIMITED},
        {DENY_FAULT, "fault", VERDICT_FAULT},
    };
    assert_int_equal(sizeof(rows) / sizeof(rows[0]), DENY_COUNT);
    for (size_t i = 0; i < DENY_COUNT; i++) {
        assert_int_equal(rows[i].deny, i);
        assert_string_equal(deny_text(rows[i].deny), rows[i].text);
        assert_int_equal(deny_verdict(rows[i].deny), rows[i].verdict);
    }
}

static void test_names(void **state)
{
    (void)state;
    assert_string_equal(environment_name(ENV_PRODUCTION), "production");
    assert_string_equal(environment_name(ENV_SANDBOX), "sandbox");
    assert_string_equal(token_slot_name(SLOT_CURRENT), "current");
    assert_string_equal(token_slot_name(SLOT_PREVIOUS), "previous");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_good_request),
        TEST(test_client_certificates),
        TEST(test_every_reason_in_order),
        TEST(test_no_data_comes_before_the_token),
        TEST(test_the_end_of_the_grace_period),
        TEST(test_a_403_by_the_previous_token_has_an_end),
        TEST(test_both_environments),
        TEST(test_an_empty_list_admits_nobody),
        TEST(test_disabled_goes_before_expired),
        TEST(test_all_of_the_digest_counts),
        TEST(test_the_generation_is_the_one_before_the_look_up),
        TEST(test_each_reason_has_a_label_and_a_verdict),
        TEST(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
