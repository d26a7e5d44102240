/* Heads on their way through: golden texts of what the other side gets. */
#include "proxy/forward.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define REQUEST_ID "01939f64-0000-7000-8000-000000000001"
#define DATE_LINE  "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"

/* What the gateway adds to every request of the test's partner. */
#define IDENTITY(host)                                                                                       \
    "X-Request-Id: " REQUEST_ID "\r\n"                                                                       \
    "X-Forwarded-For: 203.0.113.7\r\n"                                                                       \
    "X-Forwarded-Proto: http\r\n"                                                                            \
    "X-Forwarded-Host: " host "\r\n"                                                                         \
    "X-Proof-Partner-Id: acme\r\n"                                                                           \
    "X-Proof-Widget-Id: 0190b2c4-7c1e-7abc-8def-0123456789ab\r\n"                                            \
    "X-Proof-Environment: production\r\n"                                                                    \
    "X-Proof-Off-Ramp: disabled\r\n"                                                                         \
    "X-Proof-Token-Slot: current\r\n"                                                                        \
    "\r\n"

struct fixture {
    struct http_parser *parser;
    struct partner_view *view;
    struct config_identity rules;
    struct forward_identity id;
    struct req_head req;
    struct res_head res;
    char text[8192]; /* the head that is parsed */
    char out[16384];
};

static const struct head_limits limits = {.fields_max = HTTP_FIELDS_MAX, .target_bytes_max = 8192};

static struct partner_view *make_view(bool off_ramp)
{
    struct partner record = {.id = "acme", .enabled = true, .off_ramp = off_ramp};
    assert_true(uuid_parse("0190b2c4-7c1e-7abc-8def-0123456789ab", record.widget_id));
    static const struct cidr_pool no_pools[ENV_COUNT];
    struct partner_draft draft;
    assert_int_equal(partner_draft_begin(&draft, &record), ERR_OK);
    assert_int_equal(partner_draft_finish(&draft, &record, NULL, no_pools), ERR_OK);
    struct partner_view *view = partner_view_create(&draft);
    assert_non_null(view);
    partner_draft_discard(&draft);
    return view;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->parser = http_parser_create();
    assert_non_null(f->parser);
    f->view = make_view(false);
    f->id = (struct forward_identity){.request_id = SPAN(REQUEST_ID),
                                      .client = SPAN("203.0.113.7"),
                                      .proto = SPAN("http"),
                                      .env = ENV_PRODUCTION,
                                      .slot = SLOT_CURRENT,
                                      .partner = f->view};
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    partner_view_destroy(f->view);
    http_parser_destroy(f->parser);
    free(f);
    return 0;
}

static void parse_request(struct fixture *f, const char *text)
{
    size_t n = strlen(text);
    assert_true(n < sizeof f->text);
    memcpy(f->text, text, n);
    assert_int_equal(http_parse_request(f->parser, f->text, n, &limits, &f->req), HEAD_REFUSAL_NONE);
}

static void check_request(struct fixture *f, const char *text, bool upgrade, const char *want)
{
    struct outbuf o = outbuf_of(f->out, sizeof f->out - 1);
    parse_request(f, text);
    forward_request(&o, &f->req, upgrade, &f->rules, &f->id);
    assert_false(o.overflow);
    f->out[o.n] = '\0';
    assert_string_equal(f->out, want);
}

/* --- requests -------------------------------------------------------------------------------------- */

static void a_request_passes_with_our_fields_last(void **state)
{
    check_request(*state,
                  "GET /widget/transactions/42?expand=1 HTTP/1.1\r\nHost: api.example.com\r\n"
                  "Accept: application/json\r\nUser-Agent:acme/1.0\r\n\r\n",
                  false,
                  "GET /widget/transactions/42?expand=1 HTTP/1.1\r\nHost: api.example.com\r\n"
                  "Accept: application/json\r\nUser-Agent: acme/1.0\r\n" IDENTITY("api.example.com"));
}

static void space_around_values_is_written_anew(void **state)
{
    check_request(*state,
                  "GET /widget/a HTTP/1.1\r\nHost: h\r\nA:\tone\r\nB:  two \t\r\nC:\r\nD: \r\nE: three\r\n"
                  "F: four \r\n\r\n",
                  false,
                  "GET /widget/a HTTP/1.1\r\nHost: h\r\nA: one\r\nB: two\r\nC: \r\nD: \r\nE: three\r\n"
                  "F: four\r\n" IDENTITY("h"));
}

