/* The WebSocket handshake and the follower of frames. */
#include "http/ws.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

/* RFC 6455 section 1.3. */
static const struct span key = {"dGhlIHNhbXBsZSBub25jZQ==", 24};
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

/* ---- handshake ---- */

static const struct head_limits limits = {.fields_max = 100, .target_bytes_max = 100};

static bool response_is_accepted(const char *text)
{
    static struct res_head res;
    struct http_parser *parser = http_parser_create();
    assert_non_null(parser);
    enum head_refusal r = http_parse_response(parser, text, strlen(text), &limits, METHOD_GET, &res);
    http_parser_destroy(parser);
    return r == HEAD_REFUSAL_NONE && ws_is_accepting_response(&res, key);
}

static bool key_is_accepted(const char *value)
{
    static struct req_head req;
    char text[256];
    struct span got;
    int n = snprintf(text, sizeof text,
                     "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
                     "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n",
                     value);
    struct http_parser *parser = http_parser_create();
    assert_non_null(parser);
    assert_int_equal(http_parse_request(parser, text, (size_t)n, &limits, &req), HEAD_REFUSAL_NONE);
    http_parser_destroy(parser);
    return ws_is_upgrade_request(&req, &got);
}

static void test_accept_of_the_rfc_example(void **state)
{
    (void)state;
    char out[WS_ACCEPT_LEN];
    assert_int_equal(ws_accept(key, out), ERR_OK);
    assert_memory_equal(out, ACCEPT, WS_ACCEPT_LEN);
}

#define SWITCHING "HTTP/1.1 101 Switching Protocols\r\n"
#define FIELDS    "Upgrade: WebSocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " ACCEPT "\r\n"

static void test_accepting_response(void **state)
{
    (void)state;
    assert_true(response_is_accepted(SWITCHING FIELDS "\r\n"));
    assert_true(response_is_accepted(SWITCHING FIELDS "Sec-WebSocket-Protocol: chat\r\n\r\n"));
}

