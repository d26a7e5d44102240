#include "proxy/exchange.h"

#include "base/container.h"
#include "base/log.h"
#include "proxy/access_log.h"
#include "proxy/conn.h"
#include "proxy/worker.h"

#include <stdlib.h>

enum {
    FREE_EXCHANGES_MAX = 256,      /* of a worker, kept for reuse; those of a burst go back to malloc */
    ARENA_BYTES_MAX = 1024 * 1024, /* the head for the backend, which grows with limits.head (512 KiB) */
    DROP_BODY_MAX = 64 * 1024,     /* an unread body up to this is read and dropped to keep the connection */
};

static void on_timer(struct wheel_entry *e);
static void on_lease(struct upstream_wait *w);

static void set_state(struct exchange *x, enum exchange_state to)
{
    static const uint8_t moves[] = {
        [EXCHANGE_START] =
            1 << EXCHANGE_WAITING | 1 << EXCHANGE_CONNECTING | 1 << EXCHANGE_ACTIVE | 1 << EXCHANGE_DROPPING,
        [EXCHANGE_WAITING] =
            1 << EXCHANGE_WAITING | 1 << EXCHANGE_CONNECTING | 1 << EXCHANGE_ACTIVE | 1 << EXCHANGE_DROPPING,
        [EXCHANGE_CONNECTING] =
            1 << EXCHANGE_ACTIVE | 1 << EXCHANGE_WAITING | 1 << EXCHANGE_START | 1 << EXCHANGE_DROPPING,
        [EXCHANGE_ACTIVE] = 1 << EXCHANGE_START | 1 << EXCHANGE_DROPPING,
        [EXCHANGE_DROPPING] = 0,
    };
    BUG_IF(!(moves[x->state] & 1 << to), "an exchange makes a move that does not exist");
    x->state = (uint8_t)to;
}

/* --- life ------------------------------------------------------------------------------------------ */

struct exchange *exchange_create(struct conn *c)
{
    struct worker *w = c->worker;
    struct exchange *x = w->free_exchanges;
    if (x) {
        w->free_exchanges = x->next_free;
        w->nfree_exchanges--;
    } else {
        x = malloc(sizeof *x);
        if (!x) return NULL;
    }
    *x = (struct exchange){.conn = c, .partner = PARTNER_INDEX_NONE, .started_us = c->head_us};
    x->wait.on_lease = on_lease;
    wheel_entry_init(&x->timer, on_timer);
    arena_init(&x->arena, &w->arenas, ARENA_BYTES_MAX);
    uuid7_write(&w->random, w->loop.wall_ms, x->request_id);
    c->exchange = x;
    conn_forget_caller(c);
    w->nexchanges++;
    metrics_gauge_set(w->metrics, METRIC_EXCHANGES_ACTIVE, 0, w->nexchanges);
    return x;
}

void exchange_release(struct exchange *x, bool clean)
{
    struct upconn *up = x->up;
    upstream_wait_cancel(&exchange_worker(x)->upstreams[x->env], &x->wait);
    if (!up) return;
    x->up = NULL;
    if (clean)
        upstream_return(up);
    else
        upstream_discard(up);
}

static void count(const struct exchange *x, enum end_who who, enum end_phase phase)
{
    struct worker *w = exchange_worker(x);
    unsigned env = x->has_env ? x->env : (unsigned)METRICS_ENV_NONE;
    metrics_add2(w->metrics, METRIC_ENDS, who, phase, 1);
    if (x->status) metrics_count_request(w->metrics, env, x->route, x->method, x->status);
    if (x->answered_us && x->sent_us && x->answered_us >= x->sent_us)
        metrics_observe(w->metrics, METRIC_UPSTREAM_RESPONSE, x->env, x->answered_us - x->sent_us);
    if (x->status != 101)
        metrics_observe(w->metrics, METRIC_HTTP_REQUEST_DURATION, x->route, w->loop.now_us - x->started_us);
}

void exchange_leave_place(struct exchange *x)
{
    if (!x->place) return;
    partner_limits_release(exchange_worker(x)->limits, x->partner, (enum partner_place)x->place);
    x->place = PARTNER_PLACE_NONE;
}

