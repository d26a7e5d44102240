#include "proxy/accept.h"

#include "base/fd.h"
#include "base/log.h"
#include "http/reply.h"
#include "proxy/conn.h"
#include "proxy/greeting.h"
#include "proxy/sources.h"
#include "proxy/worker.h"
#include "proxy/worker_listener.h"

enum { REFUSED_EXTRA = 256 }; /* connections over the limit that still get a 503 */

static void count_refused(struct worker *w, enum limit_id limit)
{
    metrics_add(w->metrics, METRIC_CONNECTIONS_REFUSED, 0, 1);
    metrics_add(w->metrics, METRIC_LIMITS_HIT, limit, 1);
}

void accept_turn_away(struct worker *w, int fd, enum limit_id limit)
{
    socket_reset(fd);
    count_refused(w, limit);
}

/* 503 without looking at the request; with TLS a reset. */
static void refuse(struct conn *c, enum limit_id limit)
{
    char id[UUID_LEN], text[REPLY_BYTES_MAX];
    struct worker *w = c->worker;
    count_refused(w, limit);
    conn_blame(c, END_GATEWAY);
    if (c->state == CONN_HANDSHAKE) {
        c->cut = true;
        conn_close(c);
        return;
    }
    uuid7_write(&w->random, w->loop.wall_ms, id);
    struct outbuf o = outbuf_of(text, sizeof text);
    reply_write(
        &o, REPLY_UNAVAILABLE,
        &(struct reply_options){.request_id = span_of(id, UUID_LEN), .date_line = worker_date_line(w)});
    BUG_IF(o.overflow, "an answer of the gateway is larger than its buffer");
    struct iovec iov = {.iov_base = o.p, .iov_len = o.n};
    if (stream_write(&c->stream, &iov, 1))
        conn_close(c);
    else
        conn_linger(c);
}

/* Some partner of an environment that is served here has this address on its list. True for every address
 * while there is no policy. */
static bool source_is_known(const struct worker *w, const struct addr *a)
{
    for (unsigned env = 0; env < ENV_COUNT; env++)
        if (w->settings->config->environments[env].present &&
            policy_source_known(w->policy, (enum environment)env, a))
            return true;
    return false;
}

static void log_shielded(struct worker *w, const struct caller *caller)
{
    char text[ADDR_TEXT_MAX];
    uint64_t unlogged;
    if (!log_sample_take(&w->shield_sample, w->loop.now_ms, &unlogged)) return;
    (void)addr_format(&caller->address, text);
    log_info("shield_dropped", KV_STR("client_ip", text),
             KV_SPAN("client_ip_source", caller_origin_names[caller->origin]), KV_UINT("unlogged", unlogged));
}

/* Counts a source that is on no partner's list. True when the connection is to be dropped because its
 * listener has `shield`; never for a caller without an address (a unix socket, a balancer's health check),
 * who came through something that is trusted. */
static bool is_shielded(struct worker *w, const struct config_listener *l, const struct caller *caller)
{
    if (source_is_known(w, &caller->address)) return false;
    metrics_add(w->metrics, METRIC_UNKNOWN_SOURCE, 0, 1);
    if (!l->shield || caller->address.family == ADDR_NONE) return false;
    metrics_add(w->metrics, METRIC_SHIELD_DROPPED, 0, 1);
    log_shielded(w, caller);
    return true;
}

/* Counts the connection for its address; a unix socket has none. Errors: those of sources_add(). */
static enum err count_source(struct conn *c)
{
    uint32_t max = c->settings->config->limits.connections_per_source;
    if (c->address.family == ADDR_NONE) return ERR_OK;
    enum err e = sources_add(c->worker->sources, &c->address, max);
    c->source_counted = e == ERR_OK;
    return e;
}

static void log_opened(const struct conn *c, const struct caller *caller)
{
    char text[ADDR_TEXT_MAX];
    if (!log_enabled(LOG_DEBUG)) return;
    (void)addr_format(&caller->address, text);
    log_debug("client_opened", KV_INT("fd", c->stream.fd), KV_STR("client_ip", text),
              KV_SPAN("client_ip_source", caller_origin_names[caller->origin]),
              KV_STR("listener", c->listener->config->address.text));
}

/* The limit that a new connection would exceed, before anything is spent on it; LIMIT_COUNT = none. */
static enum limit_id find_room(const struct worker_listener *l)
{
    const struct worker *w = l->worker;
    const struct config_limits *limits = &w->settings->config->limits;
    if (w->nconns >= limits->connections_per_worker + (l->tls ? 0 : REFUSED_EXTRA))
        return LIMIT_CONNECTIONS_PER_WORKER;
    if (l->tls && w->nhandshakes >= limits->tls_handshakes_per_worker) return LIMIT_TLS_HANDSHAKES;
    return LIMIT_COUNT;
}

void accept_caller(struct worker_listener *l, int fd, const struct caller *caller)
{
    struct worker *w = l->worker;
    const struct config_limits *limits = &w->settings->config->limits;
    bool is_proxy = caller_is_proxy(l->config, caller);
    if (!is_proxy && is_shielded(w, l->config, caller)) {
        socket_reset(fd);
        return;
    }
    enum limit_id limit = find_room(l);
    if (limit != LIMIT_COUNT) {
        accept_turn_away(w, fd, limit);
        return;
    }
    struct conn *c = conn_create(l, fd, caller);
    if (!c) {
        count_refused(w, LIMIT_MEMORY);
        return;
    }
    log_opened(c, caller);
    metrics_gauge_set(w->metrics, METRIC_CONNECTIONS_OPEN, 0, w->nconns);
    enum err counted = is_proxy ? ERR_OK : count_source(c);
    if (w->nconns > limits->connections_per_worker)
        refuse(c, LIMIT_CONNECTIONS_PER_WORKER);
    else if (counted)
        refuse(c, counted == ERR_LIMIT ? LIMIT_CONNECTIONS_PER_SOURCE : LIMIT_MEMORY);
    else
        stream_read_now(&c->stream); /* TCP_DEFER_ACCEPT: the request is usually there */
    conn_update(c);
}

void accept_client(struct worker_listener *l, int fd, const struct sockaddr *from)
{
    const struct caller caller = caller_of_peer(addr_from_sockaddr(from));
    metrics_add(l->worker->metrics, METRIC_CONNECTIONS_ACCEPTED, 0, 1);
    if (fd_is_reserved(fd)) {
        accept_turn_away(l->worker, fd, LIMIT_DESCRIPTORS);
        listener_rest(&l->listener);
        return;
    }
    if (l->config->proxy_protocol)
        greeting_begin(l, fd, &caller);
    else
        accept_caller(l, fd, &caller);
}
