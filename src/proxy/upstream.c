#include "proxy/upstream.h"

#include "base/container.h"
#include "base/log.h"
#include "base/metrics.h"
#include "proxy/end.h"
#include "proxy/worker.h"

#include <stdlib.h>

enum { SUSPECT_AFTER_MS = 1000 }; /* a backend may give up an idle connection from about here on */

/* The one setter; the table holds the moves that exist. */
static void set_state(struct upconn *c, enum upconn_state to)
{
    static const uint8_t moves[] = {
        [UPCONN_CONNECTING] = 1 << UPCONN_LEASED | 1 << UPCONN_CLOSED,
        [UPCONN_LEASED] = 1 << UPCONN_IDLE | 1 << UPCONN_TUNNEL | 1 << UPCONN_CLOSED,
        [UPCONN_IDLE] = 1 << UPCONN_LEASED | 1 << UPCONN_CLOSED,
        [UPCONN_TUNNEL] = 1 << UPCONN_CLOSED,
        [UPCONN_CLOSED] = 0,
    };
    BUG_IF(!(moves[c->state] & 1 << to), "an upstream connection makes a move that does not exist");
    c->state = (uint8_t)to;
}

static void update_gauges(const struct upstream *u)
{
    metrics_gauge_set(u->worker->metrics, METRIC_UPSTREAM_CONNECTIONS_OPEN, u->env, u->nconns);
    metrics_gauge_set(u->worker->metrics, METRIC_UPSTREAM_CONNECTIONS_IDLE, u->env, u->nidle);
}

void upstream_init(struct upstream *u, struct worker *w, enum environment env)
{
    *u = (struct upstream){.worker = w, .env = env};
    list_init(&u->idle);
    list_init(&u->waiting);
}

void upstream_deinit(struct upstream *u)
{
    tls_sessions_clear(&u->sessions);
}

void upstream_set_addresses(struct upstream *u, const struct address_list *list)
{
    u->addresses = *list;
    u->next_address = 0;
    u->version++;
    upstream_drain(u);
}

/* --- idle ------------------------------------------------------------------------------------------ */

static void idle_unlink(struct upconn *c)
{
    list_remove(&c->link);
    c->pool->nidle--;
    loop_deadline_clear(&c->pool->worker->loop, &c->timer);
}

static void idle_push(struct upconn *c)
{
    struct upstream *u = c->pool;
    list_prepend(&u->idle, &c->link);
    u->nidle++;
    c->idle_since_ms = u->worker->loop.now_ms;
    loop_deadline(&u->worker->loop, &c->timer, u->keep_alive_ms);
}

static void on_idle_due(struct wheel_entry *e)
{
    upstream_discard(CONTAINER_OF(e, struct upconn, timer));
}

static void on_idle_read(struct stream *s, const char *p, size_t n)
{
    (void)p;
    upstream_note_unexpected_bytes(upconn_of(s)->pool, n, span_of(NULL, 0));
    upstream_discard(upconn_of(s));
}

static void on_idle_eof(struct stream *s)
{
    upstream_discard(upconn_of(s));
}

static void on_idle_drained(struct stream *s)
{
    (void)s; /* nothing is written while idle; the last bytes of a request may have waited */
}

static void on_idle_failed(struct stream *s, enum err e)
{
    (void)e; /* a backend may drop an idle connection in any way it likes */
    upstream_discard(upconn_of(s));
}

static void free_upconn(struct stream *s)
{
    struct upconn *c = upconn_of(s);
    struct worker *w = c->pool->worker;
    free(c->head);
    free(c);
    worker_object_closed(w);
}

static const struct stream_events idle_events = {
    .on_read = on_idle_read,
    .on_eof = on_idle_eof,
    .on_drained = on_idle_drained,
    .on_failed = on_idle_failed,
    .on_closed = free_upconn,
};

