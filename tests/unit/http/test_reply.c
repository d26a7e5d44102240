/* The gateway's own answers. */
#include "http/reply.h"

#include "http/head.h"
#include "support/folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

static char text[2048];

/* Writes an answer and parses it with our own parser; returns the length of its head. */
static size_t answer(enum reply_id id, const struct reply_options *opt, struct res_head *res)
{
    static const struct head_limits limits = {.fields_max = 100, .target_bytes_max = 100};
    struct outbuf o = outbuf_of(text, sizeof text - 1);
    reply_write(&o, id, opt);
    assert_false(o.overflow);
    text[o.n] = '\0';
    const char *end = strstr(text, "\r\n\r\n");
    assert_non_null(end);
    size_t n = (size_t)(end - text) + 4;
    struct http_parser *parser = http_parser_create();
    assert_non_null(parser);
    enum http_method method = opt->head ? METHOD_HEAD : METHOD_GET;
    assert_int_equal(http_parse_response(parser, text, n, &limits, method, res), HEAD_REFUSAL_NONE);
    http_parser_destroy(parser);
    assert_int_equal(res->content_length, opt->head ? res->content_length : o.n - n);
    return n;
}

static struct reply_options usual(void)
{
    return (struct reply_options){.request_id = SPAN("id-1"),
                                  .date_line = SPAN("Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"),
                                  .keep_alive = true};
}

static void test_the_whole_text(void **state)
{
    (void)state;
    struct reply_options opt = usual();
    struct outbuf o = outbuf_of(text, sizeof text - 1);
    reply_write(&o, REPLY_MISSING_TOKEN, &opt);
    text[o.n] = '\0';
    assert_string_equal(text, "HTTP/1.1 401 Unauthorized\r\n"
                              "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
                              "Content-Type: application/json\r\n"
                              "Content-Length: 130\r\n"
                              "Cache-Control: no-store\r\n"
                              "X-Request-Id: id-1\r\n"
                              "WWW-Authenticate: Bearer realm=\"proof\"\r\n"
                              "\r\n"
                              "{\"error\": \"unauthorised\", \"code\": \"missing_token\", \"message\": "
                              "\"Send your client token as 'Authorization: Bearer <client_token>'.\"}");
}

static void test_every_answer_is_well_formed(void **state)
{
    (void)state;
    static struct res_head res;
    for (unsigned id = REPLY_NONE + 1; id < REPLY_COUNT; id++) {
        struct reply_options opt = usual();
        const struct reply_def *def = reply_def((enum reply_id)id);
        size_t n = answer((enum reply_id)id, &opt, &res);
        assert_int_equal(res.status, def->status);
        assert_int_equal(res.keep_alive, !def->closes);
        char want[512];
        snprintf(want, sizeof want, "{\"error\": \"%s\", \"code\": \"%s\", \"message\": \"%s\"}", def->error,
                 def->code, def->message);
        assert_string_equal(text + n, want);
        assert_null(strpbrk(def->message, "\"\\\n")); /* it is not escaped */
    }
}

static void test_head_has_the_length_but_no_body(void **state)
{
    (void)state;
    static struct res_head res;
    struct reply_options opt = usual();
    size_t with = answer(REPLY_NOT_FOUND, &opt, &res);
    uint64_t length = res.content_length;
    opt.head = true;
    assert_int_equal(answer(REPLY_NOT_FOUND, &opt, &res), with);
    assert_int_equal(res.content_length, length);
    assert_int_equal(strlen(text), with);
}

static void test_closing_is_said(void **state)
{
    (void)state;
    static struct res_head res;
    struct reply_options opt = usual();
    opt.keep_alive = false;
    answer(REPLY_NOT_FOUND, &opt, &res);
    assert_non_null(strstr(text, "\r\nConnection: close\r\n"));
}

static void test_invalid_token_says_so(void **state)
{
    (void)state;
    static struct res_head res;
    struct reply_options opt = usual();
    answer(REPLY_INVALID_TOKEN, &opt, &res);
    assert_non_null(
        strstr(text, "\r\nWWW-Authenticate: Bearer realm=\"proof\", error=\"invalid_token\"\r\n"));
    answer(REPLY_FORBIDDEN_ORIGIN, &opt, &res);
    assert_null(strstr(text, "WWW-Authenticate"));
}

