#include "proxy/conn.h"

#include "base/container.h"
#include "base/log.h"
#include "proxy/exchange.h"
#include "proxy/handshake.h"
#include "proxy/sources.h"
#include "proxy/tunnel.h"
#include "proxy/worker.h"

#include <stdlib.h>
#include <unistd.h>

enum {
    CRLF_PAIRS_MAX = 4, /* empty lines before a request that are forgiven */
};

static void take_settings(struct conn *c)
{
    struct worker_settings *before = c->settings;
    if (before == c->worker->settings) return;
    c->settings = settings_ref(c->worker->settings);
    settings_unref(before);
}

/* The one setter. What begins after an idle moment goes by the settings of now. */
static void set_state(struct conn *c, enum conn_state to)
{
    static const uint8_t moves[] = {
        [CONN_HANDSHAKE] = 1 << CONN_IDLE | 1 << CONN_CLOSED,
        [CONN_IDLE] = 1 << CONN_HEAD | 1 << CONN_EXCHANGE | 1 << CONN_LINGER | 1 << CONN_CLOSED,
        [CONN_HEAD] = 1 << CONN_IDLE | 1 << CONN_EXCHANGE | 1 << CONN_CLOSED,
        [CONN_EXCHANGE] =
            1 << CONN_FLUSH | 1 << CONN_IDLE | 1 << CONN_LINGER | 1 << CONN_TUNNEL | 1 << CONN_CLOSED,
        [CONN_FLUSH] = 1 << CONN_IDLE | 1 << CONN_LINGER | 1 << CONN_CLOSED,
        [CONN_LINGER] = 1 << CONN_CLOSED,
        [CONN_TUNNEL] = 1 << CONN_LINGER | 1 << CONN_CLOSED,
        [CONN_CLOSED] = 0,
    };
    BUG_IF(!(moves[c->state] & 1 << to), "a client connection makes a move that does not exist");
    if (c->state == CONN_HANDSHAKE) handshake_leave(c->worker);
    c->state = (uint8_t)to;
    c->since_ms = c->worker->loop.now_ms;
    if (to == CONN_IDLE) take_settings(c);
}

/* --- requests -------------------------------------------------------------------------------------- */

static size_t refuse_head(struct conn *c, size_t n, enum head_refusal why)
{
    set_state(c, CONN_EXCHANGE);
    exchange_refuse(c, n, why);
    return n;
}

/* Looks for a whole head at the start of p; returns the bytes used, 0 to wait for more. */
static size_t take_head(struct conn *c, const char *p, size_t n)
{
    const struct config_limits *limits = &c->settings->config->limits;
    if (c->scan.at == 0) {
        size_t skip = head_skip_crlf(p, n, CRLF_PAIRS_MAX - (unsigned)c->ncrlf);
        if (skip) {
            c->ncrlf = (uint8_t)(c->ncrlf + skip / 2);
            if (c->state == CONN_HEAD) set_state(c, CONN_IDLE);
            return skip;
        }
        c->head_us = c->worker->loop.now_us;
        if (n == 1 && p[0] == '\r') { /* perhaps half of an empty line */
            if (c->state == CONN_IDLE) set_state(c, CONN_HEAD);
            return 0;
        }
    }
    enum scan_result r = head_scan(&c->scan, p, n);
    if (r == SCAN_REFUSE) return refuse_head(c, n, HEAD_REFUSAL_CONTROL_BYTES);
    if (r == SCAN_MORE) {
        if (n >= limits->head_bytes)
            return refuse_head(c, n, c->scan.lf ? HEAD_REFUSAL_HEAD_TOO_LARGE : HEAD_REFUSAL_TARGET_TOO_LONG);
        if (c->state == CONN_IDLE) set_state(c, CONN_HEAD);
        return 0;
    }
    size_t end = c->scan.end;
    head_scan_init(&c->scan);
    if (end > limits->head_bytes) return refuse_head(c, end, HEAD_REFUSAL_HEAD_TOO_LARGE);
    c->nrequests++;
    c->ncrlf = 0;
    set_state(c, CONN_EXCHANGE);
    exchange_start(c, p, end);
    return end;
}