/* The backend has ended it, as far as it can be told: a leased connection may have an answer waiting. */
static bool backend_ended(const struct upconn *c)
{
    return c->stream.eof || (c->state == UPCONN_IDLE && !stream_is_quiet(&c->stream));
}

static void log_closed(const struct upconn *c)
{
    static const char *const names[] = {
        [UPCONN_CONNECTING] = "connecting", [UPCONN_LEASED] = "leased", [UPCONN_IDLE] = "idle",
        [UPCONN_TUNNEL] = "tunnel",         [UPCONN_CLOSED] = "closed",
    };
    if (!log_enabled(LOG_DEBUG)) return;
    log_debug("upstream_closed", KV_STR("env", environment_name(c->pool->env)), KV_INT("fd", c->stream.fd),
              KV_STR("state", names[c->state]), KV_STR("backend_ended", backend_ended(c) ? "yes" : "no"),
              KV_UINT("open", c->pool->nconns));
}

/* Closes a connection. Nobody of the queue is told that there is room: whoever calls may want to take it. */
static void drop(struct upconn *c)
{
    log_closed(c);
    if (c->state == UPCONN_IDLE) idle_unlink(c);
    set_state(c, UPCONN_CLOSED);
    c->user = NULL;
    c->stream.events = &idle_events;
    c->pool->nconns--;
    update_gauges(c->pool);
    stream_close(&c->stream, STREAM_END_CLOSE);
}

/* --- lease ----------------------------------------------------------------------------------------- */

static enum err connect_to(struct upstream *u, struct upconn *c, const struct socket_address *a,
                           const struct stream_events *events)
{
    const struct tls_target target = {
        .client = u->tls->client, .host = u->tls->host, .sessions = &u->sessions};
    if (!target.client) return stream_connect(&c->stream, &u->worker->loop, a, events);
    return stream_connect_tls(&c->stream, &u->worker->loop, a, &target, events);
}

/* Starts connecting to the next address, or to the one after it when that fails at once (no route, no IPv6).
 */
static enum err connect_any(struct upstream *u, struct upconn *c, const struct stream_events *events)
{
    enum err e = ERR_NOT_FOUND;
    for (uint32_t i = 0; i < u->addresses.n; i++) {
        const struct socket_address *a = &u->addresses.addresses[u->next_address++ % u->addresses.n];
        e = connect_to(u, c, a, events);
        if (e == ERR_OK || e == ERR_LIMIT || e == ERR_NOMEM) break; /* the last two are not the backend's */
        if (e == ERR_NO_PORT) continue; /* nor is this, but it need not be so for another address */
        metrics_add(u->worker->metrics, METRIC_UPSTREAM_CONNECT_FAILURES, u->env, 1);
    }
    return e == ERR_AGAIN ? ERR_IO : e; /* an interrupted call is not a place in the queue */
}

static enum err dial(struct upstream *u, const struct stream_events *events, struct upconn **out)
{
    struct upconn *c = calloc(1, sizeof *c);
    if (!c) return ERR_NOMEM;
    enum err e = connect_any(u, c, events);
    if (e) {
        free(c);
        return e;
    }
    c->pool = u;
    c->version = u->version;
    wheel_entry_init(&c->timer, on_idle_due);
    metrics_add(u->worker->metrics, METRIC_UPSTREAM_CONNECTS, u->env, 1);
    u->nconns++;
    worker_object_opened(u->worker);
    *out = c;
    return ERR_OK;
}

static void wait_push(struct upstream *u, struct upstream_wait *w)
{
    list_append(&u->waiting, &w->link);
    u->nwaiting++;
}

void upstream_wait_cancel(struct upstream *u, struct upstream_wait *w)
{
    if (!list_is_linked(&w->link)) return;
    list_remove(&w->link);
    u->nwaiting--;
}

/* The newest idle connection, NULL when there is none. With LEASE_CHECKED, one that has been idle for long is
 * asked first: the backend's FIN may be here already, and only the event for it is not. */
