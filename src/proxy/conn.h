/* conn.h - one client connection: whose turn it is, its input, its deadline, its end.
 *
 *   accept -> (HANDSHAKE) -> IDLE -> HEAD -> EXCHANGE -> FLUSH -> IDLE ...   one request after the other,
 *                                              |           `----> LINGER -> CLOSED    answers in order
 *                                              `-> TUNNEL
 *
 * The next request is parsed only when the current exchange is over and its last byte is with the kernel;
 * what arrives early waits in `input` (bounded), then in the kernel. An idle connection owns no buffer, and
 * goes by the worker's current settings; from the first byte of a head to the end of the answer it keeps the
 * settings that it began with.
 *
 * With TLS, a client that goes away without close_notify is like one that resets: routine while the
 * connection is idle, the end of a request whose body is not whole (RFC 8446 section 6.1).
 *
 * Thread: [worker].
 */
#ifndef PROXY_CONN_H
#define PROXY_CONN_H

#include "http/scan.h"
#include "net/stream.h"
#include "proxy/caller.h"
#include "proxy/end.h"
#include "proxy/input.h"
#include "proxy/verdict_cache.h"

struct exchange;
struct tunnel;
struct worker;
struct worker_listener;
struct worker_settings;

enum conn_state {
    CONN_HANDSHAKE = 0, /* TLS. Deadline: tls_handshake */
    CONN_IDLE,          /* where a plain one begins; between requests; no buffer. Deadline: keep_alive */
    CONN_HEAD,          /* part of a head is in `input`. Deadline: request_head */
    CONN_EXCHANGE,      /* `exchange` is set. Deadline: request body rate, client write */
    CONN_FLUSH,         /* answered; the last bytes wait in the stream. Deadline: client write */
    CONN_LINGER,        /* FIN sent; input is dropped until the client's FIN. Deadline: linger */
    CONN_TUNNEL,        /* `tunnel` is set and owns the stream's events */
    CONN_CLOSED,        /* waits for the stream's on_closed, then freed */
};

struct conn {
    struct stream stream; /* first: conn_of() */
    struct worker *worker;
    struct worker_listener *listener; /* that accepted it; one reference; NULL from a tunnel on */
    struct worker_settings *settings; /* in force for it; one reference; NULL in a tunnel */
    struct conn *prev, *next;         /* worker->conns; no list_link: `next` outlasts the close (conns.c) */
    struct wheel_entry timer;         /* CONN_TUNNEL: the tunnel's */
    union {
        uint64_t head_us;          /* until exchange_create(): when the first byte of the request came */
        struct exchange *exchange; /* CONN_EXCHANGE */
        struct tunnel *tunnel;     /* CONN_TUNNEL */
    };
    struct input *input;           /* owned: received, not yet used */
    struct verdict_cache *verdict; /* owned; NULL = none */
    uint8_t *client_certificate;   /* owned: SHA-256 of the one it has shown (TLS); NULL = none */
    struct caller *named;          /* owned: where somebody in front has named the caller; NULL = nowhere */
    struct addr address;           /* who is believed to call; with forwarded_for the peer. The key in
                                      worker->sources if source_counted */
    uint64_t since_ms;             /* of the current deadline class */
    struct head_scan scan;
    uint32_t nrequests;
    uint8_t state;           /* enum conn_state */
    uint8_t ended_by;        /* enum end_who; for the log: conn_blame() */
    uint8_t ncrlf;           /* empty lines before the current request */
    bool in_drive : 1;       /* drive() is on the stack: it goes on by itself */
    bool close_after : 1;    /* the current answer is the last one */
    bool cut : 1;            /* end with RST instead of FIN: what was sent must not look complete */
    bool source_counted : 1; /* in worker->sources */
};

static inline struct conn *conn_of(struct stream *s)
{
    return (struct conn *)s;
}

/* Who calls: whom the current request names, else the connection's own caller. */
static inline struct caller conn_caller(const struct conn *c)
{
    return c->named ? *c->named : caller_of_peer(c->address);
}

static inline const struct addr *conn_address(const struct conn *c)
{
    return c->named ? &c->named->address : &c->address;
}

/* The current request names its caller. Errors: ERR_NOMEM. */
enum err conn_name_caller(struct conn *c, const struct caller *caller);

/* What the request before has named does not hold any more. */
static inline void conn_forget_caller(struct conn *c)
{
    if (c->named && c->named->origin == CALLER_X_FORWARDED_FOR) *c->named = caller_of_peer(c->address);
}

/* Somebody else than the client ends the connection: for the log, where the first one counts. */
static inline void conn_blame(struct conn *c, enum end_who who)
{
    if (c->ended_by == END_CLIENT) c->ended_by = (uint8_t)who;
}

/* Takes over an accepted socket; it is closed on failure. The caller goes on with stream_read_now() or with
 * an answer, and with conn_update(). NULL when memory is out, or the loop refuses the socket. */
struct conn *conn_create(struct worker_listener *l, int fd, const struct caller *caller);

/* For all connections of the worker: see conns.h. */
void conn_adopt(struct conn *c);
void conn_follow_mode(struct conn *c);
void conn_cut(struct conn *c);

/* The exchange is over and freed; the connection goes on with the next request or ends, as close_after and
 * cut say. */
void conn_exchange_done(struct conn *c);

/* Something changed (the backend took bytes, connected, answered): goes on with waiting input, adjusts
 * reading and deadline. May end the exchange and the connection. */
void conn_update(struct conn *c);

/* EXCHANGE -> TUNNEL; `events` get the stream from now on, `on_due` the timer, which is not set. What came
 * early is in `input`, the tunnel's to take. */
void conn_become_tunnel(struct conn *c, struct tunnel *t, const struct stream_events *events,
                        void (*on_due)(struct wheel_entry *e));

/* TUNNEL -> LINGER or CLOSED. */
void conn_tunnel_done(struct conn *c, bool linger);

/* Brings the byte counters of the metrics up to date: the stream's are 0 afterwards. */
void conn_count_bytes(struct conn *c);

/* Ends the connection so that the client can read what it was sent: FIN, then its input is dropped until it
 * ends too. Closes at once when the client has sent its FIN. */
void conn_linger(struct conn *c);

/* Closes: with FIN, or with RST when what was sent must not be taken for whole (`cut`, or bytes still wait).
 * Idempotent; the memory goes in a later turn. The exchange must be over. */
void conn_close(struct conn *c);

#endif
