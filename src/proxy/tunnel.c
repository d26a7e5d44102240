#include "proxy/tunnel.h"

#include "base/container.h"
#include "proxy/access_log.h"
#include "proxy/conn.h"
#include "proxy/worker.h"

#include <openssl/crypto.h>
#include <stdlib.h>

enum {
    BOUNDARY_WAIT_MS = 500, /* for a frame to end, before a close frame is given up */
    WS_CLOSE_GOING_AWAY = 1001,
    WS_CLOSE_POLICY = 1008,
    WS_CLOSE_SERVICE_RESTART = 1012, /* come back: IANA's registry of close codes */
};

static const struct stream_events client_events, backend_events;

/* --- ends ------------------------------------------------------------------------------------------ */

static void finish(struct tunnel *t, enum tunnel_end why, bool linger)
{
    struct worker *w = t->worker;
    struct conn *c = t->conn;
    access_log_tunnel_closed(w, t, why);
    metrics_add(w->metrics, METRIC_TUNNELS_CLOSED, why, 1);
    w->ntunnels[t->env]--;
    metrics_gauge_set(w->metrics, METRIC_TUNNELS_OPEN, t->env, w->ntunnels[t->env]);
    loop_deadline_clear(&w->loop, &t->conn->timer);
    list_remove(&t->by_partner);
    partner_limits_release(w->limits, t->partner, (enum partner_place)t->place);
    upstream_discard(t->up);
    OPENSSL_cleanse(t->digest, sizeof t->digest);
    free(t);
    conn_tunnel_done(c, linger);
}

void tunnel_cut(struct tunnel *t, enum tunnel_end why)
{
    finish(t, why, false);
}

/* What the client is told. The true reason of a policy end is in the log and the metrics only. */
struct close_text {
    uint16_t code;
    const char *reason;
};

static const struct close_text close_texts[TUNNEL_END_COUNT] = {
    [TUNNEL_END_IDLE] = {WS_CLOSE_GOING_AWAY, "idle"},
    [TUNNEL_END_OPERATOR] = {WS_CLOSE_SERVICE_RESTART, "please reconnect"},
    [TUNNEL_END_SHUTDOWN] = {WS_CLOSE_SERVICE_RESTART, "please reconnect"},
    [TUNNEL_END_TOKEN] = {WS_CLOSE_POLICY, "no longer allowed"},
    [TUNNEL_END_EXPIRED] = {WS_CLOSE_POLICY, "no longer allowed"},
    [TUNNEL_END_DISABLED] = {WS_CLOSE_POLICY, "no longer allowed"},
    [TUNNEL_END_ADDRESS] = {WS_CLOSE_POLICY, "no longer allowed"},
    [TUNNEL_END_CERTIFICATE] = {WS_CLOSE_POLICY, "no longer allowed"},
};

/* The close frame goes out when the backend's stream stands between two frames. */
static bool try_close_frame(struct tunnel *t)
{
    char frame[127];
    if (!ws_at_boundary(&t->from_backend) || t->from_backend.close_seen) return false;
    const struct close_text *text = &close_texts[t->ending_why];
    struct iovec iov = {.iov_base = frame,
                        .iov_len = ws_close_frame(text->code, span_str(text->reason), frame)};
    enum err e = stream_write(&t->conn->stream, &iov, 1);
    if (e && e != ERR_CLOSED) t->conn->stream.write_failed = true; /* closed: by the backend's FIN */
    finish(t, (enum tunnel_end)t->ending_why, true);
    return true;
}

void tunnel_end(struct tunnel *t, enum tunnel_end why)
{
    if (t->ending) return;
    t->ending = true;
    t->ending_why = (uint8_t)why;
    stream_read_pause(&t->conn->stream); /* nothing more from this client to the backend */
    if (!try_close_frame(t)) loop_deadline(&t->worker->loop, &t->conn->timer, BOUNDARY_WAIT_MS);
}

/* --- deadlines ------------------------------------------------------------------------------------- */

