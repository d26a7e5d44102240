/* The response side of an exchange: what the backend sends, until the client has it. */
#include "proxy/exchange.h"

#include "net/splice.h"
#include "proxy/conn.h"
#include "proxy/forward.h"
#include "proxy/relay.h"
#include "proxy/tunnel.h"
#include "proxy/worker.h"

#include <stdlib.h>

enum { INTERIM_MAX = 16 }; /* 1xx answers to one request */

static void invalid_answer(struct exchange *x, const char *why)
{
    upstream_log_invalid_response(&exchange_worker(x)->upstreams[x->env], why,
                                  span_of(x->request_id, UUID_LEN));
    exchange_backend_failed(x, END_BACKEND, x->res == SIDE_HEAD ? PHASE_RESPONSE_HEAD : PHASE_RESPONSE_BODY,
                            REPLY_UPSTREAM_INVALID);
}

static void count_memory(const struct exchange *x)
{
    metrics_add(exchange_worker(x)->metrics, METRIC_LIMITS_HIT, LIMIT_MEMORY, 1);
}

/* The answer cannot be given to the client: it is gone, or there is no memory for what it does not take yet.
 */
static void write_failed(struct exchange *x, enum err e)
{
    struct conn *c = x->conn;
    if (e == ERR_NOMEM) count_memory(x);
    c->cut = true; /* there is nothing left to lose */
    exchange_abort(x, e == ERR_NOMEM ? END_GATEWAY : END_CLIENT);
    conn_close(c);
}

/* The whole answer is with the client's stream; `clean` when the backend's connection stands exactly at its
 * end. */
static void answer_done(struct exchange *x, bool clean)
{
    struct conn *c = x->conn;
    bool request_done = x->req == SIDE_DONE;
    if (!request_done)
        c->close_after = true; /* the backend answered early: the rest of the request is dropped */
    exchange_release(x, clean && request_done && !x->drops_body && x->up_keep_alive &&
                            !stream_has_more(&x->up->stream));
    exchange_finish(x, END_OK, PHASE_DONE);
}

/* --- head ------------------------------------------------------------------------------------------ */

/* 1xx: passed on to clients that know them. They do not move the backend's deadline for the final answer. */
static void pass_interim(struct exchange *x, const struct res_head *res)
{
    struct worker *w = exchange_worker(x);
    if (x->minor == 0) return;                       /* RFC 9110 section 15.2: never to an HTTP/1.0 client */
    if (stream_is_blocked(&x->conn->stream)) return; /* they may be left out, and must not pile up */
    struct outbuf o = outbuf_of(w->out, w->out_bytes);
    forward_response(&o, res, &(struct forward_answer){.client_minor = x->minor});
    struct iovec iov = {.iov_base = o.p, .iov_len = o.n};
    if (!o.overflow && stream_write(&x->conn->stream, &iov, 1)) x->conn->stream.write_failed = true;
    x->bytes_out += o.n;
}

/* Chooses the client's framing and starts the answer: the head is in `relay` afterwards, not yet written. */
static bool begin_answer(struct exchange *x, const struct res_head *res, struct relay *relay)
{
    struct conn *c = x->conn;
    struct worker *w = exchange_worker(x);
    bool has_length = res->body == BODY_NONE || res->body == BODY_LENGTH;
    x->res_chunked = !has_length && x->minor == 1;
    x->res_until_close = !has_length && x->minor == 0;
    if (x->res_until_close || x->req != SIDE_DONE || worker_is_draining(w)) c->close_after = true;
    const struct forward_answer how = {
        .request_id = span_of(x->request_id, UUID_LEN),
        .client_minor = x->minor,
        .chunked = x->res_chunked,
        .keep_alive = !c->close_after,
        .date_line = worker_date_line(w),
    };
    struct outbuf o = outbuf_of(w->out, w->out_bytes);
    forward_response(&o, res, &how);
    if (o.overflow) return false;
    x->status = res->status;
    x->answered_us = w->loop.now_us;
    x->up_keep_alive = res->keep_alive && res->body != BODY_UNTIL_CLOSE;
    body_reader_init(&x->res_body, res->body, res->content_length, &x->conn->settings->response_body_limits);
    x->res = body_is_done(&x->res_body) ? SIDE_DONE : SIDE_BODY;
    relay_begin(relay, &c->stream, x->res_chunked);
    relay_raw(relay, span_of(o.p, o.n));
    return true;
}