/* One step with received bytes; returns how many were used, 0 to wait. */
static size_t step(struct conn *c, const char *p, size_t n)
{
    switch ((enum conn_state)c->state) {
    case CONN_IDLE:
    case CONN_HEAD: return take_head(c, p, n);
    case CONN_EXCHANGE: return exchange_feed(c->exchange, p, n);
    case CONN_FLUSH:
    case CONN_HANDSHAKE:
    case CONN_TUNNEL: return 0;
    case CONN_LINGER:
    case CONN_CLOSED: return n;
    }
    return 0;
}

static size_t drive(struct conn *c, const char *p, size_t n)
{
    size_t at = 0;
    c->in_drive = true;
    while (at < n) {
        size_t used = step(c, p + at, n - at);
        if (used == 0) break;
        at += used;
    }
    c->in_drive = false;
    return at;
}

static void drive_input(struct conn *c)
{
    if (!c->input || c->in_drive) return;
    struct span waiting = input_rest(c->input);
    input_use(&c->input, drive(c, waiting.p, waiting.n));
}

/* --- deadlines and reading ------------------------------------------------------------------------- */

static uint64_t write_deadline(const struct conn *c)
{
    uint64_t moved_ms = stream_moved_ms(&c->stream);
    return moved_ms ? moved_ms + c->settings->config->timeouts.client_write_ms : WHEEL_NEVER;
}

/* While draining, an idle connection waits for one more request, whose answer says that it is the last. */
static uint64_t idle_ms(const struct conn *c)
{
    const struct config_timeouts *t = &c->settings->config->timeouts;
    bool is_last = worker_is_draining(c->worker) && t->drain_keep_alive_ms < t->keep_alive_ms;
    return is_last ? t->drain_keep_alive_ms : t->keep_alive_ms;
}

static uint64_t deadline(const struct conn *c)
{
    const struct config_timeouts *t = &c->settings->config->timeouts;
    uint64_t write, body;
    switch ((enum conn_state)c->state) {
    case CONN_IDLE: return c->since_ms + idle_ms(c);
    case CONN_HEAD: return c->since_ms + t->request_head_ms;
    case CONN_HANDSHAKE: return c->since_ms + t->tls_handshake_ms;
    case CONN_EXCHANGE:
        write = write_deadline(c);
        body = exchange_body_deadline(c->exchange);
        return write < body ? write : body;
    case CONN_FLUSH: return write_deadline(c);
    case CONN_LINGER: return stream_is_blocked(&c->stream) ? write_deadline(c) : c->since_ms + t->linger_ms;
    case CONN_TUNNEL:
    case CONN_CLOSED: return WHEEL_NEVER;
    }
    return WHEEL_NEVER;
}

static bool wants_input(const struct conn *c)
{
    if (c->state == CONN_EXCHANGE && exchange_is_reading(c->exchange)) return exchange_can_take(c->exchange);
    if (c->state == CONN_EXCHANGE || c->state == CONN_FLUSH)
        return input_rest(c->input).n < c->settings->config->limits.pipelined_bytes;
    return true;
}

void conn_count_bytes(struct conn *c)
{
    struct metrics_block *m = c->worker->metrics;
    metrics_add(m, METRIC_CLIENT_BYTES_RECEIVED, 0, c->stream.bytes_in);
    metrics_add(m, METRIC_CLIENT_BYTES_SENT, 0, c->stream.bytes_out);
    c->stream.bytes_in = c->stream.bytes_out = 0;
}

/* Sends a request head that waited for its body, and sets reading and deadline as the state wants them. Looks
 * at no input: conn_update() does. */
