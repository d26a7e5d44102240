/* client.h - what the load generator counts, and one of its connections.
 *
 * Closed loop: each connection has at most one request (or WebSocket message) under way. So it measures how
 * much work gets done and whether all of it is right; it says nothing about latency under a fixed rate.
 *
 *   CONNECTING -> WAITING (request sent) -> ... -> WAITING -> done
 *                    `-> TUNNEL (101) -> echo, echo, ... or HOLDING
 *
 * Thread: all of it runs on one loop.
 */
#ifndef LOAD_CLIENT_H
#define LOAD_CLIENT_H

#include "http/body.h"
#include "http/head.h"
#include "net/stream.h"

enum { LOAD_REQUEST_MAX = 16 * 1024, LOAD_ERRORS_SHOWN = 5, LOAD_OPENING_MAX = 128 };

/* What to do; fixed before the start. */
struct load_plan {
    struct socket_address target;
    const char *host;
    const char *path;
    const char *headers;    /* complete lines for every request */
    const char *const *own; /* one header line for each connection in turn; NULL = none */
    uint32_t nown;
    const char *body; /* POST it; NULL = GET */
    uint32_t connections;
    uint64_t requests; /* in all; WebSocket: messages per tunnel */
    bool websocket;
    bool hold; /* after the first answer, stay open and idle */
};

struct load {
    struct loop loop;
    const struct load_plan *plan;
    struct http_parser *parser;
    struct load_client *clients; /* one per connection */
    uint32_t opened;             /* connections started for the first time */
    uint32_t ready;              /* of these: connected and answered once */
    uint32_t held;               /* idle, on purpose */
    uint32_t finished;           /* connections with nothing left to do */
    uint64_t started, answered;  /* requests or messages */
    uint64_t not_2xx, errors, reconnects;
    bool over;                           /* the result is known: closing */
    struct res_head head;                /* scratch */
    char out[LOAD_REQUEST_MAX];          /* scratch */
    void (*on_holding)(struct load *l);  /* every connection is held */
    void (*on_finished)(struct load *l); /* every connection is finished */
};

/* Opens connections, at most LOAD_OPENING_MAX at a time. Call once; the rest follows by itself. */
void load_open_more(struct load *l);

/* Closes every connection; no further counting. */
void load_close_all(struct load *l);

struct load_client *load_clients_create(struct load *l);

#endif
