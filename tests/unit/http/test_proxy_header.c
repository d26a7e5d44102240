/* PROXY headers: the bounds, and that not one byte behind the header is taken. The syntax is in
 * tests/http/proxy-header.md. */
#include "http/proxy_header.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

enum { V2_FIXED = 16 };

/* A header of version 2 with `length` bytes behind the fixed ones: an IPv4 address, then zeros. */
static char *v2_make(uint16_t length)
{
    static const char fixed[] = "\r\n\r\n\0\r\nQUIT\n\x21\x11";
    static const char addresses[] = "\xc0\x00\x02\x01\xc6\x33\x64\x01\xdc\x04\x01\xbb";
    char *p = calloc(1, V2_FIXED + (size_t)length + sizeof addresses);
    assert_non_null(p);
    memcpy(p, fixed, sizeof fixed - 1);
    p[14] = (char)(length >> 8);
    p[15] = (char)length;
    memcpy(p + V2_FIXED, addresses, sizeof addresses - 1);
    return p;
}

static void expect_done(const char *p, size_t header, size_t total, uint32_t source)
{
    for (size_t first = 0; first <= total; first++) {
        struct proxy_header h;
        size_t used = 0, at = first;
        proxy_header_init(&h);
        enum proxy_header_result r = proxy_header_feed(&h, p, first, &used);
        assert_int_equal(r, first < header ? PROXY_HEADER_MORE : PROXY_HEADER_DONE);
        assert_int_equal(used, first < header ? first : header);
        if (r == PROXY_HEADER_MORE) {
            assert_int_equal(proxy_header_feed(&h, p + at, total - at, &used), PROXY_HEADER_DONE);
            assert_int_equal(used, header - at);
        }
        assert_int_equal(h.source.family, ADDR_V4);
        assert_int_equal(h.source.v4, source);
    }
}

static void what_is_behind_the_header_is_left_alone(void **state)
{
    static const char v1[] = "PROXY TCP4 192.0.2.1 198.51.100.1 1 2\r\nPROXY GET \r\n";
    (void)state;
    expect_done(v1, (size_t)(strchr(v1, '\n') + 1 - v1), sizeof v1 - 1, 0xc0000201);
    char *v2 = v2_make(12 + 7);
    expect_done(v2, V2_FIXED + 19, V2_FIXED + 19 + 9, 0xc0000201);
    free(v2);
}

static void the_bounds_of_version_2(void **state)
{
    (void)state;
    for (unsigned length = 0; length <= UINT16_MAX; length++) {
        if (length > 20 && length < PROXY_V2_BYTES_MAX - V2_FIXED - 2 && length % 97) continue;
        struct proxy_header h;
        size_t used, total = V2_FIXED + length;
        char *p = v2_make((uint16_t)length);
        proxy_header_init(&h);
        enum proxy_header_result r = proxy_header_feed(&h, p, total, &used);
        bool is_fine = length >= 12 && total <= PROXY_V2_BYTES_MAX;
        assert_int_equal(r, is_fine ? PROXY_HEADER_DONE : PROXY_HEADER_REFUSED);
        if (is_fine)
            assert_int_equal(used, total);
        else
            assert_int_equal(h.refusal, PROXY_REFUSAL_LENGTH);
        free(p);
    }
}

static void a_line_is_refused_at_its_107th_byte(void **state)
{
    char line[PROXY_V1_BYTES_MAX + 1];
    struct proxy_header h;
    size_t used;
    (void)state;
    memset(line, 'x', sizeof line);
    memcpy(line, "PROXY UNKNOWN ", strlen("PROXY UNKNOWN "));
    proxy_header_init(&h);
    assert_int_equal(proxy_header_feed(&h, line, PROXY_V1_BYTES_MAX - 1, &used), PROXY_HEADER_MORE);
    assert_int_equal(proxy_header_feed(&h, "x", 1, &used), PROXY_HEADER_REFUSED);
    assert_int_equal(h.refusal, PROXY_REFUSAL_LINE_LENGTH);
    memcpy(line + PROXY_V1_BYTES_MAX - 2, "\r\n", 2);
    proxy_header_init(&h);
    assert_int_equal(proxy_header_feed(&h, line, sizeof line, &used), PROXY_HEADER_DONE);
    assert_int_equal(used, PROXY_V1_BYTES_MAX);
}

static void every_first_byte_but_two_is_refused_at_once(void **state)
{
    (void)state;
    for (unsigned byte = 0; byte < 256; byte++) {
        struct proxy_header h;
        size_t used;
        char c = (char)byte;
        proxy_header_init(&h);
        enum proxy_header_result r = proxy_header_feed(&h, &c, 1, &used);
        assert_int_equal(r, c == 'P' || c == '\r' ? PROXY_HEADER_MORE : PROXY_HEADER_REFUSED);
        if (r == PROXY_HEADER_REFUSED) assert_int_equal(h.refusal, PROXY_REFUSAL_SIGNATURE);
    }
}

static void every_reason_has_a_name(void **state)
{
    (void)state;
    for (unsigned r = 0; r < PROXY_REFUSAL_COUNT; r++)
        assert_true(strlen(proxy_refusal_names[r]) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_behind_the_header_is_left_alone),
        cmocka_unit_test(the_bounds_of_version_2),
        cmocka_unit_test(a_line_is_refused_at_its_107th_byte),
        cmocka_unit_test(every_first_byte_but_two_is_refused_at_once),
        cmocka_unit_test(every_reason_has_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
