/* routes.h - what the demo backend answers: request in, answer out, no I/O.
 *
 *   POST /widget/session                     201, a session; repeats merchant_transaction_id of the request
 *   GET  /widget/transactions/{id}           200, a status
 *   GET  /widget/users/{id}/kyc-status       200
 *   any  /widget/echo                        200, the request as it arrived: every field in order, digest of
 * the body any  /widget/bytes/N                     200, N bytes with Content-Length any
 * /widget/chunked/N[/SIZE]            200, N bytes in chunks of SIZE (default 4096) any
 * /widget/close-delimited/N           200, N bytes, the end of the connection is the end of the body any
 * /widget/status/CODE                 CODE (200..599) any
 * /widget/slow?first_byte_ms=&body_ms=&bytes=&step=&gap_ms= waits before the head, before the body, and
 * between steps of the body
 *
 * With `early_hints=1` in the query a 103 comes first. The N bytes are "abc...zabc...".
 *
 * Thread: [any, pure].
 */
#ifndef DEMO_ROUTES_H
#define DEMO_ROUTES_H

#include "demo/worker.h"

enum { DEMO_SHA256_LEN = 32 };

/* A complete request. All spans are borrowed until the answer is made. */
struct demo_request {
    const struct req_head *head;
    struct span path, query;
    struct span body;    /* its first DEMO_BODY_KEPT_MAX bytes */
    uint64_t body_bytes; /* its whole length */
    uint8_t body_sha256[DEMO_SHA256_LEN];
};

enum demo_framing { DEMO_LENGTH, DEMO_CHUNKED, DEMO_UNTIL_CLOSE };

struct demo_answer {
    uint16_t status;
    enum demo_framing framing;
    bool close;           /* the connection ends after it */
    bool no_body;         /* HEAD, 204, 304 */
    bool early_hints;     /* a 103 first */
    struct span json;     /* the body, in the worker's buffer; p == NULL: `left` bytes of the alphabet */
    uint64_t bytes;       /* body length */
    uint64_t left;        /* bytes not sent yet */
    uint32_t chunk_bytes; /* with DEMO_CHUNKED */
    uint32_t step_bytes;  /* most body bytes between two gaps */
    uint32_t first_byte_ms, body_ms, gap_ms;
};

/* Splits the target of `head` into path and query. */
void demo_split_target(const struct req_head *head, struct demo_request *r);

/* Fills `a`. A JSON body lies in `w->json`. */
void demo_route(struct demo_worker *w, const struct demo_request *r, struct demo_answer *a);

/* The value of `name` in a query string, raw; p == NULL when it is not there. */
struct span demo_query(struct span query, struct span name);

/* The number that is the value of `name`, at most `max`; `fallback` when it is absent or not one. */
uint32_t demo_query_u32(struct span query, struct span name, uint32_t max, uint32_t fallback);

#endif
