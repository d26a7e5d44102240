/* body_read() where a golden trace cannot look: what each call takes, limits, and what follows the end. */
#include "http/body.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static const struct body_limits wide = {UINT64_MAX, 1000, 1000};
static const struct body_limits ten = {10, 1000, 1000};

static void expect_read(struct body_reader *r, struct span in, enum body_result result, size_t used,
                        struct span data)
{
    struct span got;
    size_t took;
    assert_int_equal(body_read(r, in.p, in.n, &took, &got), result);
    assert_int_equal(took, used);
    assert_true(span_eq(got, data));
}

static void test_no_body_is_done_at_once(void **state)
{
    (void)state;
    struct body_reader r;
    body_reader_init(&r, BODY_NONE, 0, &wide);
    assert_true(body_is_done(&r));
    expect_read(&r, SPAN("GET"), BODY_OK, 0, SPAN(""));
}

static void test_length_takes_no_byte_too_many(void **state)
{
    (void)state;
    struct body_reader r;
    body_reader_init(&r, BODY_LENGTH, 5, &wide);
    expect_read(&r, SPAN("hel"), BODY_OK, 3, SPAN("hel"));
    assert_false(body_is_done(&r));
    expect_read(&r, SPAN("loGET"), BODY_OK, 2, SPAN("lo"));
    assert_true(body_is_done(&r));
    expect_read(&r, SPAN("GET"), BODY_OK, 0, SPAN(""));
    assert_int_equal(r.total, 5);
}

static void test_what_is_skipped_counts(void **state)
{
    (void)state;
    struct body_reader r;
    body_reader_init(&r, BODY_LENGTH, 10, &ten);
    expect_read(&r, SPAN("he"), BODY_OK, 2, SPAN("he"));
    body_skip(&r, 5);
    assert_int_equal(r.total, 7);
    expect_read(&r, SPAN("rldGET"), BODY_OK, 3, SPAN("rld"));
    assert_true(body_is_done(&r));
    body_reader_init(&r, BODY_LENGTH, 10, &ten);
    body_skip(&r, 10);
    assert_true(body_is_done(&r));
}

static void test_length_over_the_limit(void **state)
{
    (void)state;
    struct body_reader r;
    body_reader_init(&r, BODY_LENGTH, 11, &ten);
    expect_read(&r, SPAN("hello"), BODY_TOO_LARGE, 0, SPAN(""));
    body_reader_init(&r, BODY_LENGTH, 10, &ten);
    expect_read(&r, SPAN("hello"), BODY_OK, 5, SPAN("hello"));
}

static void test_until_close_is_never_done(void **state)
{
    (void)state;
    struct body_reader r;
    body_reader_init(&r, BODY_UNTIL_CLOSE, 0, &ten);
    expect_read(&r, SPAN("hello"), BODY_OK, 5, SPAN("hello"));
    assert_false(body_is_done(&r));
    expect_read(&r, SPAN("worlds"), BODY_OK, 5, SPAN("world"));
    expect_read(&r, SPAN("s"), BODY_TOO_LARGE, 0, SPAN(""));
}

static void test_chunked_gives_one_run_a_call(void **state)
{
    (void)state;
    struct body_reader r;
    body_reader_init(&r, BODY_CHUNKED, 0, &wide);
    expect_read(&r, SPAN("2\r\nab\r\n3\r\ncde\r\n0\r\n\r\nGET"), BODY_OK, 5, SPAN("ab"));
    expect_read(&r, SPAN("\r\n3\r\ncde\r\n0\r\n\r\nGET"), BODY_OK, 8, SPAN("cde"));
    expect_read(&r, SPAN("\r\n0\r\n\r\nGET"), BODY_OK, 7, SPAN(""));
    assert_true(body_is_done(&r));
    expect_read(&r, SPAN("GET"), BODY_OK, 0, SPAN(""));
    assert_int_equal(r.total, 5);
}

static void test_chunked_stops_inside_a_chunk(void **state)
{
    (void)state;
    struct body_reader r;
    body_reader_init(&r, BODY_CHUNKED, 0, &wide);
    expect_read(&r, SPAN("a\r\n"), BODY_OK, 3, SPAN(""));
    expect_read(&r, SPAN("0123"), BODY_OK, 4, SPAN("0123"));
    expect_read(&r, SPAN("456789\r"), BODY_OK, 6, SPAN("456789"));
}

static void test_a_refused_body_stays_refused(void **state)
{
    (void)state;
    struct body_reader r;
    struct span data;
    size_t used;
    body_reader_init(&r, BODY_CHUNKED, 0, &wide);
    assert_int_equal(body_read(&r, "x", 1, &used, &data), BODY_REFUSED);
    assert_int_equal(body_read(&r, "0\r\n\r\n", 5, &used, &data), BODY_REFUSED);
    assert_int_equal(used, 0);
    assert_false(body_is_done(&r));
}

static void test_chunks_add_up_to_the_limit(void **state)
{
    (void)state;
    struct body_reader r;
    struct span data;
    size_t used;
    body_reader_init(&r, BODY_CHUNKED, 0, &ten);
    expect_read(&r, SPAN("9\r\n123456789\r\n"), BODY_OK, 12, SPAN("123456789"));
    expect_read(&r, SPAN("\r\n1\r\n0"), BODY_OK, 6, SPAN("0"));
    assert_int_equal(body_read(&r, "\r\n1\r\n0", 6, &used, &data), BODY_TOO_LARGE);
    assert_int_equal(body_read(&r, "0", 1, &used, &data), BODY_TOO_LARGE);
}

/* The largest sizes that 16 digits can say do not wrap around. */
static void test_huge_chunks(void **state)
{
    (void)state;
    struct body_reader r;
    struct span data;
    size_t used;
    body_reader_init(&r, BODY_CHUNKED, 0, &wide);
    expect_read(&r, SPAN("fffffffffffffffe\r\na"), BODY_OK, 19, SPAN("a"));
    assert_int_equal(r.left, UINT64_MAX - 2);
    body_reader_init(&r, BODY_CHUNKED, 0, &wide);
    expect_read(&r, SPAN("1\r\na"), BODY_OK, 4, SPAN("a"));
    assert_int_equal(body_read(&r, "\r\nffffffffffffffff\r\n", 20, &used, &data), BODY_TOO_LARGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_body_is_done_at_once),
        cmocka_unit_test(test_length_takes_no_byte_too_many),
        cmocka_unit_test(test_what_is_skipped_counts),
        cmocka_unit_test(test_length_over_the_limit),
        cmocka_unit_test(test_until_close_is_never_done),
        cmocka_unit_test(test_chunked_gives_one_run_a_call),
        cmocka_unit_test(test_chunked_stops_inside_a_chunk),
        cmocka_unit_test(test_a_refused_body_stays_refused),
        cmocka_unit_test(test_chunks_add_up_to_the_limit),
        cmocka_unit_test(test_huge_chunks),
    };
    return cmocka_run_group_tests_name("body", tests, NULL, NULL);
}