static struct upconn *idle_pop(struct upstream *u, enum lease kind)
{
    while (kind != LEASE_FRESH && !list_is_empty(&u->idle)) {
        struct upconn *c = CONTAINER_OF(u->idle.next, struct upconn, link);
        bool suspect = kind == LEASE_CHECKED && u->worker->loop.now_ms - c->idle_since_ms >= SUSPECT_AFTER_MS;
        if (!suspect || stream_is_quiet(&c->stream)) {
            idle_unlink(c);
            return c;
        }
        upstream_discard(c);
    }
    return NULL;
}

static void count_limit(const struct upstream *u, enum limit_id limit)
{
    metrics_add(u->worker->metrics, METRIC_LIMITS_HIT, limit, 1);
}

enum err upstream_lease(struct upstream *u, struct exchange *user, struct upstream_wait *wait,
                        enum lease kind, const struct stream_events *events, struct upconn **out)
{
    struct upconn *c = idle_pop(u, kind);
    if (c) {
        c->stream.events = events;
        c->reused = true;
        set_state(c, UPCONN_LEASED);
        metrics_add(u->worker->metrics, METRIC_UPSTREAM_REUSES, u->env, 1);
    } else {
        if (u->nidle && u->nconns >= u->conns_max) drop(CONTAINER_OF(u->idle.prev, struct upconn, link));
        if (u->nconns >= u->conns_max) {
            if (u->nwaiting >= u->waiting_max) {
                count_limit(u, LIMIT_UPSTREAM_WAITING);
                return ERR_LIMIT;
            }
            wait_push(u, wait);
            return ERR_AGAIN;
        }
        enum err e = dial(u, events, &c);
        if (e == ERR_LIMIT) count_limit(u, LIMIT_DESCRIPTORS);
        if (e == ERR_NO_PORT) count_limit(u, LIMIT_LOCAL_PORTS);
        if (e == ERR_NOMEM) count_limit(u, LIMIT_MEMORY);
        if (e) return e;
    }
    c->user = user;
    update_gauges(u);
    *out = c;
    return ERR_OK;
}

void upstream_log_connect_failed(struct upstream *u, enum err e, struct span request_id)
{
    uint64_t unlogged;
    if (!log_sample_take(&u->connect_sample, u->worker->loop.now_ms, &unlogged)) return;
    log_warn("upstream_connect_failed", KV_STR("env", environment_name(u->env)), KV_ERR(e),
             KV_SPAN("request_id", request_id), KV_UINT("unlogged", unlogged));
}

void upstream_log_tls_failed(struct upstream *u, const char *cause, struct span request_id)
{
    uint64_t unlogged;
    if (!log_sample_take(&u->tls_sample, u->worker->loop.now_ms, &unlogged)) return;
    log_warn("upstream_tls_failed", KV_STR("env", environment_name(u->env)), KV_STR("cause", cause),
             KV_SPAN("request_id", request_id), KV_UINT("unlogged", unlogged));
}

void upstream_log_invalid_response(struct upstream *u, const char *cause, struct span request_id)
{
    uint64_t unlogged;
    if (!log_sample_take(&u->invalid_sample, u->worker->loop.now_ms, &unlogged)) return;
    log_warn("upstream_invalid_response", KV_STR("env", environment_name(u->env)), KV_STR("cause", cause),
             KV_SPAN("request_id", request_id), KV_UINT("unlogged", unlogged));
}

void upstream_note_unexpected_bytes(struct upstream *u, size_t n, struct span request_id)
{
    uint64_t unlogged;
    metrics_add(u->worker->metrics, METRIC_UPSTREAM_UNEXPECTED_BYTES, u->env, n);
    if (!log_sample_take(&u->surplus_sample, u->worker->loop.now_ms, &unlogged)) return;
    struct kv of_request = request_id.n ? KV_SPAN("request_id", request_id) : (struct kv){.kind = KV_END};
    log_warn("upstream_unexpected_bytes", KV_STR("env", environment_name(u->env)), KV_UINT("bytes", n),
             KV_UINT("unlogged", unlogged), of_request);
}

