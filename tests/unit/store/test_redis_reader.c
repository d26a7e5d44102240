/* The reply reader: pieces of any size, and each bound with its neighbour. */
#include "base/span.h"
#include "store/redis_reader.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct seen {
    unsigned replies;
    unsigned stop_after; /* 0 = never */
    size_t elements;     /* of the last one, when it is an array */
    size_t bytes;        /* of the last one, when it is a string */
    int type;
};

static bool see(const redisReply *reply, void *arg)
{
    struct seen *s = arg;
    s->replies++;
    s->type = reply->type;
    if (reply->type == REDIS_REPLY_ARRAY) s->elements = reply->elements;
    if (reply->type == REDIS_REPLY_STRING) s->bytes = reply->len;
    return s->replies != s->stop_after;
}

static enum err take(struct redis_reader *r, struct span bytes, struct seen *s)
{
    return redis_reader_take(r, bytes.p, bytes.n, see, s);
}

/* Reads `bytes` with a fresh reader. */
static enum err read_alone(struct span bytes, struct seen *s)
{
    struct redis_reader r;
    *s = (struct seen){0};
    assert_int_equal(redis_reader_init(&r), ERR_OK);
    enum err e = take(&r, bytes, s);
    if (e) assert_true(strlen(redis_reader_fault(&r)) > 0);
    redis_reader_deinit(&r);
    return e;
}

static void every_type_of_resp2(void **state)
{
    (void)state;
    struct seen s;
    struct span all =
        SPAN("+OK\r\n-ERR no\r\n:-42\r\n$3\r\nabc\r\n$0\r\n\r\n$-1\r\n*-1\r\n*0\r\n*2\r\n:1\r\n*1\r\n+x\r\n");
    assert_int_equal(read_alone(all, &s), ERR_OK);
    assert_int_equal(s.replies, 9);
    assert_int_equal(s.elements, 2);
}

static void byte_by_byte(void **state)
{
    (void)state;
    static const char text[] = "*2\r\n$3\r\na\r\n\r\n:1\r\n";
    struct redis_reader r;
    struct seen s = {0};
    assert_int_equal(redis_reader_init(&r), ERR_OK);
    for (unsigned round = 1; round <= 3; round++) {
        for (size_t i = 0; i < sizeof text - 1; i++) {
            assert_int_equal(redis_reader_is_partial(&r), i > 0);
            assert_int_equal(s.replies, round - 1);
            assert_int_equal(take(&r, span_of(text + i, 1), &s), ERR_OK);
        }
        assert_int_equal(s.replies, round);
    }
    assert_false(redis_reader_is_partial(&r));
    redis_reader_deinit(&r);
}

static void stops_when_told_to(void **state)
{
    (void)state;
    struct redis_reader r;
    struct seen s = {.stop_after = 2};
    assert_int_equal(redis_reader_init(&r), ERR_OK);
    assert_int_equal(take(&r, SPAN(":1\r\n:2\r\n:3\r\n"), &s), ERR_OK);
    assert_int_equal(s.replies, 2);
    redis_reader_deinit(&r);
}

static void what_is_no_resp2_is_refused(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "HTTP/1.1 400 Bad Request\r\n",
        "\r\n",
        "$-2\r\n",
        "$x\r\n",
        "*-2\r\n",
        "*x\r\n",
        ":x\r\n",
        "%1\r\n+a\r\n+b\r\n",
        "~1\r\n+a\r\n",
        ">1\r\n+a\r\n",

        "#t\r\n",
        ",1.5\r\n",
        "(12345\r\n",
        "|1\r\n+a\r\n+b\r\n+c\r\n",
        "=5\r\ntxt:a\r\n",
        "*1\r\n>1\r\n+a\r\n",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct seen s;
        enum err e = read_alone(span_str(wrong[i]), &s);
        if (e != ERR_PARSE) fail_msg("%s: %s", wrong[i], err_text(e));
        assert_int_equal(s.replies, 0);
    }
}

/* `depth` arrays of one element around an integer. */
static enum err read_nested(unsigned depth, struct seen *s)
{
    char text[128];
    size_t n = 0;
    for (unsigned i = 0; i < depth; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "*1\r\n");
    n += (size_t)snprintf(text + n, sizeof text - n, ":1\r\n");
    return read_alone(span_of(text, n), s);
}

static void nesting_is_bounded(void **state)
{
    (void)state;
    struct seen s;
    assert_int_equal(read_nested(REDIS_REPLY_DEPTH_MAX, &s), ERR_OK);
    assert_int_equal(s.replies, 1);
    assert_int_equal(read_nested(REDIS_REPLY_DEPTH_MAX + 1, &s), ERR_LIMIT);
    assert_int_equal(s.replies, 0);
}

