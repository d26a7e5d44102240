/* head_scan(): where a head ends, what is refused, and that vector and portable code agree. */
#include "http/scan.h"
#include "support/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

static enum scan_result scan_text(const char *text, size_t n, size_t *end)
{
    struct head_scan s;
    head_scan_init(&s);
    enum scan_result r = head_scan(&s, text, n);
    *end = s.end;
    return r;
}

static void expect_refused(const char *text, size_t n)
{
    size_t end;
    assert_int_equal(scan_text(text, n, &end), SCAN_REFUSE);
}

#define EXPECT_REFUSED(lit) expect_refused(lit, sizeof(lit) - 1)

static void test_end_is_behind_the_empty_line(void **state)
{
    (void)state;
    static const char text[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\nbody\n\n\0";
    size_t end;
    assert_int_equal(scan_text(text, sizeof text - 1, &end), SCAN_DONE);
    assert_int_equal(end, 27);
}

static void test_a_head_may_have_no_field(void **state)
{
    (void)state;
    size_t end;
    assert_int_equal(scan_text("x\r\n\r\n", 5, &end), SCAN_DONE);
    assert_int_equal(end, 5);
}

static void test_incomplete_heads_want_more(void **state)
{
    (void)state;
    static const char text[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    size_t end;
    for (size_t n = 0; n < sizeof text - 1; n++)
        assert_int_equal(scan_text(text, n, &end), SCAN_MORE);
}

static void test_bare_line_ends(void **state)
{
    (void)state;
    EXPECT_REFUSED("a\nb: c\r\n\r\n");
    EXPECT_REFUSED("a\rb: c\r\n\r\n");
    EXPECT_REFUSED("a\r\r\n\r\n");
    EXPECT_REFUSED("a\r\n\n");
    EXPECT_REFUSED("a\r\nb: c\r\n\rX");
    EXPECT_REFUSED("a\n\r\n\r\n");
}

static void test_empty_start_line(void **state)
{
    (void)state;
    EXPECT_REFUSED("\r\n\r\n");
    EXPECT_REFUSED("\r\nGET");
    EXPECT_REFUSED("\n");
}

static void test_folds_and_empty_names(void **state)
{
    (void)state;
    EXPECT_REFUSED("a\r\n b\r\n\r\n");
    EXPECT_REFUSED("a\r\n\tb\r\n\r\n");
    EXPECT_REFUSED("a\r\n: b\r\n\r\n");
}

/* Every byte value in the middle of a value; only HTAB of the controls may stand there. */
static void test_every_control_byte(void **state)
{
    (void)state;
    char text[] = "GET / HTTP/1.1\r\nX: a?b\r\n\r\n";
    char *at = strchr(text, '?');
    for (int c = 0; c < 256; c++) {
        *at = (char)c;
        bool refused = (c < 0x20 && c != '\t') || c == 0x7f;
        size_t end;
        assert_int_equal(scan_text(text, sizeof text - 1, &end), refused ? SCAN_REFUSE : SCAN_DONE);
    }
}

/* Nothing behind the end is judged, nor read: it belongs to the body. */
static void test_bytes_behind_the_end(void **state)
{
    (void)state;
    size_t end;
    assert_int_equal(scan_text("a\r\n\r\n b", 7, &end), SCAN_DONE);
    assert_int_equal(scan_text("a\r\n\r\n\0\n", 7, &end), SCAN_DONE);
}

static void test_skip_crlf(void **state)
{
    (void)state;
    assert_int_equal(head_skip_crlf("\r\n\r\nG", 5, 4), 4);
    assert_int_equal(head_skip_crlf("\r\n\r\nG", 5, 1), 2);
    assert_int_equal(head_skip_crlf("\r\n\r\nG", 5, 0), 0);
    assert_int_equal(head_skip_crlf("\r", 1, 4), 0);
    assert_int_equal(head_skip_crlf("\n", 1, 4), 0);
    assert_int_equal(head_skip_crlf("", 0, 4), 0);
}

/* ---- the two implementations ---- */

/* Mostly text and whole line ends, sometimes anything: long enough runs to reach the end of a head. */
static size_t text_make(uint64_t *seed, char *out, size_t cap)
{
    static const char odd[] = "\r\n\t :\0\x7f\x1f\x80\xff";
    size_t n = random_next(seed) % cap;
    for (size_t i = 0; i < n; i++) {
        uint64_t r = random_next(seed);
        if (r % 16 < 3 && i + 1 < n) {
            out[i++] = '\r';
            out[i] = '\n';
        } else if (r % 256 < 4) {
            out[i] = odd[(r >> 8) % (sizeof odd - 1)];
        } else {
            out[i] = (char)('a' + (r >> 8) % 26);
        }
    }
    return n;
}

/* Scans `text` in pieces that grow by up to `step` bytes, in memory of exactly their size. */
static struct head_scan scan_grown(enum scan_result (*scan)(struct head_scan *, const char *, size_t),
                                   const char *text, size_t n, size_t step, enum scan_result *result)
{
    struct head_scan s;
    head_scan_init(&s);
    *result = SCAN_MORE;
    for (size_t have = 0; have < n && *result == SCAN_MORE;) {
        have = n - have < step ? n : have + step;
        *result = scan(&s, text, have);
    }
    return s;
}

static void test_both_agree_on_random_text(void **state)
{
    (void)state;
    enum { ROUNDS = 1000000, LONGEST = 80 };
    uint64_t seed = 0x9e3779b97f4a7c15;
    char text[LONGEST];
    unsigned seen[3] = {0};
    for (unsigned i = 0; i < ROUNDS; i++) {
        size_t n = text_make(&seed, text, sizeof text);
        size_t step = i % 4 ? LONGEST : 1 + random_next(&seed) % 20;
        enum scan_result fast, plain, whole;
        struct head_scan a = scan_grown(head_scan, text, n, step, &fast);
        struct head_scan b = scan_grown(head_scan_portable, text, n, LONGEST, &plain);
        scan_grown(head_scan, text, n, LONGEST, &whole);
        assert_int_equal(fast, plain);
        assert_int_equal(whole, plain);
        assert_int_equal(a.end, b.end);
        seen[plain]++;
    }
    for (unsigned r = 0; r < 3; r++)
        assert_true(seen[r] > ROUNDS / 100); /* the generator reaches every answer */
}

/* Each interesting pair of bytes at every offset of a block, so that it also lies across two blocks. */
static void test_both_agree_at_every_offset(void **state)
{
    (void)state;
    static const char bytes[] = "\r\n\t :a\0\x7f";
    enum { LEN = 40 };
    char *text = malloc(LEN); /* exactly its size: a read behind it is found */
    assert_non_null(text);
    for (size_t at = 0; at + 3 < LEN; at++)
        for (size_t k = 0; k < 8 * 8 * 8; k++) {
            memset(text, 'a', LEN);
            memcpy(text + 5, "\r\n", 2);
            text[at] = bytes[k & 7], text[at + 1] = bytes[k >> 3 & 7], text[at + 2] = bytes[k >> 6];
            enum scan_result fast, plain, bytewise;
            struct head_scan a = scan_grown(head_scan, text, LEN, LEN, &fast);
            struct head_scan b = scan_grown(head_scan_portable, text, LEN, LEN, &plain);
            scan_grown(head_scan, text, LEN, 1, &bytewise);
            assert_int_equal(fast, plain);
            assert_int_equal(bytewise, plain);
            assert_int_equal(a.end, b.end);
        }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_end_is_behind_the_empty_line),
        cmocka_unit_test(test_a_head_may_have_no_field),
        cmocka_unit_test(test_incomplete_heads_want_more),
        cmocka_unit_test(test_bare_line_ends),
        cmocka_unit_test(test_empty_start_line),
        cmocka_unit_test(test_folds_and_empty_names),
        cmocka_unit_test(test_every_control_byte),
        cmocka_unit_test(test_bytes_behind_the_end),
        cmocka_unit_test(test_skip_crlf),
        cmocka_unit_test(test_both_agree_on_random_text),
        cmocka_unit_test(test_both_agree_at_every_offset),
    };
    return cmocka_run_group_tests_name("scan", tests, NULL, NULL);
}