static void settle(struct conn *c)
{
    if (c->state == CONN_EXCHANGE) exchange_push(c->exchange);
    if (c->state == CONN_CLOSED || c->state == CONN_TUNNEL) return;
    conn_count_bytes(c);
    if (wants_input(c))
        stream_read_resume(&c->stream);
    else
        stream_read_pause(&c->stream);
    if (c->state == CONN_EXCHANGE) exchange_keep_body_clock(c->exchange);
    loop_deadline_at(&c->worker->loop, &c->timer, deadline(c));
}

/* The client has sent its FIN. What it sent before counts: only a request that cannot become whole any more
 * is lost, and a connection that waits for the next one is over. */
static void judge_eof(struct conn *c)
{
    if (c->state == CONN_HEAD) {
        exchange_count_lost_head(c);
        conn_close(c);
    } else if (c->state == CONN_IDLE && !c->input) {
        conn_close(c);
    } else if (c->state == CONN_EXCHANGE && !c->input && !exchange_take_eof(c->exchange)) {
        exchange_abort(c->exchange, END_CLIENT);
        conn_close(c);
    }
}

void conn_update(struct conn *c)
{
    if (c->in_drive) return; /* the outermost frame does it */
    drive_input(c);
    if (c->stream.eof) judge_eof(c);
    settle(c);
}

/* --- ends ------------------------------------------------------------------------------------------ */

static void log_closed(const struct conn *c)
{
    static const char *const names[] = {
        [CONN_HANDSHAKE] = "handshake", [CONN_IDLE] = "idle",     [CONN_HEAD] = "head",
        [CONN_EXCHANGE] = "exchange",   [CONN_FLUSH] = "flush",   [CONN_LINGER] = "linger",
        [CONN_TUNNEL] = "tunnel",       [CONN_CLOSED] = "closed",
    };
    char text[ADDR_TEXT_MAX];
    if (!log_enabled(LOG_DEBUG)) return;
    (void)addr_format(conn_address(c), text);
    log_debug("client_closed", KV_INT("fd", c->stream.fd), KV_STR("client_ip", text),
              KV_STR("by", end_who_names[c->ended_by]), KV_STR("state", names[c->state]),
              KV_UINT("requests", c->nrequests));
}

void conn_close(struct conn *c)
{
    struct worker *w = c->worker;
    if (c->state == CONN_CLOSED) return;
    /* Bytes that never left would make what did leave look like all there was. */
    bool is_cut = c->cut || (c->state != CONN_HANDSHAKE && stream_is_blocked(&c->stream));
    log_closed(c);
    set_state(c, CONN_CLOSED);
    if (c->prev)
        c->prev->next = c->next;
    else
        w->conns = c->next;
    if (c->next) c->next->prev = c->prev;
    w->nconns--;
    if (c->source_counted) sources_remove(w->sources, &c->address);
    metrics_gauge_set(w->metrics, METRIC_CONNECTIONS_OPEN, 0, w->nconns);
    conn_count_bytes(c);
    loop_deadline_clear(&w->loop, &c->timer);
    verdict_cache_drop(&c->verdict);
    stream_close(&c->stream, is_cut ? STREAM_END_RESET : STREAM_END_CLOSE);
}

/* Closing with unread input would make the kernel send RST and destroy our answer on its way. */
void conn_linger(struct conn *c)
{
    if (c->stream.eof && !stream_is_blocked(&c->stream)) {
        conn_close(c);
        return;
    }
    set_state(c, CONN_LINGER);
    if (!c->in_drive) input_drop(&c->input);
    stream_shutdown(&c->stream);
}

/* The last byte of an answer is with the kernel. */
static void after_flush(struct conn *c)
{
    if (c->close_after) {
        conn_blame(c, END_OK);
        conn_linger(c);
    } else {
        set_state(c, CONN_IDLE);
        head_scan_init(&c->scan);
    }
}

void conn_exchange_done(struct conn *c)
{
    c->exchange = NULL;
    if (c->cut || c->stream.write_failed) {
        conn_close(c);
        return;
    }
    if (stream_is_blocked(&c->stream))
        set_state(c, CONN_FLUSH);
    else
        after_flush(c);
    conn_update(c);
}