/* True when one side has bytes waiting or has sent its FIN: then the shorter time limit applies. */
static bool is_pressed(const struct tunnel *t)
{
    const struct stream *client = &t->conn->stream, *backend = &t->up->stream;
    return stream_is_blocked(client) || stream_is_blocked(backend) || client->eof || backend->eof;
}

static uint64_t patience_of(const struct tunnel *t)
{
    const struct config_timeouts *timeouts = &t->worker->settings->config->timeouts;
    return is_pressed(t) ? timeouts->client_write_ms : timeouts->tunnel_idle_ms;
}

/* When the token's grace period ends, on the monotonic clock. The wall clock is asked again then. */
static uint64_t grace_end(const struct tunnel *t)
{
    const struct loop *l = &t->worker->loop;
    if (t->valid_until_ms == UINT64_MAX) return WHEEL_NEVER;
    return l->now_ms + (t->valid_until_ms > l->wall_ms ? t->valid_until_ms - l->wall_ms : 0);
}

static void arm(struct tunnel *t)
{
    uint64_t deadline = t->active_ms + patience_of(t), grace = grace_end(t);
    if (grace < deadline) deadline = grace;
    if (t->leave_ms < deadline) deadline = t->leave_ms;
    if (!t->ending) loop_deadline_at(&t->worker->loop, &t->conn->timer, deadline);
}

static void note_activity(struct tunnel *t)
{
    t->active_ms = t->worker->loop.now_ms;
    conn_count_bytes(t->conn);
    arm(t);
}

/* Bytes that waited have gone since, if not all of them: slow, but it moves. */
static void note_progress(struct tunnel *t)
{
    uint64_t client_ms = stream_moved_ms(&t->conn->stream), backend_ms = stream_moved_ms(&t->up->stream);
    if (client_ms > t->active_ms) t->active_ms = client_ms;
    if (backend_ms > t->active_ms) t->active_ms = backend_ms;
    conn_count_bytes(t->conn);
}

void tunnel_leave_at(struct tunnel *t, uint64_t leave_ms)
{
    t->leave_ms = leave_ms;
    if (leave_ms <= t->worker->loop.now_ms)
        tunnel_end(t, TUNNEL_END_SHUTDOWN);
    else
        arm(t);
}

/* --- policy ---------------------------------------------------------------------------------------- */

static enum tunnel_end end_of_deny(enum deny d)
{
    if (d == DENY_TOKEN_EXPIRED) return TUNNEL_END_EXPIRED;
    if (d == DENY_PARTNER_DISABLED) return TUNNEL_END_DISABLED;
    if (d == DENY_CLIENT_CERTIFICATE) return TUNNEL_END_CERTIFICATE;
    return d == DENY_ADDRESS ? TUNNEL_END_ADDRESS : TUNNEL_END_TOKEN;
}

/* Ends the tunnel unless it would be let in now. Its token may have become the previous one, or another
 * partner's. */
static void recheck(struct tunnel *t)
{
    struct worker *w = t->worker;
    struct decision d;
    if (t->ending) return;
    const struct decide_query q = {
        .env = (enum environment)t->env,
        .digest = t->digest,
        .certificate = t->conn->client_certificate,
        .source = conn_address(t->conn),
        .wall_ms = w->loop.wall_ms,
    };
    decide_again(w->policy, &q, &d);
    if (d.deny) {
        tunnel_end(t, end_of_deny(d.deny));
        return;
    }
    if (d.partner != t->partner) {
        list_remove(&t->by_partner);
        t->place =
            (uint8_t)partner_limits_move(w->limits, t->partner, d.partner, (enum partner_place)t->place);
        t->partner = d.partner;
        tunnel_index_add(&w->tunnels, &t->by_partner, t->partner);
    }
    t->slot = (uint8_t)d.slot;
    t->valid_until_ms = d.valid_until_ms;
    arm(t);
}

static void recheck_link(struct list_link *link)
{
    recheck(CONTAINER_OF(link, struct tunnel, by_partner));
}

void tunnels_recheck(struct worker *w, uint32_t partner)
{
    tunnel_index_each(&w->tunnels, partner, recheck_link);
}