static void log_opened(const struct upconn *c)
{
    struct socket_address local, remote;
    char address[ENDPOINT_TEXT_BYTES];
    int fd = c->stream.fd;
    if (!log_enabled(LOG_DEBUG) || socket_local(fd, &local) || socket_peer(fd, &remote)) return;
    socket_address_format(&remote, address, sizeof address);
    log_debug("upstream_opened", KV_STR("env", environment_name(c->pool->env)), KV_INT("fd", fd),
              KV_STR("address", address), KV_UINT("local_port", socket_address_port(&local)),
              KV_UINT("open", c->pool->nconns));
}

void upconn_connected(struct upconn *c)
{
    set_state(c, UPCONN_LEASED);
    log_opened(c);
}

/* Wakes waiting exchanges, the longest waiting first, while there is something to have. */
static void serve_queue(struct upstream *u)
{
    while (!list_is_empty(&u->waiting) && (u->nidle || u->nconns < u->conns_max)) {
        struct upstream_wait *w = CONTAINER_OF(u->waiting.next, struct upstream_wait, link);
        upstream_wait_cancel(u, w);
        w->on_lease(w);
    }
}

void upstream_return(struct upconn *c)
{
    struct upstream *u = c->pool;
    bool is_surplus = u->nidle >= u->idle_max || u->nconns > u->conns_max;
    if (u->worker->mode >= WORKER_ENDING || c->version != u->version || is_surplus || c->stream.eof ||
        stream_is_blocked(&c->stream)) {
        upstream_discard(c);
        return;
    }
    set_state(c, UPCONN_IDLE);
    c->stream.events = &idle_events;
    stream_read_resume(&c->stream);
    idle_push(c);
    update_gauges(u);
    serve_queue(u);
}

void upstream_discard(struct upconn *c)
{
    if (c->state == UPCONN_CLOSED) return;
    drop(c);
    serve_queue(c->pool);
}

void upconn_become_tunnel(struct upconn *c, void *tunnel, const struct stream_events *events)
{
    set_state(c, UPCONN_TUNNEL);
    c->tunnel = tunnel;
    c->stream.events = events;
    free(c->head);
    c->head = NULL;
    c->head_n = c->head_cap = 0;
}

/* The generation before is still there (worker_update.c), so an equal address means an equal context, and
 * that an equal host. */
static void configure_tls(struct upstream *u, const struct tls_backend *tls)
{
    bool has_changed = u->tls && u->tls->client != tls->client;
    u->tls = tls;
    if (!has_changed) return;
    u->version++;
    tls_sessions_clear(&u->sessions);
    upstream_drain(u);
}

void upstream_configure(struct upstream *u, const struct generation *g)
{
    const struct config *c = g->config;
    const struct config_limits *limits = &c->limits;
    configure_tls(u, &g->tls.backends[u->env]);
    u->conns_max = limits->upstream_connections;
    u->idle_max = c->environments[u->env].present ? limits->upstream_idle_connections : 0;
    u->waiting_max = limits->upstream_waiting;
    u->keep_alive_ms = c->timeouts.upstream_keep_alive_ms;
    while (u->nidle > u->idle_max || (u->nidle && u->nconns > u->conns_max))
        upstream_discard(CONTAINER_OF(u->idle.prev, struct upconn, link));
    LIST_EACH(link, &u->idle) {
        struct upconn *idle = CONTAINER_OF(link, struct upconn, link);
        loop_deadline_at(&u->worker->loop, &idle->timer, idle->idle_since_ms + u->keep_alive_ms);
    }
    serve_queue(u);
}

void upstream_drain(struct upstream *u)
{
    while (!list_is_empty(&u->idle))
        upstream_discard(CONTAINER_OF(u->idle.next, struct upconn, link));
}