static void the_token_stays_at_the_gateway(void **state)
{
    struct fixture *f = *state;
    const char *request = "GET /widget/a HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer secret\r\n\r\n";
    check_request(f, request, false, "GET /widget/a HTTP/1.1\r\nHost: h\r\n" IDENTITY("h"));
    f->rules.pass_authorization = true;
    check_request(f, request, false,
                  "GET /widget/a HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer secret\r\n" IDENTITY("h"));
}

static void claims_of_the_client_are_removed(void **state)
{
    check_request(*state,
                  "GET /widget/a HTTP/1.1\r\nHost: h\r\nX-Request-Id: mine\r\nX-Forwarded-For: 127.0.0.1\r\n"
                  "x-proof-partner-id: other\r\nX-PROOF-ANYTHING: 1\r\nForwarded: for=127.0.0.1\r\n"
                  "X-Real-IP: 127.0.0.1\r\nX_Proof_Partner_Id: other\r\nX.Forwarded.For: 1\r\n"
                  "X-Forwarded-Future: 1\r\nKept: yes\r\n\r\n",
                  false, "GET /widget/a HTTP/1.1\r\nHost: h\r\nKept: yes\r\n" IDENTITY("h"));
}

static void hop_by_hop_fields_stay_behind(void **state)
{
    check_request(
        *state,
        "GET /widget/a HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, X-Custom\r\nKeep-Alive: 5\r\n"
        "X-Custom: hop\r\nTE: trailers\r\nTrailer: X-T\r\nProxy-Connection: close\r\n"
        "Proxy-Authorization: Basic eA==\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA\r\nKept: yes\r\n\r\n",
        false, "GET /widget/a HTTP/1.1\r\nHost: h\r\nKept: yes\r\n" IDENTITY("h"));
}

static void fields_that_the_configuration_names_are_removed(void **state)
{
    struct fixture *f = *state;
    char cookie[] = "cookie", internal[] = "x-internal";
    f->rules.remove[0] = cookie;
    f->rules.remove[1] = internal;
    f->rules.nremove = 2;
    check_request(
        f, "GET /widget/a HTTP/1.1\r\nHost: h\r\nCookie: a=b\r\nX-INTERNAL: 1\r\nCookies: kept\r\n\r\n",
        false, "GET /widget/a HTTP/1.1\r\nHost: h\r\nCookies: kept\r\n" IDENTITY("h"));
}

static void framing_is_written_anew(void **state)
{
    check_request(*state, "POST /widget/a HTTP/1.1\r\nHost: h\r\ncontent-LENGTH:  0005\r\n\r\n", false,
                  "POST /widget/a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n" IDENTITY("h"));
    check_request(*state, "POST /widget/a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", false,
                  "POST /widget/a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n" IDENTITY("h"));
    check_request(*state, "POST /widget/a HTTP/1.1\r\nHost: h\r\ntransfer-encoding: CHUNKED\r\n\r\n", false,
                  "POST /widget/a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n" IDENTITY("h"));
}

static void an_expectation_passes_only_where_it_can_be_kept(void **state)
{
    check_request(
        *state, "POST /widget/a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
        false,
        "POST /widget/a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n" IDENTITY("h"));
    check_request(*state,
                  "POST /widget/a HTTP/1.0\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
                  false, "POST /widget/a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n" IDENTITY("h"));
}

static void an_http_1_0_request_goes_on_as_1_1(void **state)
{
    check_request(*state, "GET /widget/a HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n", false,
                  "GET /widget/a HTTP/1.1\r\nHost: h\r\n" IDENTITY("h"));
}

static void an_absolute_target_becomes_origin_form(void **state)
{
    check_request(
        *state, "GET http://api.example.com:8080/widget/a?b HTTP/1.1\r\nHost: api.example.com:8080\r\n\r\n",
        false, "GET /widget/a?b HTTP/1.1\r\nHost: api.example.com:8080\r\n" IDENTITY("api.example.com:8080"));
}