/* What an array announces is refused before memory is taken for it. */
static void announced_elements_are_bounded(void **state)
{
    (void)state;
    struct seen s;
    char text[64];
    (void)snprintf(text, sizeof text, "*%d\r\n", REDIS_REPLY_ELEMENTS_MAX);
    assert_int_equal(read_alone(span_str(text), &s), ERR_OK);
    (void)snprintf(text, sizeof text, "*%d\r\n", REDIS_REPLY_ELEMENTS_MAX + 1);
    assert_int_equal(read_alone(span_str(text), &s), ERR_LIMIT);
    assert_int_equal(read_alone(SPAN("*2147483647\r\n"), &s), ERR_LIMIT);
}

/* Several arrays in one reply share the bound; the next reply has it for itself again. */
static void elements_of_inner_arrays_count(void **state)
{
    (void)state;
    struct redis_reader r;
    struct seen s = {0};
    assert_int_equal(redis_reader_init(&r), ERR_OK);
    for (unsigned i = 0; i < REDIS_REPLY_ELEMENTS_MAX / 8; i++)
        assert_int_equal(take(&r,
                              SPAN("*16\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n"
                                   ":1\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n"),
                              &s),
                         ERR_OK);
    assert_int_equal(s.replies, REDIS_REPLY_ELEMENTS_MAX / 8);
    char text[64];
    (void)snprintf(text, sizeof text, "*2\r\n*0\r\n*%d\r\n", REDIS_REPLY_ELEMENTS_MAX - 2);
    assert_int_equal(read_alone(span_str(text), &s), ERR_OK);
    (void)snprintf(text, sizeof text, "*2\r\n*0\r\n*%d\r\n", REDIS_REPLY_ELEMENTS_MAX - 1);
    assert_int_equal(read_alone(span_str(text), &s), ERR_LIMIT);
    redis_reader_deinit(&r);
}

/* A string reply of `total` bytes on the wire, with a short reply before it and part of another one behind
 * it, neither of which counts. */
static enum err read_long(size_t total, struct seen *s)
{
    char *bytes = malloc(total + 7);
    assert_non_null(bytes);
    memset(bytes, 'x', total + 7);
    int head = snprintf(bytes, total, ":1\r\n$%zu\r\n", total - 13); /* 13: "$16777203\r\n" and "\r\n" */
    assert_int_equal(head, 4 + 11);
    bytes[head] = 'x';
    memcpy(bytes + 4 + total - 2, "\r\n:1\r", 5);
    enum err e = read_alone(span_of(bytes, total + 7), s);
    free(bytes);
    return e;
}

static void bytes_of_a_reply_are_bounded(void **state)
{
    (void)state;
    struct seen s;
    assert_int_equal(read_long(REDIS_REPLY_BYTES_MAX, &s), ERR_OK);
    assert_int_equal(s.bytes, REDIS_REPLY_BYTES_MAX - 13);
    assert_int_equal(read_long(REDIS_REPLY_BYTES_MAX + 1, &s), ERR_LIMIT);
    assert_int_equal(s.replies, 1);
}

static void bytes_are_counted_for_each_reply_anew(void **state)
{
    (void)state;
    enum { BYTES = 1024 * 1024 };
    struct redis_reader r;
    struct seen s = {0};
    char *bytes = malloc(BYTES);
    assert_non_null(bytes);
    for (size_t i = 0; i < BYTES; i += 4)
        memcpy(bytes + i, ":1\r\n", 4);
    assert_int_equal(redis_reader_init(&r), ERR_OK);
    for (unsigned i = 0; i < 20; i++) /* more than the bound of one reply, all in all */
        assert_int_equal(take(&r, span_of(bytes, BYTES), &s), ERR_OK);
    assert_int_equal(s.replies, 20 * BYTES / 4);
    redis_reader_deinit(&r);
    free(bytes);
}

static void a_bulk_of_any_announced_length_only_waits(void **state)
{
    (void)state;
    struct seen s;
    assert_int_equal(read_alone(SPAN("$9223372036854775807\r\nabc"), &s), ERR_OK);
    assert_int_equal(s.replies, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_of_resp2),
        cmocka_unit_test(byte_by_byte),
        cmocka_unit_test(stops_when_told_to),
        cmocka_unit_test(what_is_no_resp2_is_refused),
        cmocka_unit_test(nesting_is_bounded),
        cmocka_unit_test(announced_elements_are_bounded),
        cmocka_unit_test(elements_of_inner_arrays_count),
        cmocka_unit_test(bytes_of_a_reply_are_bounded),
        cmocka_unit_test(bytes_are_counted_for_each_reply_anew),
        cmocka_unit_test(a_bulk_of_any_announced_length_only_waits),
    };
    return cmocka_run_group_tests_name("redis_reader", tests, NULL, NULL);
}
