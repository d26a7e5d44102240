/* http_parse_request() and http_parse_response() where a golden trace cannot look: what is known of a refused
 * head, limits, and the parser's reuse. */
#include "http/head.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

static const struct head_limits limits = {.fields_max = HTTP_FIELDS_MAX, .target_bytes_max = 100};

static struct req_head head; /* 10 KiB */

static enum head_refusal parse(struct http_parser *parser, const char *text)
{
    return http_parse_request(parser, text, strlen(text), &limits, &head);
}

static int parser_make(void **state)
{
    *state = http_parser_create();
    return *state ? 0 : -1;
}

static int parser_drop(void **state)
{
    http_parser_destroy(*state);
    return 0;
}

static void test_a_refused_head_keeps_method_and_target(void **state)
{
    assert_int_equal(parse(*state, "POST /widget/a HTTP/1.1\r\n\r\n"), HEAD_REFUSAL_HOST);
    assert_int_equal(head.method, METHOD_POST);
    assert_true(span_eq(head.target, SPAN("/widget/a")));
    assert_int_equal(parse(*state, "BREW /pot HTTP/1.1\r\n\r\n"), HEAD_REFUSAL_METHOD);
    assert_int_equal(head.method, METHOD_NONE);
    assert_true(span_eq(head.target, SPAN("/pot")));
}

/* llhttp's errors are sticky; ours are not. */
static void test_the_parser_works_after_a_refusal(void **state)
{
    assert_int_equal(parse(*state, "GET /a HTTP/1.1\r\nA B: c\r\n\r\n"), HEAD_REFUSAL_FIELD_NAME);
    assert_int_equal(parse(*state, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n"), HEAD_REFUSAL_NONE);
}

static void test_requests_and_responses_take_turns(void **state)
{
    static const char response[] = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
    static struct res_head res;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(parse(*state, "GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
                         HEAD_REFUSAL_NONE);
        assert_int_equal(
            http_parse_response(*state, response, sizeof response - 1, &limits, METHOD_GET, &res),
            HEAD_REFUSAL_NONE);
        assert_int_equal(res.content_length, 3);
    }
}

static void test_nothing_of_the_last_head_remains(void **state)
{
    assert_int_equal(parse(*state, "POST /a HTTP/1.1\r\nHost: a\r\nAuthorization: x\r\nContent-Length: 5\r\n"
                                   "Expect: 100-continue\r\nX_Y: 1\r\nConnection: close\r\n\r\n"),
                     HEAD_REFUSAL_NONE);
    assert_int_equal(parse(*state, "GET /a HTTP/1.0\r\n\r\n"), HEAD_REFUSAL_NONE);
    assert_null(head.authorization.p);
    assert_int_equal(head.nauthorization, 0);
    assert_int_equal(head.nfields, 0);
    assert_int_equal(head.naliases, 0);
    assert_int_equal(head.body, BODY_NONE);
    assert_false(head.expect_continue);
    assert_int_equal(head.host.n, 0);
}

/* Every span points into the bytes of the head. */
static void test_spans_point_into_the_input(void **state)
{
    static const char text[] = "GET /a?b HTTP/1.1\r\nHost: a:1\r\nAuthorization:\r\nX: \t\r\n\r\n";
    assert_int_equal(http_parse_request(*state, text, sizeof text - 1, &limits, &head), HEAD_REFUSAL_NONE);
    assert_ptr_equal(head.target.p, text + 4);
    assert_non_null(head.authorization.p);
    for (uint32_t i = 0; i < head.nfields; i++) {
        assert_in_range((uintptr_t)head.fields[i].name.p, (uintptr_t)text, (uintptr_t)text + sizeof text);
        assert_in_range((uintptr_t)head.fields[i].value.p, (uintptr_t)text, (uintptr_t)text + sizeof text);
    }
}

static size_t many_fields(char *text, size_t cap, unsigned n)
{
    size_t at = (size_t)snprintf(text, cap, "GET /a HTTP/1.1\r\nHost: a\r\n");
    for (unsigned i = 1; i < n; i++)
        at += (size_t)snprintf(text + at, cap - at, "X-%u: %u\r\n", i, i);
    return at + (size_t)snprintf(text + at, cap - at, "\r\n");
}

static void test_the_most_fields_there_can_be(void **state)
{
    static char text[16 * 1024];
    size_t n = many_fields(text, sizeof text, HTTP_FIELDS_MAX);
    assert_int_equal(http_parse_request(*state, text, n, &limits, &head), HEAD_REFUSAL_NONE);
    assert_int_equal(head.nfields, HTTP_FIELDS_MAX);
    n = many_fields(text, sizeof text, HTTP_FIELDS_MAX + 1);
    assert_int_equal(http_parse_request(*state, text, n, &limits, &head), HEAD_REFUSAL_TOO_MANY_FIELDS);
}

static void test_authorizations_are_counted_without_overflow(void **state)
{
    static char text[16 * 1024];
    size_t at = (size_t)snprintf(text, sizeof text, "GET /a HTTP/1.1\r\n");
    for (int i = 0; i < HTTP_FIELDS_MAX; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "Authorization: x\r\n");
    snprintf(text + at, sizeof text - at, "\r\n");
    memcpy(text, "GET /a HTTP/1.0", 15); /* no Host needed */
    assert_int_equal(parse(*state, text), HEAD_REFUSAL_NONE);
    assert_int_equal(head.nauthorization, UINT8_MAX);
    assert_null(head.authorization.p);
}

static void test_field_find_takes_the_first(void **state)
{
    assert_int_equal(parse(*state, "GET /a HTTP/1.1\r\nHost: a\r\nDate: 1\r\ndate: 2\r\n\r\n"),
                     HEAD_REFUSAL_NONE);
    const struct http_field *date = http_field_find(head.fields, head.nfields, FIELD_DATE);
    assert_non_null(date);
    assert_true(span_eq(date->value, SPAN("1")));
    assert_null(http_field_find(head.fields, head.nfields, FIELD_TE));
}

static void test_methods(void **state)
{
    (void)state;
    assert_true(span_eq(method_name(METHOD_NONE), SPAN("-")));
    assert_true(span_eq(method_name(METHOD_DELETE), SPAN("DELETE")));
    assert_true(method_is_idempotent(METHOD_PUT));
    assert_false(method_is_idempotent(METHOD_POST));
    assert_false(method_is_idempotent(METHOD_PATCH));
    assert_false(method_is_idempotent(METHOD_NONE));
}

static void test_every_refusal_has_a_text(void **state)
{
    (void)state;
    for (unsigned r = 0; r < HEAD_REFUSAL_COUNT; r++)
        assert_true(strlen(head_refusal_text((enum head_refusal)r)) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_refused_head_keeps_method_and_target),
        cmocka_unit_test(test_the_parser_works_after_a_refusal),
        cmocka_unit_test(test_requests_and_responses_take_turns),
        cmocka_unit_test(test_nothing_of_the_last_head_remains),
        cmocka_unit_test(test_spans_point_into_the_input),
        cmocka_unit_test(test_the_most_fields_there_can_be),
        cmocka_unit_test(test_authorizations_are_counted_without_overflow),
        cmocka_unit_test(test_field_find_takes_the_first),
        cmocka_unit_test(test_methods),
        cmocka_unit_test(test_every_refusal_has_a_text),
    };
    return cmocka_run_group_tests_name("head", tests, parser_make, parser_drop);
}