static void on_timer(struct wheel_entry *e)
{
    struct tunnel *t = CONTAINER_OF(e, struct conn, timer)->tunnel;
    note_progress(t);
    if (t->ending) { /* inside a frame, which is cut; or behind the backend's own close frame */
        finish(t, (enum tunnel_end)t->ending_why, t->from_backend.close_seen);
    } else if (t->worker->loop.now_ms >= t->leave_ms) {
        tunnel_end(t, TUNNEL_END_SHUTDOWN);
    } else if (t->worker->loop.wall_ms >= t->valid_until_ms) {
        recheck(t);
    } else if (t->worker->loop.now_ms < t->active_ms + patience_of(t)) {
        arm(t); /* it moves, or it was the grace period's deadline and the clock was set, or a drain undone */
    } else if (stream_is_blocked(&t->conn->stream) || stream_is_blocked(&t->up->stream)) {
        finish(t, TUNNEL_END_WRITE_STALL, false);
    } else if (t->conn->stream.eof || t->up->stream.eof) {
        finish(t, t->conn->stream.eof ? TUNNEL_END_CLIENT : TUNNEL_END_BACKEND, false);
    } else {
        tunnel_end(t, TUNNEL_END_IDLE);
    }
}

/* --- the two half-pipes ---------------------------------------------------------------------------- */

static void count_messages(struct tunnel *t, struct ws_follower *f, unsigned direction, const char *p,
                           size_t n)
{
    uint64_t before = f->messages;
    ws_follow(f, p, n);
    if (f->messages != before)
        metrics_add(t->worker->metrics, METRIC_TUNNEL_MESSAGES, direction, f->messages - before);
}

/* False when the tunnel is over. */
static bool pass(struct tunnel *t, struct stream *from, struct stream *to, const char *p, size_t n,
                 enum tunnel_end gone)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)p, .iov_len = n};
    enum err e = stream_write(to, &iov, 1);
    if (e) {
        finish(t, e == ERR_NOMEM ? TUNNEL_END_MEMORY : gone, gone == TUNNEL_END_BACKEND);
        return false;
    }
    if (stream_is_blocked(to)) stream_read_pause(from);
    note_activity(t);
    return true;
}

static void on_client_read(struct stream *s, const char *p, size_t n)
{
    struct tunnel *t = conn_of(s)->tunnel;
    t->client_bytes += n;
    count_messages(t, &t->from_client, METRICS_FROM_CLIENT, p, n);
    (void)pass(t, s, &t->up->stream, p, n, TUNNEL_END_BACKEND);
}

static void on_backend_read(struct stream *s, const char *p, size_t n)
{
    struct tunnel *t = upconn_of(s)->tunnel;
    t->backend_bytes += n;
    count_messages(t, &t->from_backend, METRICS_FROM_BACKEND, p, n);
    if (pass(t, s, &t->conn->stream, p, n, TUNNEL_END_CLIENT) && t->ending) (void)try_close_frame(t);
}

/* A FIN is passed on behind the bytes before it; after both, the tunnel is over. */
static void pass_eof(struct tunnel *t, struct stream *from, struct stream *to, enum tunnel_end who)
{
    if (to->eof) {
        finish(t, who, from == &t->up->stream || stream_is_blocked(&t->conn->stream));
        return;
    }
    stream_shutdown(to);
    note_activity(t);
}

static void on_client_eof(struct stream *s)
{
    struct tunnel *t = conn_of(s)->tunnel;
    pass_eof(t, s, &t->up->stream, TUNNEL_END_BACKEND);
}

static void on_backend_eof(struct stream *s)
{
    struct tunnel *t = upconn_of(s)->tunnel;
    pass_eof(t, s, &t->conn->stream, TUNNEL_END_CLIENT);
}

static void on_client_drained(struct stream *s)
{
    struct tunnel *t = conn_of(s)->tunnel;
    stream_read_resume(&t->up->stream);
    note_activity(t);
}

static void on_backend_drained(struct stream *s)
{
    struct tunnel *t = upconn_of(s)->tunnel;
    if (!t->ending) stream_read_resume(&t->conn->stream);
    note_activity(t);
}