/* A 101: becomes a tunnel when it is the one that was asked for. The exchange is over afterwards. */
static void switch_protocols(struct exchange *x, const struct res_head *res, struct span early)
{
    struct worker *w = exchange_worker(x);
    if (!x->upgrade || !ws_is_accepting_response(res, span_of(x->ws_key, WS_KEY_LEN))) {
        invalid_answer(x, "a 101 that does not match the upgrade");
        return;
    }
    struct outbuf o = outbuf_of(w->out, w->out_bytes);
    forward_response(&o, res,
                     &(struct forward_answer){.request_id = span_of(x->request_id, UUID_LEN),
                                              .client_minor = x->minor,
                                              .keep_alive = true,
                                              .upgrade = true,
                                              .date_line = worker_date_line(w)});
    if (o.overflow) {
        invalid_answer(x, "head too large");
        return;
    }
    x->status = res->status;
    x->answered_us = w->loop.now_us;
    x->bytes_out += o.n;
    tunnel_start(x, span_of(o.p, o.n), early);
}

enum head_step {
    HEAD_WAIT,  /* more bytes are needed; nothing was used */
    HEAD_NEXT,  /* an interim answer was passed on */
    HEAD_BEGAN, /* the final head is in the relay */
    HEAD_OVER,  /* the exchange is over, or goes on with another connection */
};

static enum head_step take_head(struct exchange *x, const char *p, size_t n, size_t *used,
                                struct relay *relay)
{
    struct worker *w = exchange_worker(x);
    struct upconn *up = x->up;
    struct res_head *res = &w->res;
    enum scan_result r = head_scan(&up->scan, p, n);
    size_t end = up->scan.end;
    if (r == SCAN_REFUSE) {
        invalid_answer(x, "control bytes in the head");
        return HEAD_OVER;
    }
    if (r == SCAN_MORE && n < x->conn->settings->config->limits.response_head_bytes) return HEAD_WAIT;
    if (r == SCAN_MORE || end > x->conn->settings->config->limits.response_head_bytes) {
        metrics_add(w->metrics, METRIC_LIMITS_HIT, LIMIT_RESPONSE_HEAD, 1);
        invalid_answer(x, "head too large");
        return HEAD_OVER;
    }
    head_scan_init(&up->scan);
    enum head_refusal refusal = http_parse_response(
        w->parser, p, end, &x->conn->settings->response_head_limits, (enum http_method)x->method, res);
    if (refusal) {
        invalid_answer(x, head_refusal_text(refusal));
        return HEAD_OVER;
    }
    *used = end;
    if (res->status == 101) {
        switch_protocols(x, res, span_of(p + end, n - end));
        return HEAD_OVER;
    }
    if (res->status < 200) {
        if (++x->ninterim > INTERIM_MAX) {
            invalid_answer(x, "too many interim answers");
            return HEAD_OVER;
        }
        if (res->status == 100) exchange_begin_body(x);
        pass_interim(x, res);
        return HEAD_NEXT;
    }
    if (begin_answer(x, res, relay)) return HEAD_BEGAN;
    invalid_answer(x, "head too large");
    return HEAD_OVER;
}

/* --- body ------------------------------------------------------------------------------------------ */

/* Passes body bytes on; false when the framing is broken. `*at` moves over what was used. */
static bool take_body(struct exchange *x, const char *p, size_t n, size_t *at, struct relay *relay)
{
    while (*at < n && x->res == SIDE_BODY) {
        size_t used;
        struct span data;
        if (body_read(&x->res_body, p + *at, n - *at, &used, &data) != BODY_OK) return false;
        *at += used;
        relay_data(relay, data);
        if (body_is_done(&x->res_body)) x->res = SIDE_DONE;
    }
    if (x->res == SIDE_DONE) relay_end(relay);
    return true;
}

/* What was read is with the client's stream; behind the answer the backend sent `surplus` bytes more. */
static void passed(struct exchange *x, size_t surplus)
{
    if (x->res == SIDE_DONE) {
        if (surplus)
            upstream_note_unexpected_bytes(&exchange_worker(x)->upstreams[x->env], surplus,
                                           span_of(x->request_id, UUID_LEN));
        answer_done(x, surplus == 0);
        return;
    }
    if (stream_is_blocked(&x->conn->stream)) stream_read_pause(&x->up->stream);
    exchange_arm(x);
}

