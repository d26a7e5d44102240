/* The relay: chunk framing, many runs, short writes, failures of the stream. */
#include "helper_pipe.h"

#include "base/outbuf.h"
#include "proxy/relay.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void check_got(struct test_pipe *p, const char *want)
{
    test_pipe_take(p);
    assert_string_equal(p->got, want);
}

static void a_head_and_plain_data_pass_as_they_are(void **state)
{
    struct test_pipe *p = *state;
    struct relay r;
    relay_begin(&r, &p->stream, false);
    relay_raw(&r, SPAN("HEAD\r\n\r\n"));
    relay_data(&r, SPAN("one"));
    relay_data(&r, SPAN(""));
    relay_data(&r, SPAN("two"));
    relay_end(&r); /* the length has said where it ends */
    assert_int_equal(p->stream.bytes_out, 0);
    assert_int_equal(relay_flush(&r), ERR_OK);
    assert_int_equal(r.written, 14);
    assert_int_equal(p->stream.bytes_out, 14);
    check_got(p, "HEAD\r\n\r\nonetwo");
}

static void chunks_get_their_framing(void **state)
{
    struct test_pipe *p = *state;
    struct relay r;
    relay_begin(&r, &p->stream, true);
    relay_raw(&r, SPAN("HEAD\r\n\r\n"));
    relay_data(&r, SPAN("hello, chunk"));
    relay_data(&r, SPAN("!"));
    relay_end(&r);
    assert_int_equal(relay_flush(&r), ERR_OK);
    check_got(p, "HEAD\r\n\r\nc\r\nhello, chunk\r\n1\r\n!\r\n0\r\n\r\n");
    assert_int_equal(r.written, p->ngot);
}

/* "0 CRLF" would be the end of the body. */
static void an_empty_run_is_no_chunk(void **state)
{
    struct test_pipe *p = *state;
    struct relay r;
    relay_begin(&r, &p->stream, true);
    relay_data(&r, SPAN(""));
    relay_data(&r, SPAN("a"));
    relay_data(&r, SPAN(""));
    assert_int_equal(relay_flush(&r), ERR_OK);
    check_got(p, "1\r\na\r\n");
    relay_end(&r);
    assert_int_equal(relay_flush(&r), ERR_OK);
    check_got(p, "1\r\na\r\n0\r\n\r\n");
}

static void an_empty_body_is_only_its_end(void **state)
{
    struct test_pipe *p = *state;
    struct relay r;
    relay_begin(&r, &p->stream, true);
    relay_end(&r);
    assert_int_equal(relay_flush(&r), ERR_OK);
    check_got(p, "0\r\n\r\n");
}

static void nothing_gathered_writes_nothing(void **state)
{
    struct test_pipe *p = *state;
    struct relay r;
    relay_begin(&r, &p->stream, true);
    assert_int_equal(relay_flush(&r), ERR_OK);
    assert_int_equal(relay_flush(&r), ERR_OK);
    assert_int_equal(r.written, 0);
    check_got(p, "");
}

/* More runs than the relay and one write can hold, each of another size, in both framings. */
static void many_runs_keep_their_order(void **state)
{
    struct test_pipe *p = *state;
    enum { RUNS = 200, BYTES = 300 };
    char *data = malloc(RUNS * BYTES), *want = malloc(RUNS * (BYTES + 16));
    assert_non_null(data);
    assert_non_null(want);
    for (size_t i = 0; i < RUNS * BYTES; i++)
        data[i] = (char)(i * 31 + i / 251);
    for (int chunked = 0; chunked < 2; chunked++) {
        struct relay r;
        struct outbuf o = outbuf_of(want, RUNS * (BYTES + 16));
        p->ngot = 0;
        relay_begin(&r, &p->stream, chunked);
        for (int i = 0; i < RUNS; i++) {
            struct span run = span_of(data + i * BYTES, (size_t)(i % BYTES) + 1);
            if (chunked) outbuf_fmt(&o, "%zx\r\n", run.n);
            outbuf_span(&o, run);
            if (chunked) outbuf_str(&o, "\r\n");
            relay_data(&r, run);
            if (i % 77 == 0) assert_int_equal(relay_flush(&r), ERR_OK);
        }
        assert_int_equal(relay_flush(&r), ERR_OK);
        test_pipe_take(p);
        assert_int_equal(p->ngot, o.n);
        assert_memory_equal(p->got, want, o.n);
        assert_int_equal(r.written, o.n);
    }
    free(data);
    free(want);
}

