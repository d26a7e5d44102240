/* load.h - a load: which connection does what and when, and what is counted.
 *
 *   OPENING -> READY -> RUNNING -> RESTING -> OVER      stepped: waits in READY and RESTING for its caller
 *   RUNNING -> OVER                                     otherwise: connections open with their first request
 *
 * Closed loop: each connection does the next operation when its last one is complete. How much gets done, and
 * what the server spends on it, are the result. Open loop (`rate`): operation k is due at k/rate, on the
 * connection that has been idle longest; when none is idle it waits, and its latency counts from when it was
 * due.
 *
 * An operation is a request with its answer (`renew`: with a connection of its own), or a WebSocket message
 * with its echo.
 *
 * Thread: all of it runs on one loop.
 */
#ifndef LOAD_LOAD_H
#define LOAD_LOAD_H

#include "load/histogram.h"

#include "http/head.h"
#include "net/loop.h"
#include "net/socket.h"

#include <openssl/ssl.h>

enum {
    LOAD_REQUEST_MAX = 16 * 1024,
    LOAD_MESSAGE_MIN = 16,
    LOAD_MESSAGE_MAX = 65535,
    LOAD_READ_BYTES = 256 * 1024,
};

/* What to do; fixed before the start. */
struct load_plan {
    struct socket_address target;
    const char *host;
    const char *path;
    const char *headers; /* complete lines for every request */
    const char *const
        *own; /* one header line for each connection, or (`rotate`) request, in turn; NULL = none */
    uint32_t nown;
    bool rotate;
    const char *body; /* POST it; NULL = GET */
    uint16_t status;  /* the one that is right; 0 = any 2xx */
    uint32_t connections;
    uint64_t operations; /* in all */
    uint64_t run_ms;     /* and not longer than this; 0 = no matter */
    uint32_t rate;       /* per second; 0 = closed loop */
    bool websocket;
    uint32_t message_bytes; /* LOAD_MESSAGE_MIN..LOAD_MESSAGE_MAX */
    bool renew;             /* a new connection for each request */
    bool tls, resume;
    bool stepped;  /* see above; the first request or upgrade of each connection is not counted */
    bool tolerant; /* a connection that is lost is counted and opened again; otherwise it is an error */
};

enum load_phase { LOAD_OPENING = 0, LOAD_READY, LOAD_RUNNING, LOAD_RESTING, LOAD_OVER };

struct load_client;

struct load {
    struct loop loop;
    const struct load_plan *plan;
    enum load_phase phase;
    struct http_parser *parser; /* owned */
    SSL_CTX *tls;               /* owned; NULL without TLS */
    struct load_client *clients;
    struct load_client **idle; /* ring of those with nothing under way, the longest idle one first */
    uint32_t nidle, idle_at;
    uint32_t opened; /* clients started for the first time */
    uint32_t ready;  /* of these: have been idle since */
    uint32_t out;    /* gave up after an error */
    bool opening;    /* inside open_more() */
    bool stopping;   /* load_stop() was called */
    uint32_t active; /* operations under way */
    uint64_t started, answered;
    uint64_t wrong_status, errors, reconnects;
    uint64_t failed, dropped; /* tolerant: operations without an answer; connections lost while idle */
    uint64_t resumed;         /* TLS handshakes, opening included */
    uint64_t begin_us, end_us;
    uint64_t requests; /* made, for `rotate` */
    struct histogram latency;
    uv_poll_t pace; /* open loop: when the next operation is due */
    int pace_fd;
    struct res_head head;                 /* scratch */
    char out_bytes[LOAD_REQUEST_MAX];     /* scratch: a request */
    char request_bytes[LOAD_REQUEST_MAX]; /* what all requests have in common: fields, empty line, body */
    size_t nfields, nrequest;             /* of these: before the empty line; in all */
    char plain[LOAD_READ_BYTES];          /* scratch: decrypted */
    char filler[LOAD_MESSAGE_MAX];        /* payload of messages, after its first LOAD_MESSAGE_MIN bytes */
    void (*on_ready)(struct load *l);     /* stepped: READY */
    void (*on_rested)(struct load *l);    /* the run is complete: RESTING */
};

/* `l` is zero but for plan and callbacks. False when memory is out or the request too long. */
bool load_init(struct load *l);
void load_deinit(struct load *l);

/* Opens connections, so many at a time as the backlog of any server allows, and runs unless `stepped`. Call
 * once. False when no timer could be had. */
bool load_begin(struct load *l);

/* READY -> RUNNING. False when no timer could be had. */
bool load_run(struct load *l);

/* Begins nothing more; on_rested comes when what is under way is complete. */
void load_stop(struct load *l);

/* Closes every connection and the loop. */
void load_end(struct load *l);

/* ---- for client.c ---- */

/* An operation of `c` is over; `due_us` is when it should have begun. */
void load_count(struct load *l, uint64_t due_us);

/* `c` has nothing under way and may get something. */
void load_idle(struct load *l, struct load_client *c);

/* `c` will do nothing any more, neither now nor, if it was idle, later. */
void load_out(struct load *l, const struct load_client *c);

#endif