void exchange_free(struct exchange *x, enum end_who who, enum end_phase phase)
{
    struct worker *w = exchange_worker(x);
    if (x->upgrade) w->nupgrades--;
    exchange_leave_place(x);
    exchange_release(x, false);
    count(x, who, phase);
    access_log_exchange(w, x, who, phase);
    loop_deadline_clear(&w->loop, &x->timer);
    arena_reset(&x->arena);
    w->nexchanges--;
    metrics_gauge_set(w->metrics, METRIC_EXCHANGES_ACTIVE, 0, w->nexchanges);
    if (w->nfree_exchanges >= FREE_EXCHANGES_MAX) {
        free(x);
        return;
    }
    x->next_free = w->free_exchanges;
    w->free_exchanges = x;
    w->nfree_exchanges++;
}

void exchange_finish(struct exchange *x, enum end_who who, enum end_phase phase)
{
    struct conn *c = x->conn;
    if (c->cut) conn_blame(c, who);
    exchange_free(x, who, phase);
    conn_exchange_done(c);
}

enum end_phase exchange_connect_phase(const struct exchange *x)
{
    return x->up->stream.state == STREAM_HANDSHAKE ? PHASE_TLS : PHASE_CONNECT;
}

static enum end_phase current_phase(const struct exchange *x)
{
    if (x->state == EXCHANGE_WAITING) return PHASE_QUEUE;
    if (x->state == EXCHANGE_CONNECTING) return exchange_connect_phase(x);
    if (x->res == SIDE_BODY) return PHASE_RESPONSE_BODY;
    return x->req == SIDE_DONE || exchange_awaits_continue(x) ? PHASE_RESPONSE_HEAD : PHASE_REQUEST_BODY;
}

void exchange_abort(struct exchange *x, enum end_who who)
{
    struct conn *c = x->conn;
    if (x->res == SIDE_BODY && x->res_until_close) c->cut = true;
    conn_blame(c, who);
    if (x->state == EXCHANGE_DROPPING) /* it was answered; only the rest of its body did not come */
        exchange_free(x, (enum end_who)x->end_who, (enum end_phase)x->end_phase);
    else
        exchange_free(x, who, current_phase(x));
    c->exchange = NULL;
}

void exchange_pool_free(struct worker *w)
{
    while (w->free_exchanges) {
        struct exchange *x = w->free_exchanges;
        w->free_exchanges = x->next_free;
        free(x);
    }
    w->nfree_exchanges = 0;
}

/* --- local answers --------------------------------------------------------------------------------- */

/* The rest of the request can be read and dropped, so that the connection may go on. */
static bool may_drop_body(const struct exchange *x)
{
    const struct body_reader *b = &x->req_body;
    return b->kind == BODY_LENGTH && !x->expect_continue && b->left <= DROP_BODY_MAX &&
           b->left <= b->limits->body_bytes_max;
}

void exchange_reply(struct exchange *x, enum reply_id id, enum end_who who, enum end_phase phase)
{
    struct conn *c = x->conn;
    struct worker *w = exchange_worker(x);
    char text[REPLY_BYTES_MAX];
    bool drops = x->req == SIDE_BODY && may_drop_body(x);
    bool keep = x->keep_alive && x->minor == 1 && !reply_def(id)->closes && !c->close_after &&
                !worker_is_draining(w) && (x->req == SIDE_DONE || drops);
    struct outbuf o = outbuf_of(text, sizeof text);
    exchange_release(x, false);
    reply_write(&o, id,
                &(struct reply_options){.request_id = span_of(x->request_id, UUID_LEN),
                                        .keep_alive = keep,
                                        .head = x->method == METHOD_HEAD,
                                        .retry_after_s = x->retry_after_s,
                                        .date_line = worker_date_line(w)});
    BUG_IF(o.overflow, "an answer of the gateway is larger than its buffer");
    x->status = reply_def(id)->status;
    x->res = SIDE_DONE;
    x->bytes_out += o.n;
    struct iovec iov = {.iov_base = o.p, .iov_len = o.n};
    exchange_leave_place(x);
    if (stream_write(&c->stream, &iov, 1)) c->stream.write_failed = true;
    if (!keep) c->close_after = true;
    if (keep && x->req != SIDE_DONE) {
        loop_deadline_clear(&w->loop, &x->timer);
        x->drops_body = true;
        x->body_since_ms = w->loop.now_ms; /* until now we may not have taken it */
        x->paused_since_ms = 0;
        x->end_who = (uint8_t)who;
        x->end_phase = (uint8_t)phase;
        set_state(x, EXCHANGE_DROPPING);
        return;
    }
    exchange_finish(x, who, phase);
}