/* Passes on what p[at..n) holds. `at_head`: the head is in the relay as well, not yet written. */
static void pass_answer(struct exchange *x, const char *p, size_t n, size_t at, struct relay *relay,
                        bool at_head)
{
    bool sound = take_body(x, p, n, &at, relay);
    if (!sound && at_head && !relay->flushed) {
        x->res = SIDE_HEAD; /* nothing of it is out: the client gets a clean 502 */
        x->status = 0;
        invalid_answer(x, "broken body framing");
        return;
    }
    if (x->res == SIDE_DONE) exchange_leave_place(x);
    enum err e = relay_flush(relay);
    x->bytes_out += relay->written;
    if (e) {
        write_failed(x, e);
        return;
    }
    if (!sound) {
        invalid_answer(x, "broken body framing");
        return;
    }
    passed(x, n - at);
}

/* A long rest of a body goes from socket to socket without being copied: three quarters of the processor time
 * for 1 MiB. False: read it as usual. */
static bool splice_body(struct exchange *x)
{
    struct stream *from = &x->up->stream, *to = &x->conn->stream;
    struct body_reader *body = &x->res_body;
    uint64_t enough = x->conn->settings->config->limits.splice_bytes;
    if (x->res != SIDE_BODY || body->kind != BODY_LENGTH) return false;
    if (enough == 0 || body->left < enough || !stream_can_splice(from, to)) return false;
    size_t n = stream_splice_in(from, body->left);
    if (n == 0) return false;
    body_skip(body, n);
    if (body_is_done(body)) {
        x->res = SIDE_DONE;
        exchange_leave_place(x);
    }
    enum err e = stream_splice_out(to, n);
    x->bytes_out += n;
    if (e)
        write_failed(x, e);
    else
        passed(x, x->res == SIDE_DONE ? stream_waiting(from) : 0);
    return true;
}

/* Works through what the backend sent. Returns the bytes that were used while the answer's head is still
 * incomplete; otherwise everything is used, and the exchange may be over. */
static size_t take_bytes(struct exchange *x, const char *p, size_t n)
{
    struct relay relay;
    size_t at = 0;
    if (x->res != SIDE_HEAD) {
        relay_begin(&relay, &x->conn->stream, x->res_chunked);
        pass_answer(x, p, n, 0, &relay, false);
        return n;
    }
    while (at < n) {
        size_t used;
        switch (take_head(x, p + at, n - at, &used, &relay)) {
        case HEAD_WAIT: return at;
        case HEAD_OVER: return n;
        case HEAD_NEXT: at += used; break;
        case HEAD_BEGAN: pass_answer(x, p, n, at + used, &relay, true); return n;
        }
    }
    return n;
}

/* Keeps part of a head until the rest comes. Bounded by response_head_bytes and one read. */
static enum err keep_head(struct upconn *up, const char *p, size_t n)
{
    if (up->head_n + n > up->head_cap) {
        size_t cap = (up->head_n + n) * 2;
        char *grown = realloc(up->head, cap);
        if (!grown) return ERR_NOMEM;
        up->head = grown;
        up->head_cap = (uint32_t)cap;
    }
    memmove(up->head + up->head_n, p, n);
    up->head_n += (uint32_t)n;
    return ERR_OK;
}

/* No memory for it. */
static void head_failed(struct exchange *x)
{
    count_memory(x);
    exchange_backend_failed(x, END_GATEWAY, PHASE_RESPONSE_HEAD, REPLY_UPSTREAM_INVALID);
}

static void take_kept_bytes(struct exchange *x, struct upconn *up)
{
    char *head = up->head; /* ours during the call: the connection may go to the pool or to a tunnel */
    uint32_t n = up->head_n, cap = up->head_cap;
    up->head = NULL;
    up->head_n = up->head_cap = 0;
    size_t used = take_bytes(x, head, n);
    if (used == n) {
        free(head);
        return;
    }
    up->head = head;
    up->head_cap = cap;
    up->head_n = n - (uint32_t)used;
    memmove(head, head + used, up->head_n);
}

/* --- events of the upstream stream ----------------------------------------------------------------- */

