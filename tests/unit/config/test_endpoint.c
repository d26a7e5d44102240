/* Endpoints and host names: every text form, and what is near it and refused. */
#include "config/endpoint.h"

#include "config/hostname.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct endpoint parse_good(const char *text, bool for_listening)
{
    struct endpoint e;
    struct errmsg why;
    if (endpoint_parse(span_str(text), for_listening, &e, &why)) fail_msg("\"%s\": %s", text, why.text);
    assert_string_equal(e.text, text);
    return e;
}

static void parse_bad(const char *text, bool for_listening)
{
    struct endpoint e = {.port = 77};
    struct errmsg why = {0};
    if (endpoint_parse(span_str(text), for_listening, &e, &why) != ERR_PARSE)
        fail_msg("\"%s\" accepted", text);
    assert_int_equal(e.port, 77);
    assert_true(why.text[0] != 0);
}

static void test_ip(void **state)
{
    (void)state;
    struct endpoint v4 = parse_good("127.0.0.1:8080", true);
    assert_int_equal(v4.kind, ENDPOINT_IP);
    assert_int_equal(v4.addr.family, ADDR_V4);
    assert_int_equal(v4.addr.v4, 0x7f000001);
    assert_int_equal(v4.port, 8080);
    struct endpoint v6 = parse_good("[::1]:65535", false);
    assert_int_equal(v6.addr.family, ADDR_V6);
    assert_int_equal(v6.addr.v6.lo, 1);
    assert_int_equal(v6.port, 65535);
    assert_false(v6.wildcard);
}

static void test_wildcard_is_for_listening(void **state)
{
    (void)state;
    struct endpoint any = parse_good("*:80", true);
    assert_int_equal(any.kind, ENDPOINT_IP);
    assert_true(any.wildcard);
    assert_int_equal(any.addr.family, ADDR_V6);
    assert_int_equal(any.addr.v6.hi | any.addr.v6.lo, 0);
    assert_false(parse_good("0.0.0.0:80", true).wildcard);
    parse_bad("*:80", false);
    parse_bad("0.0.0.0:80", false);
    parse_bad("[::]:80", false);
}

static void test_names_are_for_connecting(void **state)
{
    (void)state;
    struct endpoint name = parse_good("Backend-1.Internal:9000", false);
    assert_int_equal(name.kind, ENDPOINT_NAME);
    assert_string_equal(name.host, "backend-1.internal");
    assert_int_equal(name.port, 9000);
    assert_string_equal(parse_good("my_service:1", false).host, "my_service");
    parse_bad("localhost:8080", true);
}

static void test_port_zero_is_for_listening(void **state)
{
    (void)state;
    assert_int_equal(parse_good("127.0.0.1:0", true).port, 0);
    parse_bad("127.0.0.1:0", false);
    parse_bad("backend:0", false);
}

static void test_unix_paths(void **state)
{
    (void)state;
    char longest[5 + 107 + 1] = "unix:/", longer[5 + 108 + 1] = "unix:/";
    memset(longest + 6, 'a', 106);
    memset(longer + 6, 'a', 107);
    struct endpoint e = parse_good("unix:/run/proof gw.sock", true);
    assert_int_equal(e.kind, ENDPOINT_UNIX);
    assert_string_equal(e.host, "/run/proof gw.sock");
    assert_string_equal(parse_good("unix:a:b", false).host, "a:b");
    assert_int_equal(strlen(parse_good(longest, true).host), 107);
    parse_bad(longer, true);
    parse_bad("unix:", true);
    parse_bad("unix:///run/x", true);
}

static void test_malformed(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",           ":",           "8080",          ":8080",      "127.0.0.1",      "127.0.0.1:",
        "1.2.3.4:x",  "1.2.3.4:-1",  "1.2.3.4:+1",    "1.2.3.4: 1", "1.2.3.4:65536",  "1.2.3.4:80:80",
        "::1:80",     "[::1]",       "[::1:80",       "::1]:80",    "[]:80",          "[1.2.3.4]:80",
        "[::1]80",    "[::1]x:80",   "[fe80::1%1]:1", "1.2.3:80",   "1.2.3.4.5:80",   "256.1.1.1:80",
        "01.2.3.4:1", "http://a:80", "a b:80",        "-a:80",      "a-:80",          "a..b:80",
        "a.:80",      ".a:80",       "user@a:80",     "a/b:80",     "\xc3\xa4.de:80", " 1.2.3.4:80",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        parse_bad(bad[i], false);
        parse_bad(bad[i], true);
    }
}

static void test_too_long(void **state)
{
    (void)state;
    char text[400];
    memset(text, 'a', sizeof text);
    memcpy(text + 390, ":80", 4);
    parse_bad(text, false);
    struct endpoint e;
    struct errmsg why;
    assert_int_equal(endpoint_parse(span_of("a\0b:80", 6), false, &e, &why), ERR_PARSE);
}

static void test_virtual_hosts(void **state)
{
    (void)state;
    static const char *const good[] = {"localhost",  "api.example.com",      "127.0.0.1",
                                       "[::1]",      "[2001:db8::1]",        "a_b.c",
                                       "1a.example", "xn--bcher-kva.example"};
    static const char *const bad[] = {"",    "*",        "*.a",    "a.",        "a:80",  "[::1]:80",
                                      "::1", "[::1",     "[::01]", "[1.2.3.4]", "1.2.3", "1.2.3.4.5",
                                      "a/b", "http://a", "a b",    "[",         "[]",    "[::FFFF:1.2.3.4]"};
    struct errmsg why;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        if (virtual_host_check(span_str(good[i]), &why)) fail_msg("\"%s\": %s", good[i], why.text);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (!virtual_host_check(span_str(bad[i]), &why)) fail_msg("\"%s\" was accepted", bad[i]);
}

static void test_label_and_name_lengths(void **state)
{
    (void)state;
    struct errmsg why;
    char name[260];
    memset(name, 'a', sizeof name);
    assert_int_equal(hostname_check(span_of(name, 63), &why), ERR_OK);
    assert_int_equal(hostname_check(span_of(name, 64), &why), ERR_PARSE);
    for (size_t i = 49; i < sizeof name; i += 50)
        name[i] = '.';
    assert_int_equal(hostname_check(span_of(name, 253), &why), ERR_OK);
    assert_int_equal(hostname_check(span_of(name, 254), &why), ERR_PARSE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ip),
        cmocka_unit_test(test_wildcard_is_for_listening),
        cmocka_unit_test(test_names_are_for_connecting),
        cmocka_unit_test(test_port_zero_is_for_listening),
        cmocka_unit_test(test_unix_paths),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_too_long),
        cmocka_unit_test(test_virtual_hosts),
        cmocka_unit_test(test_label_and_name_lengths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