/* --- the backend's connection ---------------------------------------------------------------------- */

/* No connection to the backend can be had. A 503 says that it has not seen the request, which nobody knows of
 * one that is sent for the second time. */
static void reply_full(struct exchange *x, enum end_who who)
{
    exchange_reply(x, x->retried ? REPLY_UPSTREAM_UNAVAILABLE : REPLY_UNAVAILABLE, who, PHASE_QUEUE);
}

static void lease_failed(struct exchange *x, enum err e)
{
    bool is_full = e == ERR_LIMIT || e == ERR_NOMEM; /* the gateway, whatever the backend is */
    if (!is_full)
        upstream_log_connect_failed(&exchange_worker(x)->upstreams[x->env], e,
                                    span_of(x->request_id, UUID_LEN));
    if (is_full || e == ERR_NO_PORT)
        reply_full(x, END_GATEWAY);
    else
        exchange_reply(x, REPLY_UPSTREAM_UNAVAILABLE, END_BACKEND, PHASE_CONNECT);
}

void exchange_lease(struct exchange *x, enum lease kind)
{
    struct worker *w = exchange_worker(x);
    struct upconn *up;
    enum err e = upstream_lease(&w->upstreams[x->env], x, &x->wait, kind, &answer_events, &up);
    if (e == ERR_AGAIN) {
        set_state(x, EXCHANGE_WAITING);
        exchange_arm(x);
        return;
    }
    if (e) {
        lease_failed(x, e);
        return;
    }
    x->up = up;
    x->reused = up->reused;
    x->leased_us = w->loop.now_us;
    if (up->state == UPCONN_CONNECTING) {
        x->connect_attempts++;
        set_state(x, EXCHANGE_CONNECTING);
        exchange_arm(x);
        return;
    }
    exchange_connected(x);
}

static void on_lease(struct upstream_wait *wait)
{
    struct exchange *x = CONTAINER_OF(wait, struct exchange, wait);
    struct conn *c = x->conn;
    exchange_lease(x, x->retried || x->upgrade ? LEASE_FRESH : LEASE_CHECKED);
    conn_update(c);
}

void exchange_connected(struct exchange *x)
{
    if (x->up->state == UPCONN_CONNECTING) upconn_connected(x->up);
    x->connected_us = exchange_worker(x)->loop.now_us;
    x->body_since_ms = exchange_worker(x)->loop.now_ms; /* until now we did not take it */
    x->up_out_start = x->up_out_mark = x->up->stream.bytes_out;
    set_state(x, EXCHANGE_ACTIVE);
    if (x->req == SIDE_DONE)
        exchange_push(x);
    else
        exchange_arm(x); /* the body's first bytes travel with the head */
}

/* --- deadlines and failures of the backend --------------------------------------------------------- */

/* How long the backend may take for what it has to do next; 0 when it is somebody else's turn. */
static uint64_t active_patience(const struct exchange *x, const struct config_timeouts *t)
{
    if (x->req != SIDE_DONE) {
        if (stream_is_blocked(&x->up->stream)) return t->upstream_idle_ms;
        if (!exchange_awaits_continue(x)) return 0; /* the client's body is awaited */
    }
    if (x->res == SIDE_HEAD) return t->upstream_response_ms;
    return x->up->stream.reading ? t->upstream_idle_ms : 0; /* paused: the client has its write deadline */
}

