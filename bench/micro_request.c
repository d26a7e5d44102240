/* micro_request.c - micro-request: what the steps of one request cost on one core, ns each.
 *
 * Every step runs over and over on the same bytes, so caches are warm: these are lower bounds. Thread
 * processor time, best of several repetitions. Steps with a textbook counterpart have it in the next row. */
#include "base/clock.h"
#include "base/log_line.h"
#include "base/metrics.h"
#include "base/outbuf.h"
#include "base/random.h"
#include "http/head.h"
#include "http/scan.h"
#include "policy/token.h"

#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { REPETITIONS = 7, LOOPS = 100000 };

static const char request[] = "GET /widget/transactions/0190c5b2-7a64-7000-8000-3f2a9c1d5e77 HTTP/1.1\r\n"
                              "Host: api.example.com\r\n"
                              "User-Agent: acme-exchange/4.2 (linux; go1.22)\r\n"
                              "Accept: application/json\r\n"
                              "Accept-Encoding: gzip\r\n"
                              "Authorization: Bearer pX3vTq8mZrK1wYs6bNf0cJh5dLg2aEuQoRiVtWyMxUk\r\n"
                              "X-Correlation-Id: 7c9e6679-7425-40de-944b-e07fc1f90ae7\r\n"
                              "\r\n";
static const char response[] = "HTTP/1.1 200 OK\r\n"
                               "Date: Fri, 20 Nov 2026 12:00:00 GMT\r\n"
                               "Content-Type: application/json\r\n"
                               "Content-Length: 142\r\n"
                               "\r\n";
static const char authorization[] = "Bearer pX3vTq8mZrK1wYs6bNf0cJh5dLg2aEuQoRiVtWyMxUk";
static const struct head_limits limits = {.fields_max = 100, .target_bytes_max = 8192, .alias = ALIAS_DROP};

static struct http_parser *parser;
static struct token_hasher *hasher;
static struct metrics_block *metrics;
static struct random_source randomness;
static struct req_head req;
static struct res_head res;
static char out[LOG_LINE_MAX];
static uint64_t sink; /* so that nothing is optimised away */

static uint64_t now_ns(void)
{
    struct timespec t;
    if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t)) abort();
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void step_head_scan(void)
{
    struct head_scan s;
    head_scan_init(&s);
    sink += (uint64_t)head_scan(&s, request, sizeof request - 1);
}

static void step_head_scan_portable(void)
{
    struct head_scan s;
    head_scan_init(&s);
    sink += (uint64_t)head_scan_portable(&s, request, sizeof request - 1);
}

/* Finds the end and checks nothing. */
static void step_memmem(void)
{
    sink += (uintptr_t)memmem(request, sizeof request - 1, "\r\n\r\n", 4);
}

static void step_parse_request(void)
{
    if (http_parse_request(parser, request, sizeof request - 1, &limits, &req)) abort();
    sink += req.nfields;
}

static void step_parse_response(void)
{
    if (http_parse_response(parser, response, sizeof response - 1, &limits, METHOD_GET, &res)) abort();
    sink += res.nfields;
}

static void step_token_parse(void)
{
    struct span token;
    if (token_parse_authorization(SPAN(authorization), &token)) abort();
    sink += token.n;
}

static void step_token_digest(void)
{
    uint8_t digest[TOKEN_DIGEST_BYTES];
    if (token_digest(hasher, span_of(authorization + 7, sizeof authorization - 8), digest)) abort();
    sink += digest[0];
}

static void step_sha256(void)
{
    uint8_t digest[TOKEN_DIGEST_BYTES];
    if (!SHA256((const uint8_t *)authorization + 7, sizeof authorization - 8, digest)) abort();
    sink += digest[0];
}

static void step_uuid7(void)
{
    uuid7_write(&randomness, 1795000000000, out);
    sink += (uint8_t)out[35];
}

static void step_time(void)
{
    clock_rfc3339(1795000000000 + (sink & 1023), out);
    sink += (uint8_t)out[10];
}

static void step_json_text(void)
{
    struct outbuf o = outbuf_of(out, sizeof out);
    outbuf_json(&o, SPAN("/widget/transactions/0190c5b2-7a64-7000-8000-3f2a9c1d5e77"));
    sink += o.n;
}

static void step_log_line(void)
{
    const struct kv kv[] = {KV_STR("partner_id", "acme-exchange"), KV_UINT("version", 17), {.kind = KV_END}};
    sink += log_line_format(out, 1795000000000, LOG_INFO, "control", "partner_changed", kv);
}

static void step_snprintf_line(void)
{
    sink += (uint64_t)snprintf(
        out, sizeof out, "time=%s level=%s thread=%s event=%s partner_id=%s version=%llu\n",
        "2026-11-20T12:00:00.000Z", "info", "control", "partner_changed", "acme-exchange", 17ULL);
}

static void step_count_request(void)
{
    metrics_count_request(metrics, 0, 0, 0, 200);
}

static void step_observe(void)
{
    metrics_observe(metrics, METRIC_HTTP_REQUEST_DURATION, 0, 1700 + (sink++ & 255));
}

static void measure(const char *name, void (*step)(void))
{
    uint64_t best = UINT64_MAX;
    for (int r = 0; r < REPETITIONS; r++) {
        uint64_t from = now_ns();
        for (int i = 0; i < LOOPS; i++)
            step();
        uint64_t spent = now_ns() - from;
        if (spent < best) best = spent;
    }
    (void)printf("%-44s %7.1f ns\n", name, (double)best / LOOPS);
}

int main(void)
{
    parser = http_parser_create();
    hasher = token_hasher_create();
    metrics = metrics_block_create();
    random_source_init(&randomness);
    if (!parser || !hasher || !metrics) {
        (void)fputs("out of memory\n", stderr);
        return EXIT_FAILURE;
    }
    (void)printf("request head %zu bytes, answer head %zu bytes\n", sizeof request - 1, sizeof response - 1);
    measure("head_scan", step_head_scan);
    measure("  without vector instructions", step_head_scan_portable);
    measure("  memmem, which checks nothing", step_memmem);
    measure("http_parse_request", step_parse_request);
    measure("http_parse_response", step_parse_response);
    measure("token_parse_authorization", step_token_parse);
    measure("token_digest", step_token_digest);
    measure("  SHA256() of libcrypto", step_sha256);
    measure("uuid7_write", step_uuid7);
    measure("clock_rfc3339", step_time);
    measure("outbuf_json, a path", step_json_text);
    measure("log_line_format, two pairs", step_log_line);
    measure("  snprintf, which escapes nothing", step_snprintf_line);
    measure("metrics_count_request", step_count_request);
    measure("metrics_observe", step_observe);

    metrics_deinit();
    token_hasher_destroy(hasher);
    http_parser_destroy(parser);
    return sink ? EXIT_SUCCESS : EXIT_FAILURE; /* never 0: it reads what was measured */
}
