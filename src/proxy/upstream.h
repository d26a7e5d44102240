/* upstream.h - one worker's connections to the backend of one environment: a pool of keep-alive
 * connections, and a queue for exchanges that have to wait for one.
 *
 *            lease (idle one)                     return (clean end)
 *   IDLE <---------------------> LEASED ------------------------------> IDLE
 *    | bytes, EOF, too old         ^  \--- tunnel opened ---> TUNNEL
 *    v                             | connected
 *   CLOSED <--- any failure --- CONNECTING <--- lease (none idle, room left)
 *
 * A connection is returned only when its answer ended exactly where its framing said and nothing followed;
 * whatever arrives while it is idle closes it. Idle connections are reused last in, first out, so that a
 * quiet pool shrinks.
 *
 * Thread: [worker].
 */
#ifndef PROXY_UPSTREAM_H
#define PROXY_UPSTREAM_H

#include "base/list.h"
#include "base/log_sample.h"
#include "http/scan.h"
#include "net/resolver.h"
#include "net/stream.h"
#include "net/tls_client.h"
#include "policy/partner.h"

struct exchange;
struct generation;
struct tls_backend;
struct upstream;
struct worker;

enum upconn_state {
    UPCONN_CONNECTING = 0, /* user set; stream connecting; writes wait */
    UPCONN_LEASED,         /* user set; stream open */
    UPCONN_IDLE,           /* in pool->idle; timer runs */
    UPCONN_TUNNEL,         /* the tunnel owns the stream's events */
    UPCONN_CLOSED,         /* waits for the stream's on_closed, then freed */
};

struct upconn {
    struct stream stream;
    struct upstream *pool;
    union {
        struct exchange *user;  /* LEASED, CONNECTING */
        void *tunnel;           /* TUNNEL: struct tunnel */
        uint64_t idle_since_ms; /* IDLE */
    };
    struct list_link link;    /* IDLE: pool->idle */
    struct wheel_entry timer; /* IDLE: too old */
    char *head;               /* owned: part of a response head */
    uint32_t head_n, head_cap;
    struct head_scan scan; /* over `head` */
    uint32_t version;      /* of the pool when it was dialled */
    uint8_t state;         /* enum upconn_state */
    bool reused;           /* it has served an exchange before */
};

/* An exchange in the queue. Embedded in struct exchange. */
struct upstream_wait {
    struct list_link link;                     /* upstream->waiting */
    void (*on_lease)(struct upstream_wait *w); /* a connection may be had now: call upstream_lease() again */
};

struct upstream {
    struct worker *worker;
    enum environment env;
    struct address_list addresses; /* n == 0: the name has not been resolved yet */
    uint32_t next_address;
    const struct tls_backend *tls;    /* of the worker's settings; client NULL = plain */
    struct tls_sessions sessions;     /* to resume with the backend */
    uint32_t version;                 /* grows when connections made before must not be used again */
    struct list_link idle;            /* head: struct upconn, newest first */
    struct list_link waiting;         /* head: struct upstream_wait, oldest first */
    uint32_t nconns, nidle, nwaiting; /* nconns: all that are not closed */
    uint32_t conns_max, idle_max, waiting_max;
    uint64_t keep_alive_ms;
    struct log_sample connect_sample, tls_sample, invalid_sample, surplus_sample;
};

/* Without addresses, and with limits of 0 until upstream_configure(). */
void upstream_init(struct upstream *u, struct worker *w, enum environment env);

void upstream_deinit(struct upstream *u);

/* Takes limits, times and TLS from a generation, now and for what is idle or waits. An environment that is
 * not in it any more keeps nothing for reuse, nor does one with other settings or certificates of TLS: what
 * is under way finishes. The generation must outlive the next call. */
void upstream_configure(struct upstream *u, const struct generation *g);

/* Closes idle connections; leased ones are closed by their users. */
void upstream_drain(struct upstream *u);

/* Replaces the addresses. Connections that are open finish what they do and are not reused. */
void upstream_set_addresses(struct upstream *u, const struct address_list *list);

/* Which connection will do. */
enum lease {
    LEASE_ANY,     /* an idle one, else a new one */
    LEASE_CHECKED, /* the same, but one that was idle for long is looked at first (one system call): for
                      requests that must not be sent twice */
    LEASE_FRESH,   /* a new one */
};

/* Gives a connection: an idle one (unless LEASE_FRESH) in state LEASED, or a new one in state CONNECTING. Or
 * queues `wait` (ERR_AGAIN), whose on_lease comes later, never before this returns. The stream's events are
 * the caller's to set: `events`. Owns: the caller, until upstream_return() or upstream_discard(). Errors:
 * ERR_AGAIN (queued); ERR_LIMIT (queue full, or no descriptor), ERR_NO_PORT and ERR_NOMEM, counted here: the
 * gateway is full; any other is about the backend: ERR_NOT_FOUND (no address known, no such unix socket),
 * ERR_REFUSED, ERR_UNREACHABLE, ERR_IO, ... */
enum err upstream_lease(struct upstream *u, struct exchange *user, struct upstream_wait *wait,
                        enum lease kind, const struct stream_events *events, struct upconn **out);

/* Write a line about a backend that fails: one a second of each kind, with the number of those that were not
 * written. A connection that was lost before it could serve the request; one whose TLS failed; an answer that
 * is not acceptable; `n` bytes outside an answer, which are counted too (`request_id`: behind the answer to
 * that request; empty: on an idle connection). */
void upstream_log_connect_failed(struct upstream *u, enum err e, struct span request_id);
void upstream_log_tls_failed(struct upstream *u, const char *cause, struct span request_id);
void upstream_log_invalid_response(struct upstream *u, const char *cause, struct span request_id);
void upstream_note_unexpected_bytes(struct upstream *u, size_t n, struct span request_id);

/* Leaves the queue; harmless when not queued. */
void upstream_wait_cancel(struct upstream *u, struct upstream_wait *wait);

/* CONNECTING -> LEASED; the caller's on_connected. */
void upconn_connected(struct upconn *c);

/* Gives back a connection whose exchange ended cleanly; it becomes idle, or is closed when enough are. */
void upstream_return(struct upconn *c);

/* Closes a connection. Idempotent. */
void upstream_discard(struct upconn *c);

/* LEASED -> TUNNEL: the exchange is over, the caller drives the stream now and ends with upstream_discard().
 */
void upconn_become_tunnel(struct upconn *c, void *tunnel, const struct stream_events *events);

static inline struct upconn *upconn_of(struct stream *s)
{
    return (struct upconn *)s; /* stream is the first member */
}

#endif
