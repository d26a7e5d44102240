/* target_parse() and host_parse() where a golden trace cannot look; the cases are in tests/http/targets.md
 * and hosts.md. */
#include "http/target.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>

static const struct span acceptable = {"/widget/a", 9};

static void test_parts_point_into_the_text(void **state)
{
    (void)state;
    static const char text[] = "http://api.example:80/widget/a?b=c?d";
    struct target t;
    assert_int_equal(target_parse(SPAN(text), &t), ERR_OK);
    assert_ptr_equal(t.authority.p, text + 7);
    assert_int_equal(t.authority.n, 14);
    assert_ptr_equal(t.path.p, text + 21);
    assert_int_equal(t.path.n, 9);
    assert_true(span_eq(t.query, SPAN("b=c?d")));
    assert_true(span_eq(t.origin, SPAN("/widget/a?b=c?d")));
    assert_int_equal(t.route, ROUTE_WIDGET);
}

static void test_absent_parts_are_null(void **state)
{
    (void)state;
    struct target t;
    assert_int_equal(target_parse(acceptable, &t), ERR_OK);
    assert_null(t.authority.p);
    assert_null(t.query.p);
    assert_int_equal(target_parse(SPAN("/widget/a?"), &t), ERR_OK);
    assert_non_null(t.query.p);
    assert_int_equal(t.query.n, 0);
}

static void test_a_refused_target_changes_nothing(void **state)
{
    (void)state;
    struct target t = {.route = ROUTE_WS};
    struct span host = SPAN("x");
    assert_int_equal(target_parse(SPAN("/.."), &t), ERR_PARSE);
    assert_int_equal(target_parse(SPAN(""), &t), ERR_PARSE);
    assert_int_equal(t.route, ROUTE_WS);
    assert_int_equal(host_parse(SPAN("a b"), &host), ERR_PARSE);
    assert_true(span_eq(host, SPAN("x")));
}

/* Each byte value inside a path and a query, against the grammar written once more as a list. */
static void test_every_byte(void **state)
{
    (void)state;
    static const char alnum[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    static const char path[] = "-._~!$&'()*+,=:@/", query[] = "-._~!$&'()*+,;=:@/?[]";
    struct target t;
    for (int c = 0; c < 256; c++) {
        char text[] = {'/', 'a', (char)c, 'b', '?', 'a', 'b'};
        bool in_path = c && (strchr(alnum, c) || strchr(path, c) || c == '?');
        bool in_query = c && (strchr(alnum, c) || strchr(query, c));
        assert_int_equal(target_parse(span_of(text, sizeof text), &t) == ERR_OK, in_path);
        text[2] = 'x';
        text[5] = (char)c;
        assert_int_equal(target_parse(span_of(text, sizeof text), &t) == ERR_OK, in_query);
    }
}

/* Each encoded byte in a path. */
static void test_every_encoded_byte(void **state)
{
    (void)state;
    static const char hex[] = "0123456789aBcDeF";
    struct target t;
    for (int c = 0; c < 256; c++) {
        char text[] = {'/', 'a', '%', hex[c >> 4], hex[c & 15], 'x'};
        bool expected = c >= 0x20 && c != 0x7f && c != '/' && c != '\\' && c != ';' && c != '%';
        assert_int_equal(target_parse(span_of(text, sizeof text), &t) == ERR_OK, expected);
    }
}

/* Every spelling of "." and ".." as a segment, first, middle and last. */
static void test_every_spelling_of_dot_segments(void **state)
{
    (void)state;
    static const char *const dots[] = {".", "%2e", "%2E"};
    struct target t;
    static const char *const shapes[] = {"/%s%s%s/b", "/a/%s%s%s/b", "/a/%s%s%s"};
    char text[32];
    for (size_t i = 0; i < 3; i++)
        for (size_t j = 0; j < 4; j++)
            for (size_t shape = 0; shape < 3; shape++) {
                const char *second = j < 3 ? dots[j] : "";
                snprintf(text, sizeof text, shapes[shape], dots[i], second, "");
                assert_int_equal(target_parse(span_str(text), &t), ERR_PARSE);
                snprintf(text, sizeof text, shapes[shape], dots[i], second, "x");
                assert_int_equal(target_parse(span_str(text), &t), ERR_OK);
            }
}

static void test_host_lengths(void **state)
{
    (void)state;
    char text[256];
    struct span host;
    memset(text, 'a', sizeof text);
    assert_int_equal(host_parse(span_of(text, 255), &host), ERR_OK);
    assert_int_equal(host_parse(span_of(text, 256), &host), ERR_PARSE);
}

static void test_host_port(void **state)
{
    (void)state;
    struct span host;
    assert_int_equal(host_parse(SPAN("a:00080"), &host), ERR_OK);
    assert_int_equal(host_parse(SPAN("a:000080"), &host), ERR_PARSE);
    assert_int_equal(host_parse(SPAN("a:1x"), &host), ERR_PARSE);
    assert_int_equal(host_parse(SPAN("[::1]:"), &host), ERR_PARSE);
    assert_int_equal(host_parse(SPAN("[1.2.3.4]"), &host), ERR_PARSE);
    assert_int_equal(host_parse(SPAN("[]"), &host), ERR_PARSE);
    assert_int_equal(host_parse(SPAN("["), &host), ERR_PARSE);
    assert_int_equal(host_parse(SPAN("[::ffff:1.2.3.4]"), &host), ERR_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts_point_into_the_text),
        cmocka_unit_test(test_absent_parts_are_null),
        cmocka_unit_test(test_a_refused_target_changes_nothing),
        cmocka_unit_test(test_every_byte),
        cmocka_unit_test(test_every_encoded_byte),
        cmocka_unit_test(test_every_spelling_of_dot_segments),
        cmocka_unit_test(test_host_lengths),
        cmocka_unit_test(test_host_port),
    };
    return cmocka_run_group_tests_name("target", tests, NULL, NULL);
}