static void on_connected(struct stream *s)
{
    struct exchange *x = upconn_of(s)->user;
    struct conn *c = x->conn;
    struct tls_info tls;
    if (stream_tls_info(s, &tls))
        metrics_add2(exchange_worker(x)->metrics, METRIC_UPSTREAM_TLS_HANDSHAKES, x->env, tls.resumed, 1);
    exchange_connected(x);
    conn_update(c);
}

static void on_read(struct stream *s, const char *p, size_t n)
{
    struct upconn *up = upconn_of(s);
    struct exchange *x = up->user;
    struct conn *c = x->conn;
    x->answer_began = true;
    if (up->head_n == 0) {
        size_t used = take_bytes(x, p, n);
        if (used < n && keep_head(up, p + used, n - used)) head_failed(x);
    } else if (keep_head(up, p, n)) {
        head_failed(x);
    } else {
        take_kept_bytes(x, up);
    }
    conn_update(c);
}

static bool on_readable(struct stream *s)
{
    struct exchange *x = upconn_of(s)->user;
    struct conn *c = x->conn;
    if (!splice_body(x)) return false;
    conn_update(c);
    return true;
}

static void on_eof(struct stream *s)
{
    struct exchange *x = upconn_of(s)->user;
    struct conn *c = x->conn;
    /* After a failed write the socket's error is used up, and a reset looks like an orderly end. */
    if (x->res == SIDE_BODY && x->res_body.kind == BODY_UNTIL_CLOSE && !s->write_failed) {
        struct relay relay;
        x->res = SIDE_DONE;
        relay_begin(&relay, &c->stream, x->res_chunked);
        relay_end(&relay);
        x->bytes_out += relay.written;
        exchange_leave_place(x);
        enum err e = relay_flush(&relay);
        if (e)
            write_failed(x, e);
        else
            answer_done(x, false);
    } else if (x->res == SIDE_HEAD && !x->answer_began) {
        exchange_backend_failed(x, END_BACKEND, PHASE_RESPONSE_HEAD, REPLY_UPSTREAM_UNAVAILABLE);
    } else {
        invalid_answer(x, "it ended early");
    }
    conn_update(c);
}

/* The backend took bytes: the client may send more of its body. */
static void on_drained(struct stream *s)
{
    struct exchange *x = upconn_of(s)->user;
    struct conn *c = x->conn;
    if (s->write_failed) x->drops_body = true;
    exchange_arm(x);
    conn_update(c);
}

/* With TLS 1.3 the backend may refuse our certificate when we think that all is done: it counts as well. */
static void note_tls_failure(const struct exchange *x, const struct stream *s)
{
    const char *reason = stream_tls_reason(s);
    if (!reason) return;
    metrics_add(exchange_worker(x)->metrics, METRIC_UPSTREAM_TLS_FAILURES, x->env, 1);
    upstream_log_tls_failed(x->up->pool, reason, span_of(x->request_id, UUID_LEN));
}

static void on_failed(struct stream *s, enum err e)
{
    struct exchange *x = upconn_of(s)->user;
    struct conn *c = x->conn;
    note_tls_failure(x, s);
    if (x->state == EXCHANGE_CONNECTING) {
        enum end_phase phase = exchange_connect_phase(x);
        metrics_add(exchange_worker(x)->metrics, METRIC_UPSTREAM_CONNECT_FAILURES, x->env, 1);
        upstream_log_connect_failed(x->up->pool, e, span_of(x->request_id, UUID_LEN));
        exchange_backend_failed(x, END_BACKEND, phase, REPLY_UPSTREAM_UNAVAILABLE);
    } else if (x->res == SIDE_HEAD && !x->answer_began) {
        exchange_backend_failed(x, END_BACKEND, PHASE_RESPONSE_HEAD, REPLY_UPSTREAM_UNAVAILABLE);
    } else {
        invalid_answer(x, e == ERR_TRUNCATED ? "cut without close_notify" : "the connection was reset");
    }
    conn_update(c);
}

static void on_closed(struct stream *s)
{
    (void)s;
    BUG_IF(true, "a leased upstream connection was closed behind its exchange");
}

const struct stream_events answer_events = {
    .on_connected = on_connected,
    .on_readable = on_readable,
    .on_read = on_read,
    .on_eof = on_eof,
    .on_drained = on_drained,
    .on_failed = on_failed,
    .on_closed = on_closed,
};