void exchange_arm(struct exchange *x)
{
    struct worker *w = exchange_worker(x);
    const struct config_timeouts *t = &x->conn->settings->config->timeouts;
    uint64_t after = 0;
    switch ((enum exchange_state)x->state) {
    case EXCHANGE_WAITING:
    case EXCHANGE_CONNECTING: after = t->upstream_connect_ms; break;
    case EXCHANGE_ACTIVE: after = active_patience(x, t); break;
    case EXCHANGE_START:
    case EXCHANGE_DROPPING: break;
    }
    if (after)
        loop_deadline(&w->loop, &x->timer, after);
    else
        loop_deadline_at(&w->loop, &x->timer, WHEEL_NEVER);
}

static void on_timer(struct wheel_entry *e)
{
    struct exchange *x = CONTAINER_OF(e, struct exchange, timer);
    struct conn *c = x->conn;
    if (x->state == EXCHANGE_WAITING) {
        metrics_add(exchange_worker(x)->metrics, METRIC_LIMITS_HIT, LIMIT_UPSTREAM_WAITING, 1);
        reply_full(x, END_TIMEOUT);
    } else if (x->state == EXCHANGE_ACTIVE && stream_is_blocked(&x->up->stream) &&
               x->up_out_mark != x->up->stream.bytes_out) {
        x->up_out_mark = x->up->stream.bytes_out; /* slow, but it moves */
        exchange_arm(x);
    } else {
        if (x->state == EXCHANGE_CONNECTING)
            metrics_add(exchange_worker(x)->metrics, METRIC_UPSTREAM_CONNECT_FAILURES, x->env, 1);
        exchange_backend_failed(x, END_TIMEOUT, current_phase(x), REPLY_UPSTREAM_TIMEOUT);
    }
    conn_update(c);
}

/* The request may be sent again on a new connection: nothing of an answer has come, no body bytes are gone,
 * and either the method is idempotent or the backend cannot have seen the request. Spec: RFC 9110
 * section 9.2.2. */
static bool may_retry(const struct exchange *x)
{
    bool body_taken = x->req_body.kind != BODY_NONE && (x->req_body.total || x->req == SIDE_DONE);
    bool nothing_sent = !x->head_sent || x->up->stream.bytes_out == x->up_out_start;
    if (x->answer_began || body_taken) return false;
    if (x->state == EXCHANGE_CONNECTING)
        return x->connect_attempts < exchange_worker(x)->upstreams[x->env].addresses.n;
    if (!x->reused || x->retried) return false;
    return nothing_sent || (x->req == SIDE_DONE && method_is_idempotent((enum http_method)x->method));
}

static void retry(struct exchange *x)
{
    struct worker *w = exchange_worker(x);
    log_debug("upstream_retry", KV_STR("env", environment_name(x->env)),
              KV_STR("phase", end_phase_names[current_phase(x)]), KV_INT("fd", x->up->stream.fd),
              KV_SPAN("request_id", span_of(x->request_id, UUID_LEN)));
    if (x->state == EXCHANGE_ACTIVE) {
        x->retried = true;
        metrics_add(w->metrics, METRIC_UPSTREAM_RETRIES, x->env, 1);
    }
    exchange_release(x, false);
    x->head_sent = x->drops_body = false;
    x->sent_us = 0;
    set_state(x, EXCHANGE_START);
    exchange_lease(x, LEASE_FRESH);
}

void exchange_backend_failed(struct exchange *x, enum end_who who, enum end_phase phase, enum reply_id reply)
{
    struct conn *c = x->conn;
    if ((x->state == EXCHANGE_CONNECTING || reply == REPLY_UPSTREAM_UNAVAILABLE) && may_retry(x)) {
        retry(x);
        return;
    }
    if (x->res == SIDE_HEAD) {
        exchange_reply(x, reply, who, phase);
        return;
    }
    /* Part of the answer is out: end so that it cannot be taken for whole. With a length or chunks a FIN does
     * that; an answer that is delimited by the close itself needs a reset. */
    c->close_after = true;
    c->cut = x->res_until_close;
    exchange_finish(x, who, phase);
}