static void test_retry_after(void **state)
{
    (void)state;
    static struct res_head res;
    struct reply_options opt = usual();
    answer(REPLY_RATE_LIMITED, &opt, &res);
    assert_non_null(strstr(text, "\r\nRetry-After: 1\r\n"));
    opt.retry_after_s = 30;
    answer(REPLY_UNAVAILABLE, &opt, &res);
    assert_non_null(strstr(text, "\r\nRetry-After: 30\r\n"));
    answer(REPLY_UPSTREAM_TIMEOUT, &opt, &res);
    assert_null(strstr(text, "Retry-After"));
}

static void test_upgrade_required(void **state)
{
    (void)state;
    static struct res_head res;
    struct reply_options opt = usual();
    answer(REPLY_UPGRADE_REQUIRED, &opt, &res);
    assert_non_null(
        strstr(text, "\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nConnection: Upgrade\r\n"));
    assert_true(res.keep_alive);
    opt.keep_alive = false;
    answer(REPLY_UPGRADE_REQUIRED, &opt, &res);
    assert_true(res.has_upgrade);
    assert_false(res.keep_alive);
}

static void test_overflow_is_remembered(void **state)
{
    (void)state;
    struct reply_options opt = usual();
    struct outbuf o = outbuf_of(text, 100);
    reply_write(&o, REPLY_NOT_FOUND, &opt);
    assert_true(o.overflow);
}

static void expect_date(uint64_t seconds, const char *want)
{
    char date[32] = "";
    struct outbuf o = outbuf_of(date, 29);
    http_date_write(&o, seconds * 1000 + 999);
    assert_string_equal(date, want);
}

static void test_dates(void **state)
{
    (void)state;
    expect_date(0, "Thu, 01 Jan 1970 00:00:00 GMT");
    expect_date(784111777, "Sun, 06 Nov 1994 08:49:37 GMT"); /* RFC 9110 section 5.6.7 */
    expect_date(951782400, "Tue, 29 Feb 2000 00:00:00 GMT");
    expect_date(951868799, "Tue, 29 Feb 2000 23:59:59 GMT");
    expect_date(951868800, "Wed, 01 Mar 2000 00:00:00 GMT");
    expect_date(4107542399, "Sun, 28 Feb 2100 23:59:59 GMT");
    expect_date(4107542400, "Mon, 01 Mar 2100 00:00:00 GMT");
    expect_date(1798761599, "Thu, 31 Dec 2026 23:59:59 GMT");
}

static void test_status_phrases(void **state)
{
    (void)state;
    assert_string_equal(status_phrase(404), "Not Found");
    assert_string_equal(status_phrase(511), "Network Authentication Required");
    assert_string_equal(status_phrase(299), "Unknown");
    assert_string_equal(status_phrase(0), "Unknown");
    assert_string_equal(status_phrase(512), "Unknown");
}

/* docs/API-ERRORS.md is what the table says. */
static void test_reference_is_up_to_date(void **state)
{
    (void)state;
    static char want[16384];
    struct outbuf o = outbuf_of(want, sizeof want - 1);
    reply_reference(&o);
    assert_false(o.overflow);
    want[o.n] = '\0';
    char *have = source_text("docs/API-ERRORS.md");
    assert_string_equal(have, want);
    free(have);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_whole_text),
        cmocka_unit_test(test_every_answer_is_well_formed),
        cmocka_unit_test(test_head_has_the_length_but_no_body),
        cmocka_unit_test(test_closing_is_said),
        cmocka_unit_test(test_invalid_token_says_so),
        cmocka_unit_test(test_retry_after),
        cmocka_unit_test(test_upgrade_required),
        cmocka_unit_test(test_overflow_is_remembered),
        cmocka_unit_test(test_dates),
        cmocka_unit_test(test_status_phrases),
        cmocka_unit_test(test_reference_is_up_to_date),
    };
    return cmocka_run_group_tests_name("reply", tests, NULL, NULL);
}
