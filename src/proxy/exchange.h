/* exchange.h - one request and its answer.
 *
 *   head -> parse -> target -> decide --deny--> reply                       (admission.c)
 *                                 `--allow--> lease -> head                 (exchange.c)
 *                                                        `-> body           (request_body.c)
 *                                                        `-> answer -> client, or tunnel (answer.c)
 *
 * Two sides with the same three states: the request side (client to backend) and the response side (backend
 * to client). Early answers and half-closes need no states of their own. The rewritten request head is kept
 * until the first byte of the answer, so that a request on a stale pooled connection can be sent once more
 * when that is safe.
 *
 * Who ended it, and in which phase, is given once, to exchange_free().
 *
 * Thread: [worker].
 */
#ifndef PROXY_EXCHANGE_H
#define PROXY_EXCHANGE_H

#include "base/arena.h"
#include "base/random.h"
#include "http/body.h"
#include "http/reply.h"
#include "http/target.h"
#include "http/ws.h"
#include "policy/decide.h"
#include "policy/partner_view.h"
#include "proxy/conn.h"
#include "proxy/end.h"
#include "proxy/upstream.h"

enum exchange_state {
    EXCHANGE_START = 0,  /* up NULL; being parsed and decided, inside one call */
    EXCHANGE_WAITING,    /* up NULL, queued in the pool */
    EXCHANGE_CONNECTING, /* up set, not connected; nothing sent */
    EXCHANGE_ACTIVE,     /* up set and connected */
    EXCHANGE_DROPPING,   /* up NULL; answered by the gateway, the rest of the request body is read and dropped
                          */
};

enum side_state { SIDE_HEAD = 0, SIDE_BODY, SIDE_DONE };

struct exchange {
    struct conn *conn;
    struct upconn *up; /* CONNECTING, ACTIVE */
    struct exchange *next_free;
    struct upstream_wait wait;
    struct wheel_entry timer; /* backend: queue, connect, answer */
    struct arena arena;
    struct body_reader req_body, res_body;
    uint8_t state;    /* enum exchange_state */
    uint8_t req, res; /* enum side_state */

    /* the request */
    uint8_t method, minor, route; /* enum http_method, HTTP/1.minor, enum route */
    bool has_env;
    uint8_t env, slot, deny; /* enum environment (has_env), token_slot and deny (decided) */
    uint8_t place; /* enum partner_place: what it takes of its partner's limits; the tunnel's from 101 on */
    bool expect_continue;
    bool upgrade;      /* asks for a tunnel; counted in worker->nupgrades */
    bool continued;    /* expect_continue: 100 Continue has come, or body without it */
    bool head_sent;    /* the request head was given to the upstream stream */
    bool answer_began; /* a byte of the answer has arrived */
    bool retried;      /* sent once more, on a new connection */
    bool drops_body;   /* the backend takes no more of it: what still comes is read and dropped */
    uint8_t connect_attempts;
    uint8_t ninterim;       /* 1xx answers */
    struct span head;       /* rewritten head, in the arena */
    struct span path;       /* for the log, in the arena */
    struct span partner_id; /* in the arena; p NULL when unknown */
    uint32_t partner;       /* index */
    char request_id[UUID_LEN];
    char ws_key[WS_KEY_LEN];
    uint8_t digest[TOKEN_DIGEST_BYTES]; /* of the token, for a denial or a tunnel */
    uint64_t body_since_ms;   /* minimum rate: when the body began, shifted by the time we would not read */
    uint64_t body_last_ms;    /* when its last bytes came */
    uint64_t paused_since_ms; /* we do not read the body since; 0 = we do */
    uint64_t up_out_start;    /* up->stream.bytes_out when it was leased */
    uint64_t up_out_mark;     /* and when progress was last looked at */

    /* the answer */
    uint16_t status;            /* sent to the client; 0 = nothing */
    bool keep_alive;            /* the client asked for it, and its request is no reason against it */
    bool res_chunked;           /* framing towards the client */
    bool res_until_close;       /* the client takes the end of the connection for the end of the answer */
    bool up_keep_alive;         /* the backend's connection may be used again */
    bool reused;                /* the last upstream connection had served another exchange: may_retry() */
    uint8_t refusal;            /* enum head_refusal */
    uint32_t retry_after_s;     /* of a 429; 0 = as usual */
    uint8_t end_who, end_phase; /* DROPPING: what exchange_finish() will say */

    /* for log and metrics: microseconds, monotonic; 0 = did not happen */
    uint64_t started_us, leased_us, connected_us, sent_us, answered_us;
    uint64_t bytes_in, bytes_out; /* head and body, as on the client's wire chunk framing included */
};