static void on_timer(struct wheel_entry *e)
{
    struct conn *c = CONTAINER_OF(e, struct conn, timer);
    if (c->state == CONN_EXCHANGE) exchange_keep_body_clock(c->exchange);
    if (deadline(c) > c->worker->loop.now_ms) { /* it moved, or bytes went out meanwhile */
        settle(c);
        return;
    }
    switch ((enum conn_state)c->state) {
    case CONN_IDLE:
        if (!stream_is_quiet(&c->stream)) break; /* a request came in time, and is read next */
        conn_blame(c, END_TIMEOUT);
        conn_linger(c);
        break;
    case CONN_HEAD:
        set_state(c, CONN_EXCHANGE);
        exchange_refuse_late(c);
        break;
    case CONN_EXCHANGE:
        exchange_client_timeout(c->exchange, write_deadline(c) <= c->worker->loop.now_ms);
        break;
    case CONN_HANDSHAKE:
        handshake_failed(c->worker, conn_address(c), TLS_FAILURE_TIMEOUT, NULL);
        conn_blame(c, END_TIMEOUT);
        conn_close(c);
        break;
    case CONN_FLUSH:
    case CONN_LINGER:
        conn_blame(c, END_TIMEOUT);
        conn_close(c);
        break;
    case CONN_TUNNEL:
    case CONN_CLOSED: break;
    }
    settle(c);
}

/* --- stream events --------------------------------------------------------------------------------- */

/* TLS is up. What the client sent behind its handshake comes next, as on_read. */
static void on_connected(struct stream *s)
{
    struct conn *c = conn_of(s);
    if (handshake_done(c->worker, s, &c->client_certificate)) {
        set_state(c, CONN_IDLE);
    } else {
        conn_blame(c, END_GATEWAY);
        conn_close(c);
    }
    settle(c);
}

static void on_read(struct stream *s, const char *p, size_t n)
{
    struct conn *c = conn_of(s);
    if (!c->input) {
        size_t used = drive(c, p, n);
        p += used;
        n -= used;
    }
    if (n && c->state != CONN_CLOSED && c->state != CONN_LINGER && input_keep(&c->input, p, n)) {
        metrics_add(c->worker->metrics, METRIC_LIMITS_HIT, LIMIT_MEMORY, 1);
        if (c->state == CONN_EXCHANGE) exchange_abort(c->exchange, END_GATEWAY);
        conn_blame(c, END_GATEWAY);
        conn_close(c);
        return;
    }
    conn_update(c);
}

static void on_eof(struct stream *s)
{
    struct conn *c = conn_of(s);
    if (c->state == CONN_LINGER && !stream_is_blocked(s))
        conn_close(c); /* else on_drained() does */
    else
        conn_update(c);
}

static void on_drained(struct stream *s)
{
    struct conn *c = conn_of(s);
    if (c->state == CONN_EXCHANGE) {
        exchange_client_drained(c->exchange);
    } else if (c->state == CONN_FLUSH) {
        if (s->write_failed)
            conn_close(c);
        else
            after_flush(c);
    } else if (c->state == CONN_LINGER) {
        if (s->eof || s->write_failed)
            conn_close(c);
        else
            c->since_ms = c->worker->loop.now_ms; /* the FIN is out only now */
    }
    conn_update(c);
}

static void on_failed(struct stream *s, enum err e)
{
    struct conn *c = conn_of(s);
    if (c->state == CONN_HANDSHAKE)
        handshake_failed(c->worker, conn_address(c), stream_tls_failure(s, e), stream_tls_reason(s));
    if (c->state == CONN_HEAD) exchange_count_lost_head(c);
    if (c->state == CONN_EXCHANGE) exchange_abort(c->exchange, END_CLIENT);
    conn_close(c);
}