static void test_responses_that_do_not_accept(void **state)
{
    (void)state;
    assert_false(response_is_accepted("HTTP/1.1 200 OK\r\n" FIELDS "\r\n"));
    assert_false(response_is_accepted("HTTP/1.0 101 Switching Protocols\r\n" FIELDS "\r\n"));
    assert_false(response_is_accepted(SWITCHING FIELDS "Content-Length: 0\r\n\r\n"));
    assert_false(response_is_accepted(SWITCHING FIELDS "Transfer-Encoding: chunked\r\n\r\n"));
    assert_false(response_is_accepted(SWITCHING FIELDS "Sec-WebSocket-Accept: " ACCEPT "\r\n\r\n"));
    assert_false(response_is_accepted(SWITCHING FIELDS "Upgrade: h2c\r\n\r\n"));
    assert_false(response_is_accepted(SWITCHING "Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n"));
    assert_false(response_is_accepted(SWITCHING
                                      "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                                      "Sec-WebSocket-Accept: S3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"));
}

static void test_keys(void **state)
{
    (void)state;
    assert_true(key_is_accepted("AAAAAAAAAAAAAAAAAAAAAA=="));
    assert_true(key_is_accepted("+////////////////////w=="));
    assert_false(key_is_accepted("AAAAAAAAAAAAAAAAAAAAAB==")); /* bits behind the 16th byte */
    assert_false(key_is_accepted("AAAAAAAAAAAAAAAAAAAAAAA="));
    assert_false(key_is_accepted("AAAAAAAAAAAAAAAAAAAA=A=="));
    assert_false(key_is_accepted("AAAAAAAAAAAAAAAAAAAAA-=="));
    assert_false(key_is_accepted("AAAAAAAAAAAAAAAAAAAAAA=== "));
    assert_false(key_is_accepted(""));
}

/* ---- frames ---- */

static struct ws_follower follow(bool masked, struct span bytes)
{
    struct ws_follower f;
    ws_follower_init(&f, masked);
    ws_follow(&f, bytes.p, bytes.n);
    return f;
}

static void test_examples_of_the_rfc(void **state)
{
    (void)state; /* section 5.7 */
    struct ws_follower f = follow(false, SPAN("\x81\x05Hello"));
    assert_int_equal(f.messages, 1);
    f = follow(true, SPAN("\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"));
    assert_int_equal(f.messages, 1);
    f = follow(false, SPAN("\x01\x03Hel\x80\x02lo"));
    assert_int_equal(f.messages, 1);
    assert_true(ws_at_boundary(&f));
    f = follow(false, SPAN("\x89\x05Hello"));
    assert_int_equal(f.messages, 0);
    assert_true(ws_at_boundary(&f));
}

static void test_control_frames_inside_a_message(void **state)
{
    (void)state;
    struct ws_follower f = follow(false, SPAN("\x01\x01"
                                              "a\x89\x00\x00\x01"
                                              "b\x8a\x01x\x80\x00\x82\x00"));
    assert_int_equal(f.messages, 2);
    assert_false(f.close_seen);
    assert_true(ws_at_boundary(&f));
}

static void test_close_is_seen_when_it_has_passed(void **state)
{
    (void)state;
    struct ws_follower f = follow(false, SPAN("\x88\x02\x03"));
    assert_false(f.close_seen);
    assert_false(ws_at_boundary(&f));
    ws_follow(&f, "\xe8", 1);
    assert_true(f.close_seen);
    assert_true(ws_at_boundary(&f));
}

static void test_boundary(void **state)
{
    (void)state;
    struct ws_follower f = follow(true, SPAN(""));
    assert_true(ws_at_boundary(&f));
    static const char frame[] = "\x82\x81\x01\x02\x03\x04z";
    for (size_t i = 0; i < sizeof frame - 1; i++) {
        ws_follow(&f, frame + i, 1);
        assert_int_equal(ws_at_boundary(&f), i == sizeof frame - 2);
    }
}

static void test_lengths_in_their_shortest_form_only(void **state)
{
    (void)state;
    assert_false(follow(false, SPAN("\x82\x7e\x00\x7e")).lost);
    assert_true(follow(false, SPAN("\x82\x7e\x00\x7d")).lost);
    assert_false(follow(false, SPAN("\x82\x7f\0\0\0\0\x00\x01\x00\x00")).lost);
    assert_true(follow(false, SPAN("\x82\x7f\0\0\0\0\x00\x00\xff\xff")).lost);
    assert_false(follow(false, SPAN("\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff")).lost);
    assert_true(follow(false, SPAN("\x82\x7f\x80\0\0\0\0\0\0\0")).lost);
}

static void test_mask_must_fit_the_direction(void **state)
{
    (void)state;
    assert_true(follow(true, SPAN("\x81\x05")).lost);
    assert_true(follow(false, SPAN("\x81\x85")).lost);
}

static void test_control_frames_are_short_and_whole(void **state)
{
    (void)state;
    assert_false(follow(false, SPAN("\x89\x7d")).lost);
    assert_true(follow(false, SPAN("\x89\x7e")).lost);
    assert_true(follow(false, SPAN("\x09\x00")).lost);
}

static void test_reserved_bits_are_not_judged(void **state)
{
    (void)state;
    struct ws_follower f = follow(false, SPAN("\xc1\x01"
                                              "a\xf2\x00"));
    assert_false(f.lost);
    assert_int_equal(f.messages, 2);
}

static void test_a_lost_follower_counts_no_more(void **state)
{
    (void)state;
    struct ws_follower f = follow(false, SPAN("\x81\x00\x81\x85"));
    ws_follow(&f, "\x81\x00\x81\x00", 4);
    assert_true(f.lost);
    assert_int_equal(f.messages, 1);
    assert_false(ws_at_boundary(&f));
}

static size_t frame_put(char *at, unsigned first, bool masked, size_t payload)
{
    size_t n = 0;
    at[n++] = (char)first;
    at[n++] = (char)((masked ? 0x80 : 0) | (payload < 126 ? payload : payload < 65536 ? 126 : 127));
    unsigned nbytes = payload < 126 ? 0 : payload < 65536 ? 2 : 8;
    for (unsigned i = nbytes; i > 0; i--)
        at[n++] = (char)(payload >> (8 * (i - 1)));
    if (masked) memcpy(at + n, "mask", 4), n += 4;
    memset(at + n, 0x81, payload); /* looks like a header */
    return n + payload;
}

/* A stream with every form of length, cut at every byte (and into single bytes), counts the same. */
static void test_split_at_every_byte(void **state)
{
    (void)state;
    enum { STREAM_MAX = 140000 };
    char *stream = malloc(STREAM_MAX);
    assert_non_null(stream);
    for (int masked = 0; masked < 2; masked++) {
        static const struct {
            unsigned first;
            size_t payload;
        } frames[] = {{0x81, 5}, {0x01, 126}, {0x89, 3}, {0x80, 0}, {0x82, 65535}, {0x82, 65536}, {0x88, 2}};
        size_t n = 0;
        for (size_t i = 0; i < sizeof frames / sizeof frames[0]; i++)
            n += frame_put(stream + n, frames[i].first, masked, frames[i].payload);
        assert_true(n <= STREAM_MAX);
        for (size_t cut = 0; cut <= n; cut++) {
            struct ws_follower f = follow(masked, span_of(stream, cut));
            ws_follow(&f, stream + cut, n - cut);
            assert_true(f.messages == 4 && f.close_seen && ws_at_boundary(&f));
        }
        struct ws_follower f;
        ws_follower_init(&f, masked);
        for (size_t i = 0; i < n; i++)
            ws_follow(&f, stream + i, 1);
        assert_true(f.messages == 4 && f.close_seen && ws_at_boundary(&f));
    }
    free(stream);
}

static void test_close_frame(void **state)
{
    (void)state;
    char out[127], reason[123];
    assert_int_equal(ws_close_frame(1008, SPAN("revoked"), out), 11);
    assert_memory_equal(out, "\x88\x09\x03\xf0revoked", 11);
    assert_int_equal(ws_close_frame(1001, SPAN(""), out), 4);
    assert_memory_equal(out, "\x88\x02\x03\xe9", 4);
    memset(reason, 'r', sizeof reason);
    size_t n = ws_close_frame(1012, span_of(reason, sizeof reason), out);
    assert_int_equal(n, 127);
    struct ws_follower f = follow(false, span_of(out, n));
    assert_true(f.close_seen);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accept_of_the_rfc_example),
        cmocka_unit_test(test_accepting_response),
        cmocka_unit_test(test_responses_that_do_not_accept),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_examples_of_the_rfc),
        cmocka_unit_test(test_control_frames_inside_a_message),
        cmocka_unit_test(test_close_is_seen_when_it_has_passed),
        cmocka_unit_test(test_boundary),
        cmocka_unit_test(test_lengths_in_their_shortest_form_only),
        cmocka_unit_test(test_mask_must_fit_the_direction),
        cmocka_unit_test(test_control_frames_are_short_and_whole),
        cmocka_unit_test(test_reserved_bits_are_not_judged),
        cmocka_unit_test(test_a_lost_follower_counts_no_more),
        cmocka_unit_test(test_split_at_every_byte),
        cmocka_unit_test(test_close_frame),
    };
    return cmocka_run_group_tests_name("ws", tests, NULL, NULL);
}