static void only_an_upgrade_keeps_its_fields(void **state)
{
    const char *request =
        "GET /ws?tx_id=1 HTTP/1.1\r\nHost: h\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Protocol: v1\r\n\r\n";
    check_request(*state, request, true,
                  "GET /ws?tx_id=1 HTTP/1.1\r\nHost: h\r\nSec-WebSocket-Version: 13\r\n"
                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v1\r\n"
                  "Upgrade: websocket\r\nConnection: Upgrade\r\n" IDENTITY("h"));
    check_request(
        *state, request, false,
        "GET /ws?tx_id=1 HTTP/1.1\r\nHost: h\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v1\r\n" IDENTITY("h"));
}

static void the_identity_is_the_partners(void **state)
{
    struct fixture *f = *state;
    struct outbuf o = outbuf_of(f->out, sizeof f->out - 1);
    struct partner_view *view = make_view(true);
    f->id.partner = view;
    f->id.env = ENV_SANDBOX;
    f->id.slot = SLOT_PREVIOUS;
    f->id.client = SPAN("2001:db8::1");
    f->id.proto = SPAN("https");
    parse_request(f, "GET /widget/a HTTP/1.1\r\nHost: h\r\n\r\n");
    forward_request(&o, &f->req, false, &f->rules, &f->id);
    f->out[o.n] = '\0';
    assert_non_null(strstr(f->out, "\r\nX-Forwarded-For: 2001:db8::1\r\nX-Forwarded-Proto: https\r\n"));
    assert_non_null(strstr(f->out, "\r\nX-Proof-Environment: sandbox\r\nX-Proof-Off-Ramp: enabled\r\n"
                                   "X-Proof-Token-Slot: previous\r\n\r\n"));
    partner_view_destroy(view);
}

/* Too small by any number of bytes: noticed, never cut. */
static void a_head_that_does_not_fit_is_noticed(void **state)
{
    struct fixture *f = *state;
    struct outbuf o = outbuf_of(f->out, sizeof f->out);
    parse_request(f, "POST /widget/a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nA: b\r\n\r\n");
    forward_request(&o, &f->req, false, &f->rules, &f->id);
    assert_false(o.overflow);
    for (size_t cap = 0; cap < o.n; cap++) {
        struct outbuf small = outbuf_of(f->out, cap);
        forward_request(&small, &f->req, false, &f->rules, &f->id);
        assert_true(small.overflow);
    }
}

/* --- answers --------------------------------------------------------------------------------------- */

static void check_answer(struct fixture *f, const char *text, const struct forward_answer *how,
                         const char *want)
{
    struct outbuf o = outbuf_of(f->out, sizeof f->out - 1);
    size_t n = strlen(text);
    memcpy(f->text, text, n);
    assert_int_equal(http_parse_response(f->parser, f->text, n, &limits, METHOD_GET, &f->res),
                     HEAD_REFUSAL_NONE);
    forward_response(&o, &f->res, how);
    assert_false(o.overflow);
    f->out[o.n] = '\0';
    assert_string_equal(f->out, want);
}

static struct forward_answer usual(void)
{
    return (struct forward_answer){
        .request_id = SPAN(REQUEST_ID), .client_minor = 1, .keep_alive = true, .date_line = SPAN(DATE_LINE)};
}

static void an_answer_passes_with_our_request_id(void **state)
{
    const struct forward_answer how = usual();
    check_answer(
        *state,
        "HTTP/1.1 200 Fine\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n"
        "Date: Mon, 01 Jan 2024 00:00:00 GMT\r\nX-Request-Id: theirs\r\nX-Proof-Anything: kept\r\n\r\n",
        &how,
        "HTTP/1.1 200 Fine\r\nContent-Type: text/plain\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\n"
        "X-Proof-Anything: kept\r\nContent-Length: 2\r\nX-Request-Id: " REQUEST_ID "\r\n\r\n");
}

static void an_answer_without_a_date_gets_one(void **state)
{
    const struct forward_answer how = usual();
    check_answer(*state, "HTTP/1.1 204 No Content\r\n\r\n", &how,
                 "HTTP/1.1 204 No Content\r\n" DATE_LINE "X-Request-Id: " REQUEST_ID "\r\n\r\n");
}