static void on_closed(struct stream *s)
{
    struct conn *c = conn_of(s);
    struct worker *w = c->worker;
    input_drop(&c->input);
    settings_unref(c->settings);
    worker_listener_unref(c->listener);
    free(c->client_certificate);
    free(c->named);
    free(c);
    worker_object_closed(w);
}

static const struct stream_events events = {
    .on_connected = on_connected,
    .on_read = on_read,
    .on_eof = on_eof,
    .on_drained = on_drained,
    .on_failed = on_failed,
    .on_closed = on_closed,
};

/* --- life ------------------------------------------------------------------------------------------ */

enum err conn_name_caller(struct conn *c, const struct caller *caller)
{
    if (!c->named) c->named = malloc(sizeof *c->named);
    if (!c->named) return ERR_NOMEM;
    *c->named = *caller;
    return ERR_OK;
}

static struct conn *create(const struct caller *caller)
{
    struct conn *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->address = caller->address;
    c->ended_by = END_CLIENT;
    if (caller->origin == CALLER_SOCKET || conn_name_caller(c, caller) == ERR_OK) return c;
    free(c);
    return NULL;
}

struct conn *conn_create(struct worker_listener *l, int fd, const struct caller *caller)
{
    struct worker *w = l->worker;
    struct conn *c = create(caller);
    if (!c) {
        (void)close(fd);
        return NULL;
    }
    enum err e = l->tls ? stream_open_tls(&c->stream, &w->loop, fd, l->tls, &events)
                        : stream_open(&c->stream, &w->loop, fd, &events);
    if (e) {
        free(c->named);
        free(c);
        return NULL;
    }
    c->stream.is_unix = l->config->address.kind == ENDPOINT_UNIX;
    c->state = l->tls ? CONN_HANDSHAKE : CONN_IDLE;
    if (l->tls) handshake_begin(w);
    c->worker = w;
    c->listener = worker_listener_ref(l);
    c->settings = settings_ref(w->settings);
    c->since_ms = w->loop.now_ms;
    wheel_entry_init(&c->timer, on_timer);
    c->next = w->conns;
    if (c->next) c->next->prev = c;
    w->conns = c;
    w->nconns++;
    worker_object_opened(w);
    return c;
}

/* --- tunnels and shutdown -------------------------------------------------------------------------- */

void conn_become_tunnel(struct conn *c, struct tunnel *t, const struct stream_events *tunnel_events,
                        void (*on_due)(struct wheel_entry *e))
{
    set_state(c, CONN_TUNNEL);
    loop_deadline_clear(&c->worker->loop, &c->timer);
    c->timer.on_due = on_due;
    verdict_cache_drop(&c->verdict);
    settings_unref(c->settings);
    c->settings = NULL;
    worker_listener_unref(c->listener);
    c->listener = NULL;
    c->tunnel = t;
    c->stream.events = tunnel_events;
}

void conn_tunnel_done(struct conn *c, bool linger)
{
    c->tunnel = NULL;
    conn_blame(c, END_OK);
    take_settings(c);
    c->stream.events = &events;
    c->timer.on_due = on_timer; /* finish() of the tunnel has cleared it */
    stream_read_resume(&c->stream);
    if (linger && !c->stream.write_failed)
        conn_linger(c);
    else
        conn_close(c);
    settle(c);
}

void conn_follow_mode(struct conn *c)
{
    if (c->state != CONN_IDLE) return;
    c->since_ms = c->worker->loop.now_ms;
    settle(c);
}

void conn_cut(struct conn *c)
{
    if (c->state == CONN_EXCHANGE) exchange_abort(c->exchange, END_SHUTDOWN);
    if (c->state == CONN_TUNNEL) tunnel_cut(c->tunnel, TUNNEL_END_SHUTDOWN);
    conn_blame(c, END_SHUTDOWN);
    conn_close(c);
}

void conn_adopt(struct conn *c)
{
    if (c->state != CONN_IDLE) return;
    take_settings(c);
    settle(c);
}
