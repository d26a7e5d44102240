/* What released versions of llhttp accept and must not reach us: each row of the list was fed to llhttp 8.1
 * to 9.4 and is here with the verdict that the gateway gives, whatever llhttp it was built with. Rows about
 * chunked framing go through body.c, which replaced llhttp there. */
#include "helper_trace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>

enum verdict {
    ACCEPTED, /* a whole message was understood */
    REFUSED,
    EITHER, /* legal, but some versions of llhttp refuse it */
};

struct row {
    const char *why;
    enum verdict verdict;
    bool is_response;
    struct span bytes;
};

#define GET     "GET /widget/a HTTP/1.1\r\nHost: a\r\n"
#define POST    "POST /widget/a HTTP/1.1\r\nHost: a\r\n"
#define CHUNKED POST "Transfer-Encoding: chunked\r\n\r\n"
#define OK      "HTTP/1.1 200 OK\r\n"
#define REQ(why, verdict, text)                                                                              \
    {                                                                                                        \
        why, verdict, false, SPAN(text)                                                                      \
    }
#define RES(why, verdict, text)                                                                              \
    {                                                                                                        \
        why, verdict, true, SPAN(text)                                                                       \
    }

static const struct row rows[] = {
    REQ("the plain request", ACCEPTED, GET "\r\n"),
    RES("the plain response", ACCEPTED, OK "Content-Length: 0\r\n\r\n"),

    /* the head scan's part */
    REQ("bare CR starts a field: CVE-2023-30589", REFUSED,
        POST "x:\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    REQ("CR LF CR X ends the head", REFUSED, GET "A: b\r\n\rX"),
    REQ("fold before Content-Length: CVE-2024-27982", REFUSED,
        POST "Foo: bar\r\n Content-Length: 38\r\n\r\n"),
    REQ("fold behind an empty value", REFUSED, GET "X:\r\n Y: z\r\n\r\n"),
    REQ("folded coding", REFUSED, POST "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    REQ("bare LF behind the request line", REFUSED, "GET /widget/a HTTP/1.1\nHost: a\r\n\r\n"),
    REQ("blank line CR LF LF", REFUSED, "GET /widget/a HTTP/1.1\r\nHost: a\r\n\n"),
    REQ("empty name", REFUSED, GET ": Bar\r\n\r\n"),
    REQ("space in a name", REFUSED, GET "Foo Bar: x\r\n\r\n"),

    /* chunks */
    REQ("chunk size CR X", REFUSED, CHUNKED "5\rXhello\r\n0\r\n\r\n"),
    REQ("chunk data without CRLF", REFUSED, CHUNKED "5\r\nhelloXX0\r\n\r\n"),
    REQ("chunk data CR X", REFUSED, CHUNKED "5\r\nhello\rX0\r\n\r\n"),
    REQ("last chunk CR X", REFUSED, CHUNKED "0\rX\r\n\r\n"),
    REQ("trailer section ended by CR LF LF", REFUSED, CHUNKED "0\r\nA: b\r\n\n"),
    REQ("Content-Length as a trailer: dropped", ACCEPTED, CHUNKED "0\r\nContent-Length: 5\r\n\r\n"),
    REQ("chunk of 2^64 - 1", REFUSED, CHUNKED "ffffffffffffffff\r\n"),
    REQ("60 zeros in a chunk size", REFUSED,
        CHUNKED "000000000000000000000000000000000000000000000000000000000000\r\n\r\n"),
    REQ("chunk extensions", ACCEPTED, CHUNKED "5;a=b;c=\"d\"\r\nhello\r\n0\r\n\r\n"),
    REQ("escaped quote in an extension", ACCEPTED, CHUNKED "5;a=\"\\\"\"\r\nhello\r\n0\r\n\r\n"),

    /* request targets */
    REQ("HTAB in the target", REFUSED, "GET /widget/a\tb HTTP/1.1\r\nHost: a\r\n\r\n"),
    REQ("byte 0x80 in the target", REFUSED, "GET /widget/a\x80 HTTP/1.1\r\nHost: a\r\n\r\n"),
    REQ("form feed in the target", REFUSED, "GET /widget/a\fb HTTP/1.1\r\nHost: a\r\n\r\n"),
    REQ("two slashes", REFUSED, "GET //x HTTP/1.1\r\nHost: a\r\n\r\n"),
    REQ("userinfo", REFUSED, "GET http://u@a/widget/a HTTP/1.1\r\nHost: a\r\n\r\n"),
    REQ("unsafe characters", REFUSED, "GET /widget/\"<>\\^{} HTTP/1.1\r\nHost: a\r\n\r\n"),
    REQ("fragment", REFUSED, "GET /widget/a#frag HTTP/1.1\r\nHost: a\r\n\r\n"),

    /* versions and methods */
    REQ("no version", REFUSED, "GET /widget/a\r\nHost: a\r\n\r\n"),
    REQ("HTTP/0.9", REFUSED, "GET /widget/a HTTP/0.9\r\nHost: a\r\n\r\n"),
    REQ("HTTP/2.0", REFUSED, "GET /widget/a HTTP/2.0\r\nHost: a\r\n\r\n"),
    REQ("RTSP method", REFUSED, "SETUP /widget/a RTSP/1.0\r\nHost: a\r\n\r\n"),
    REQ("RTSP with a method of ours", REFUSED, "OPTIONS /widget/a RTSP/1.0\r\nHost: a\r\n\r\n"),
    REQ("ICE method", REFUSED, "SOURCE /widget/a ICE/1.0\r\nHost: a\r\n\r\n"),
    REQ("CONNECT", REFUSED, "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"),
    REQ("HTTP/2 preface", REFUSED, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),

    /* Host and Connection */
    REQ("no Host", REFUSED, "GET /widget/a HTTP/1.1\r\n\r\n"),
    REQ("two Hosts", REFUSED, GET "Host: a\r\n\r\n"),
    REQ("Host with a space", REFUSED, "GET /widget/a HTTP/1.1\r\nHost: a b\r\n\r\n"),
    REQ("close before an HTAB", ACCEPTED, GET "Connection: close\t\r\n\r\n"),

    /* lengths and codings */
    REQ("repeated length", REFUSED, POST "Content-Length: 0\r\nContent-Length: 0\r\n\r\n"),
    REQ("list of lengths", REFUSED, POST "Content-Length: 5, 5\r\n\r\nhello"),
    REQ("length with a sign", REFUSED, POST "Content-Length: +5\r\n\r\nhello"),
    REQ("hexadecimal length", REFUSED, POST "Content-Length: 0x5\r\n\r\nhello"),
    REQ("length of 2^64 - 1", REFUSED, POST "Content-Length: 18446744073709551615\r\n\r\n"),
    REQ("length between HTABs", EITHER, POST "Content-Length:\t5\t\r\n\r\nhello"),
    REQ("length and coding", REFUSED,
        POST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    REQ("coding and length", REFUSED,
        POST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
    REQ("empty coding and length", REFUSED, POST "Transfer-Encoding: \r\nContent-Length: 5\r\n\r\nhello"),
    REQ("empty element before chunked", REFUSED, POST "Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n"),
    REQ("gzip, chunked", REFUSED, POST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    REQ("xchunked", REFUSED, POST "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    REQ("chunked, chunked", REFUSED, POST "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    REQ("coding in HTTP/1.0", REFUSED,
        "POST /widget/a HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),

    /* responses */
    RES("status of two digits", REFUSED, "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n"),
    RES("two spaces before the status", REFUSED, "HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n"),
    RES("chunked before an HTAB: read to its last chunk", ACCEPTED,
        OK "Transfer-Encoding: chunked\t\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
    RES("204 with a length has no body", ACCEPTED, "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"),
    RES("304 with a length has no body", ACCEPTED, "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
    RES("304 with chunked has no body", ACCEPTED,
        "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n"),
    RES("100 with a length has no body", ACCEPTED, "HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n"),
    RES("101 with chunked has no body", ACCEPTED,
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"),
    RES("ICE response", REFUSED, "ICE/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
};

static bool ends_well(const char *trace, size_t n)
{
    return n >= 4 && memcmp(trace + n - 4, "end\n", 4) == 0;
}

static void test_row(void **state)
{
    const struct row *row = *state;
    struct trace_options options = trace_options_default();
    options.is_response = row->is_response;
    char text[4096];
    struct tracer t;
    tracer_init(&t, &options, text, sizeof text - 1);
    tracer_feed(&t, row->bytes.p, row->bytes.n);
    bool is_refused = t.state == TRACER_REFUSED;
    tracer_finish(&t);
    text[t.out.n] = '\0';
    bool is_accepted = ends_well(text, t.out.n);
    if (is_refused == is_accepted) fail_msg("neither accepted nor refused:\n%s", text);
    if (row->verdict == ACCEPTED && !is_accepted) fail_msg("refused:\n%s", text);
    if (row->verdict == REFUSED && !is_refused) fail_msg("accepted:\n%s", text);
}

/* Not a row: 1 MiB of extension. */
static void test_endless_chunk_extension(void **state)
{
    (void)state;
    static char extension[1 << 20];
    memset(extension, 'a', sizeof extension);
    struct trace_options options = trace_options_default();
    char text[4096];
    struct tracer t;
    tracer_init(&t, &options, text, sizeof text);
    tracer_feed(&t, CHUNKED "5;", sizeof(CHUNKED "5;") - 1);
    tracer_feed(&t, extension, sizeof extension);
    assert_int_equal(t.state, TRACER_REFUSED);
    tracer_finish(&t);
}

int main(void)
{
    enum { NROWS = sizeof rows / sizeof rows[0] };
    struct CMUnitTest tests[NROWS + 1];
    for (size_t i = 0; i < NROWS; i++)
        tests[i] = (struct CMUnitTest){
            .name = rows[i].why, .test_func = test_row, .initial_state = (void *)(uintptr_t)&rows[i]};
    tests[NROWS] =
        (struct CMUnitTest){.name = "endless chunk extension", .test_func = test_endless_chunk_extension};
    return cmocka_run_group_tests_name("llhttp", tests, NULL, NULL);
}