static void hop_by_hop_fields_of_the_backend_stay_behind(void **state)
{
    const struct forward_answer how = usual();
    check_answer(*state,
                 "HTTP/1.1 200 OK\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 1\r\n"
                 "Proxy-Authenticate: Basic\r\nTrailer: X\r\nContent-Length: 0\r\n\r\n",
                 &how,
                 "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" DATE_LINE "X-Request-Id: " REQUEST_ID "\r\n\r\n");
}

static void the_framing_is_the_clients(void **state)
{
    struct forward_answer how = usual();
    how.chunked = true;
    check_answer(*state, "HTTP/1.1 200 OK\r\n\r\n", &how,
                 "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" DATE_LINE "X-Request-Id: " REQUEST_ID
                 "\r\n\r\n");
    how = usual();
    how.client_minor = 0;
    how.keep_alive = false; /* an HTTP/1.0 client reads until the end */
    check_answer(*state, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &how,
                 "HTTP/1.1 200 OK\r\n" DATE_LINE "Connection: close\r\nX-Request-Id: " REQUEST_ID "\r\n\r\n");
}

static void the_connection_field_is_ours(void **state)
{
    struct forward_answer how = usual();
    const char *answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    how.keep_alive = false;
    check_answer(*state, answer, &how,
                 "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" DATE_LINE
                 "Connection: close\r\nX-Request-Id: " REQUEST_ID "\r\n\r\n");
    how = usual();
    how.client_minor = 0;
    check_answer(*state, answer, &how,
                 "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" DATE_LINE
                 "Connection: keep-alive\r\nX-Request-Id: " REQUEST_ID "\r\n\r\n");
}

static void an_interim_answer_is_only_its_fields(void **state)
{
    const struct forward_answer how = {.client_minor = 1};
    check_answer(*state, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", &how,
                 "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    check_answer(*state, "HTTP/1.1 100 Continue\r\n\r\n", &how, "HTTP/1.1 100 Continue\r\n\r\n");
}

static void a_101_keeps_its_upgrade(void **state)
{
    struct forward_answer how = usual();
    how.upgrade = true;
    check_answer(*state,
                 "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
                 &how,
                 "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
                 "Upgrade: websocket\r\nConnection: Upgrade\r\nX-Request-Id: " REQUEST_ID "\r\n\r\n");
}

static void a_missing_or_unprintable_reason_is_replaced(void **state)
{
    const struct forward_answer how = usual();
    check_answer(*state, "HTTP/1.1 404 \r\nContent-Length: 0\r\n\r\n", &how,
                 "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n" DATE_LINE "X-Request-Id: " REQUEST_ID
                 "\r\n\r\n");
    check_answer(*state, "HTTP/1.1 404 perdu\xe9\r\nContent-Length: 0\r\n\r\n", &how,
                 "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n" DATE_LINE "X-Request-Id: " REQUEST_ID
                 "\r\n\r\n");
}

#define FORWARD_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FORWARD_TEST(a_request_passes_with_our_fields_last),
        FORWARD_TEST(space_around_values_is_written_anew),
        FORWARD_TEST(the_token_stays_at_the_gateway),
        FORWARD_TEST(claims_of_the_client_are_removed),
        FORWARD_TEST(hop_by_hop_fields_stay_behind),
        FORWARD_TEST(fields_that_the_configuration_names_are_removed),
        FORWARD_TEST(framing_is_written_anew),
        FORWARD_TEST(an_expectation_passes_only_where_it_can_be_kept),
        FORWARD_TEST(an_http_1_0_request_goes_on_as_1_1),
        FORWARD_TEST(an_absolute_target_becomes_origin_form),
        FORWARD_TEST(only_an_upgrade_keeps_its_fields),
        FORWARD_TEST(the_identity_is_the_partners),
        FORWARD_TEST(a_head_that_does_not_fit_is_noticed),
        FORWARD_TEST(an_answer_passes_with_our_request_id),
        FORWARD_TEST(an_answer_without_a_date_gets_one),
        FORWARD_TEST(hop_by_hop_fields_of_the_backend_stay_behind),
        FORWARD_TEST(the_framing_is_the_clients),
        FORWARD_TEST(the_connection_field_is_ours),
        FORWARD_TEST(an_interim_answer_is_only_its_fields),
        FORWARD_TEST(a_101_keeps_its_upgrade),
        FORWARD_TEST(a_missing_or_unprintable_reason_is_replaced),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