/* A whole request head; `c` is in CONN_EXCHANGE. The exchange may be over when this returns. */
void exchange_start(struct conn *c, const char *head, size_t n);

/* A head of `n` bytes that is refused before parsing; nothing in it is fit for the log. */
void exchange_refuse(struct conn *c, size_t n, enum head_refusal why);

/* A head that did not arrive in time: 408. */
void exchange_refuse_late(struct conn *c);

/* The client went away inside a head: there is no exchange, only a count. */
void exchange_count_lost_head(struct conn *c);

/* Request body bytes; returns how many were used (0: the backend cannot take any now, or these bytes belong
 * to the next request). The exchange may be over when this returns. */
size_t exchange_feed(struct exchange *x, const char *p, size_t n);

/* Sends the request head if it still waits for body bytes to travel with. The exchange may be over when this
 * returns. */
void exchange_push(struct exchange *x);

/* Whose thread it is on. */
static inline struct worker *exchange_worker(const struct exchange *x)
{
    return x->conn->worker;
}

/* Request body is still to come. */
static inline bool exchange_is_reading(const struct exchange *x)
{
    return x->req != SIDE_DONE && x->state >= EXCHANGE_ACTIVE;
}

/* It is the backend's turn to say that it wants the body. */
static inline bool exchange_awaits_continue(const struct exchange *x)
{
    return x->expect_continue && !x->continued && x->state == EXCHANGE_ACTIVE;
}

/* exchange_feed() would use bytes. */
static inline bool exchange_can_take(const struct exchange *x)
{
    return x->drops_body || !stream_is_blocked(&x->up->stream);
}

/* Stops the clock of the client's body while it is we who do not read, and lets it go on. Before each
 * exchange_body_deadline(), and whenever reading may have stopped or begun. */
void exchange_keep_body_clock(struct exchange *x);

/* Monotonic ms by which more request body must have come; WHEEL_NEVER when that is not awaited. */
uint64_t exchange_body_deadline(const struct exchange *x);

/* The client was too slow: reading its answer (`writing`), or sending its body. The exchange may be over when
 * this returns. */
void exchange_client_timeout(struct exchange *x, bool writing);

/* The client has sent its FIN, and all that came before it is used. False when the request can not become
 * whole any more: abort it. But an answer that has begun goes on: whoever reads a refusal may stop sending
 * (RFC 9112 section 9.5). */
bool exchange_take_eof(struct exchange *x);

/* The client took what was pending: the backend is read again. */
void exchange_client_drained(struct exchange *x);

/* Ends without an answer, or within it; the caller closes the connection. conn_exchange_done() is not called.
 */
void exchange_abort(struct exchange *x, enum end_who who);

/* Frees the pooled exchanges of a worker. */
void exchange_pool_free(struct worker *w);

/* --- between admission.c, exchange.c, request_body.c and answer.c --------------------------------- */

/* The exchange of `c`, from the worker's pool; NULL when memory is out. */
struct exchange *exchange_create(struct conn *c);

/* Takes an upstream connection and goes on from there. The exchange may be over when this returns. */
void exchange_lease(struct exchange *x, enum lease kind);

/* Events of a leased upstream connection (answer.c). */
extern const struct stream_events answer_events;

/* CONNECTING: to the backend, or shaking hands with it. */
enum end_phase exchange_connect_phase(const struct exchange *x);

/* (Re)sets the deadline for what the backend has to do next. */
void exchange_arm(struct exchange *x);

/* Sends the request head, and starts body and deadlines. */
void exchange_connected(struct exchange *x);

/* The client waits for 100 Continue no longer, if it did: its clock starts, the backend's stops. */
void exchange_begin_body(struct exchange *x);

/* The backend failed: sends the request again if that is safe, else answers `reply` or, when an answer has
 * begun, cuts the connection. The exchange may be over when this returns. */
void exchange_backend_failed(struct exchange *x, enum end_who who, enum end_phase phase, enum reply_id reply);

/* Answers by itself; res must be SIDE_HEAD. The exchange may be over when this returns. */
void exchange_reply(struct exchange *x, enum reply_id id, enum end_who who, enum end_phase phase);

/* Over: logs, counts, frees, and tells the connection. */
void exchange_finish(struct exchange *x, enum end_who who, enum end_phase phase);

/* The same without telling the connection (abort, tunnel). */
void exchange_free(struct exchange *x, enum end_who who, enum end_phase phase);

/* Gives back what it takes of its partner's limits, if it still does: before the last of its answer is
 * written, because a client that has read that may ask again at once, on a connection of another worker. */
void exchange_leave_place(struct exchange *x);

/* Lets go of the upstream connection: back to the pool when `clean`, else closed. */
void exchange_release(struct exchange *x, bool clean);

#endif