/* The three slices of a chunk always fit: whatever number of raw slices stands before them. */
static void raw_bytes_and_chunks_share_one_write(void **state)
{
    struct test_pipe *p = *state;
    for (int raws = 0; raws <= STREAM_IOV_MAX; raws++) {
        struct relay r;
        char want[1024];
        struct outbuf o = outbuf_of(want, sizeof want);
        p->ngot = 0;
        relay_begin(&r, &p->stream, true);
        for (int i = 0; i < raws; i++, outbuf_char(&o, 'r'))
            relay_raw(&r, SPAN("r"));
        for (int i = 0; i < RELAY_RUNS_MAX; i++, outbuf_str(&o, "1\r\nd\r\n"))
            relay_data(&r, SPAN("d"));
        relay_end(&r);
        outbuf_str(&o, "0\r\n\r\n");
        assert_int_equal(relay_flush(&r), ERR_OK);
        test_pipe_take(p);
        assert_int_equal(p->ngot, o.n);
        assert_memory_equal(p->got, want, o.n);
    }
}

/* The framing of a run lives in the relay only until the flush: what waits must have been copied. */
static void what_waits_in_the_stream_survives_the_relay(void **state)
{
    struct test_pipe *p = *state;
    enum { BIG = 1024 * 1024 };
    char *data = malloc(BIG), want[32];
    assert_non_null(data);
    memset(data, 'd', BIG);
    {
        struct relay r;
        relay_begin(&r, &p->stream, true);
        relay_data(&r, span_of(data, BIG));
        relay_data(&r, SPAN("tail"));
        relay_end(&r);
        assert_int_equal(relay_flush(&r), ERR_OK);
        memset(&r, 0xa5, sizeof r);
    }
    memset(data, 0xa5, BIG);
    assert_true(stream_is_blocked(&p->stream));
    test_pipe_take(p);
    int nsize = snprintf(want, sizeof want, "%x\r\n", (unsigned)BIG);
    assert_memory_equal(p->got, want, (size_t)nsize);
    for (size_t i = 0; i < BIG; i++)
        assert_int_equal(p->got[(size_t)nsize + i], 'd');
    assert_string_equal(p->got + nsize + BIG, "\r\n4\r\ntail\r\n0\r\n\r\n");
    free(data);
}

static void a_failure_of_any_write_is_reported_at_the_end(void **state)
{
    struct test_pipe *p = *state;
    struct relay r;
    test_pipe_break(p);
    relay_begin(&r, &p->stream, true);
    for (int i = 0; i < 3 * RELAY_RUNS_MAX; i++) /* the first of these writes fails */
        relay_data(&r, SPAN("x"));
    assert_int_equal(relay_flush(&r), ERR_RESET);
    assert_int_equal(relay_flush(&r), ERR_RESET); /* and is not forgotten */
    relay_begin(&r, &p->stream, true);
    assert_int_equal(relay_flush(&r), ERR_OK);
    relay_data(&r, SPAN("x"));
    assert_int_equal(relay_flush(&r), ERR_RESET); /* the stream has not forgotten either */
}

/* Whoever wants to take a head back has to know whether it is out. */
static void says_whether_anything_was_given_away(void **state)
{
    struct test_pipe *p = *state;
    struct relay r;
    relay_begin(&r, &p->stream, true);
    assert_int_equal(relay_flush(&r), ERR_OK);
    assert_false(r.flushed);
    relay_raw(&r, SPAN("HEAD"));
    for (int i = 0; i < RELAY_RUNS_MAX; i++)
        relay_data(&r, SPAN("x"));
    assert_false(r.flushed);
    relay_data(&r, SPAN("y")); /* one too many: those before it go out */
    assert_true(r.flushed);
    assert_int_equal(relay_flush(&r), ERR_OK);
}

#define RELAY_TEST(name) cmocka_unit_test_setup_teardown(name, test_pipe_setup, test_pipe_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RELAY_TEST(a_head_and_plain_data_pass_as_they_are),
        RELAY_TEST(chunks_get_their_framing),
        RELAY_TEST(an_empty_run_is_no_chunk),
        RELAY_TEST(an_empty_body_is_only_its_end),
        RELAY_TEST(nothing_gathered_writes_nothing),
        RELAY_TEST(many_runs_keep_their_order),
        RELAY_TEST(raw_bytes_and_chunks_share_one_write),
        RELAY_TEST(what_waits_in_the_stream_survives_the_relay),
        RELAY_TEST(a_failure_of_any_write_is_reported_at_the_end),
        RELAY_TEST(says_whether_anything_was_given_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
