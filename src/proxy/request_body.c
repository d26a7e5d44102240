/* The request side of an exchange: what the client sends, until the backend has it, and what else the client
 * does meanwhile. */
#include "proxy/conn.h"
#include "proxy/exchange.h"
#include "proxy/relay.h"
#include "proxy/worker.h"

/* False: the exchange is over, because there is no memory for what the backend did not take. Any other
 * failure does not end it: the backend may have answered early, and reading finds out. */
static bool note_write(struct exchange *x, enum err e)
{
    if (e) x->drops_body = true;
    if (e != ERR_NOMEM) return true;
    metrics_add(exchange_worker(x)->metrics, METRIC_LIMITS_HIT, LIMIT_MEMORY, 1);
    x->keep_alive = false;
    exchange_backend_failed(x, END_GATEWAY, PHASE_REQUEST_BODY, REPLY_UNAVAILABLE);
    return false;
}

static void request_sent(struct exchange *x)
{
    x->req = SIDE_DONE;
    x->sent_us = exchange_worker(x)->loop.now_us;
    exchange_arm(x);
}

void exchange_push(struct exchange *x)
{
    if (x->state != EXCHANGE_ACTIVE || x->head_sent) return;
    struct iovec iov = {.iov_base = (void *)(uintptr_t)x->head.p, .iov_len = x->head.n};
    x->head_sent = true;
    if (note_write(x, stream_write(&x->up->stream, &iov, 1)) && x->req == SIDE_DONE) request_sent(x);
}

/* --- request body ---------------------------------------------------------------------------------- */

void exchange_begin_body(struct exchange *x)
{
    if (!exchange_awaits_continue(x)) return;
    x->continued = true;
    x->body_since_ms = exchange_worker(x)->loop.now_ms;
    exchange_arm(x);
}

static void body_failed(struct exchange *x, enum body_result r)
{
    struct worker *w = exchange_worker(x);
    x->keep_alive = false;
    if (r == BODY_TOO_LARGE) metrics_add(w->metrics, METRIC_LIMITS_HIT, LIMIT_BODY, 1);
    if (r == BODY_LIMIT) metrics_add(w->metrics, METRIC_LIMITS_HIT, LIMIT_CHUNK_FRAMING, 1);
    if (x->res != SIDE_HEAD) { /* an answer is under way: it ends here */
        x->conn->close_after = true;
        x->conn->cut = x->res_until_close;
        exchange_finish(x, END_CLIENT, PHASE_REQUEST_BODY);
        return;
    }
    exchange_reply(x, r == BODY_TOO_LARGE ? REPLY_BODY_TOO_LARGE : REPLY_DECODE_ERROR, END_CLIENT,
                   PHASE_REQUEST_BODY);
}

static void body_done(struct exchange *x)
{
    if (x->state == EXCHANGE_DROPPING) {
        x->req = SIDE_DONE;
        exchange_finish(x, (enum end_who)x->end_who, (enum end_phase)x->end_phase);
        return;
    }
    request_sent(x);
}

size_t exchange_feed(struct exchange *x, const char *p, size_t n)
{
    struct relay relay;
    size_t at = 0;
    enum body_result result = BODY_OK;
    if (!exchange_is_reading(x) || !exchange_can_take(x)) return 0;
    exchange_begin_body(x);
    relay_begin(&relay, x->up ? &x->up->stream : NULL, x->req_body.kind == BODY_CHUNKED);
    if (!x->drops_body && !x->head_sent) relay_raw(&relay, x->head);
    while (at < n && result == BODY_OK && !body_is_done(&x->req_body)) {
        size_t used;
        struct span data;
        result = body_read(&x->req_body, p + at, n - at, &used, &data);
        at += used;
        if (result == BODY_OK && !x->drops_body) relay_data(&relay, data);
    }
    x->bytes_in += at;
    x->body_last_ms = exchange_worker(x)->loop.now_ms;
    if (result != BODY_OK) {
        body_failed(x, result);
        return n;
    }
    if (!x->drops_body) {
        if (body_is_done(&x->req_body)) relay_end(&relay);
        x->head_sent = true;
        if (!note_write(x, relay_flush(&relay))) return at;
    }
    if (body_is_done(&x->req_body))
        body_done(x);
    else if (x->state == EXCHANGE_ACTIVE)
        exchange_arm(x);
    return at;
}

void exchange_keep_body_clock(struct exchange *x)
{
    uint64_t now = exchange_worker(x)->loop.now_ms;
    if (!exchange_is_reading(x)) return;
    if (!exchange_can_take(x)) {
        if (x->paused_since_ms == 0) x->paused_since_ms = now;
    } else if (x->paused_since_ms && !exchange_awaits_continue(x)) {
        x->body_since_ms += now - x->paused_since_ms;
        x->body_last_ms = now;
        x->paused_since_ms = 0;
    }
}

uint64_t exchange_body_deadline(const struct exchange *x)
{
    const struct config_timeouts *t = &x->conn->settings->config->timeouts;
    if (!exchange_is_reading(x) || !exchange_can_take(x)) return WHEEL_NEVER;
    if (exchange_awaits_continue(x)) return WHEEL_NEVER; /* the client rightly waits for the backend's word */
    uint64_t by_rate =
        x->body_since_ms + t->request_body_ms + x->req_body.total * 1000 / t->request_body_rate;
    uint64_t last = x->body_last_ms > x->body_since_ms ? x->body_last_ms : x->body_since_ms;
    uint64_t by_pause = last + t->request_body_ms; /* a fast start buys no long silence */
    return by_rate < by_pause ? by_rate : by_pause;
}

/* --- what the client does meanwhile ---------------------------------------------------------------- */

/* No more of the body comes. An answer that has begun goes on all the same, by the backend's clock from now
 * on. Spec: RFC 9112 section 9.5. */
static bool answer_goes_on(struct exchange *x)
{
    if (x->res != SIDE_BODY) return false;
    x->req = SIDE_DONE;
    x->drops_body = true; /* the backend's connection stands inside the request: never used again */
    exchange_arm(x);
    return true;
}

void exchange_client_timeout(struct exchange *x, bool writing)
{
    struct conn *c = x->conn;
    c->close_after = true;
    if (x->state == EXCHANGE_DROPPING) { /* it was answered; only the rest of its body did not come */
        exchange_finish(x, (enum end_who)x->end_who, (enum end_phase)x->end_phase);
        return;
    }
    if (writing) {
        c->cut = true;
        exchange_finish(x, END_TIMEOUT, PHASE_RESPONSE_BODY);
        return;
    }
    if (!answer_goes_on(x)) exchange_reply(x, REPLY_REQUEST_TIMEOUT, END_TIMEOUT, PHASE_REQUEST_BODY);
}

bool exchange_take_eof(struct exchange *x)
{
    return x->req == SIDE_DONE || answer_goes_on(x);
}

void exchange_client_drained(struct exchange *x)
{
    struct conn *c = x->conn;
    if (c->stream.write_failed) {
        exchange_abort(x, END_CLIENT);
        conn_close(c);
        return;
    }
    if (!x->up) return;
    stream_read_resume(&x->up->stream);
    exchange_arm(x);
}