static void on_client_failed(struct stream *s, enum err e)
{
    (void)e;
    finish(conn_of(s)->tunnel, TUNNEL_END_CLIENT, false);
}

static void on_backend_failed(struct stream *s, enum err e)
{
    (void)e;
    finish(upconn_of(s)->tunnel, TUNNEL_END_BACKEND, true);
}

/* Closing goes through finish(), which gives both streams back to their owners first. */
static void on_closed(struct stream *s)
{
    (void)s;
    BUG_IF(true, "a stream was closed behind its tunnel");
}

static const struct stream_events client_events = {
    .on_read = on_client_read,
    .on_eof = on_client_eof,
    .on_drained = on_client_drained,
    .on_failed = on_client_failed,
    .on_closed = on_closed,
};

static const struct stream_events backend_events = {
    .on_read = on_backend_read,
    .on_eof = on_backend_eof,
    .on_drained = on_backend_drained,
    .on_failed = on_backend_failed,
    .on_closed = on_closed,
};

/* --- start ----------------------------------------------------------------------------------------- */

static struct tunnel *create(const struct exchange *x)
{
    struct worker *w = exchange_worker(x);
    struct tunnel *t = calloc(1, sizeof *t + x->partner_id.n);
    if (!t) return NULL;
    t->conn = x->conn;
    t->up = x->up;
    t->worker = w;
    ws_follower_init(&t->from_client, true);
    ws_follower_init(&t->from_backend, false);
    t->opened_us = w->loop.now_us;
    t->partner = x->partner;
    t->env = x->env;
    t->slot = x->slot;
    t->place = x->place;
    memcpy(t->digest, x->digest, TOKEN_DIGEST_BYTES);
    memcpy(t->request_id, x->request_id, UUID_LEN);
    t->npartner_id = (uint8_t)x->partner_id.n;
    if (t->npartner_id) memcpy(t->partner_id, x->partner_id.p, t->npartner_id);
    return t;
}

/* What the client sent before the 101 reached it, in order. */
static void pass_early_input(struct conn *c)
{
    struct span early = input_rest(c->input);
    if (early.n) on_client_read(&c->stream, early.p, early.n);
    input_drop(&c->input);
}

void tunnel_start(struct exchange *x, struct span head, struct span early)
{
    struct conn *c = x->conn;
    struct worker *w = c->worker;
    struct tunnel *t = create(x);
    if (!t) {
        metrics_add(w->metrics, METRIC_LIMITS_HIT, LIMIT_MEMORY, 1);
        exchange_backend_failed(x, END_GATEWAY, PHASE_RESPONSE_HEAD, REPLY_UNAVAILABLE);
        return;
    }
    x->up = NULL; /* the tunnel's now */
    x->place = PARTNER_PLACE_NONE;
    exchange_free(x, END_OK, PHASE_TUNNEL);
    w->ntunnels[t->env]++;
    metrics_gauge_set(w->metrics, METRIC_TUNNELS_OPEN, t->env, w->ntunnels[t->env]);
    conn_become_tunnel(c, t, &client_events, on_timer);
    upconn_become_tunnel(t->up, t, &backend_events);
    stream_read_resume(&c->stream);
    t->valid_until_ms = UINT64_MAX;
    t->leave_ms = WHEEL_NEVER;
    tunnel_index_add(&w->tunnels, &t->by_partner, t->partner);
    note_activity(t);
    if (!pass(t, &t->up->stream, &c->stream, head.p, head.n, TUNNEL_END_CLIENT)) return;
    if (early.n) on_backend_read(&t->up->stream, early.p, early.n);
    if (c->state == CONN_TUNNEL) pass_early_input(c);
    if (c->state == CONN_TUNNEL && c->stream.eof) on_client_eof(&c->stream);
    if (c->state == CONN_TUNNEL && worker_is_draining(w))
        tunnel_end(t, TUNNEL_END_SHUTDOWN); /* it came too late */
    if (c->state == CONN_TUNNEL)
        recheck(t); /* the policy may have changed while the backend thought about it */
}
