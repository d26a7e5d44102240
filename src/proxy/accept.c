#include "proxy/accept.h"

#include "http/reply.h"
#include "proxy/conn.h"
#include "proxy/worker.h"

#include <unistd.h>

enum {
    REFUSED_EXTRA = 256, /* connections over the limit that still get a 503 */
    REPLY_BYTES_MAX = 1024,
};

/* 503 without looking at the request. */
static void answer_refused(struct conn *c, enum limit_id limit)
{
    char id[UUID_LEN], text[REPLY_BYTES_MAX];
    struct worker *w = c->worker;
    metrics_add(w->metrics, METRIC_CONNECTIONS_REFUSED, 0, 1);
    metrics_add(w->metrics, METRIC_LIMITS_HIT, limit, 1);
    uuid7_write(&w->random, w->loop.wall_ms, id);
    struct outbuf o = outbuf_of(text, sizeof text);
    reply_write(&o, REPLY_UNAVAILABLE,
                &(struct reply_options){.request_id = span_of(id, UUID_LEN), .wall_ms = w->loop.wall_ms});
    struct iovec iov = {.iov_base = o.p, .iov_len = o.n};
    if (stream_write(&c->stream, &iov, 1))
        conn_close(c);
    else
        conn_linger(c);
}

static void note_source(struct conn *c)
{
    const struct policy *p = c->worker->policy;
    if (!policy_is_ready(p)) return;
    c->source_known =
        policy_source_known(p, ENV_PRODUCTION, &c->source) || policy_source_known(p, ENV_SANDBOX, &c->source);
    if (!c->source_known) metrics_add(c->worker->metrics, METRIC_UNKNOWN_SOURCE, 0, 1);
}

/* Counts the connection for its address; a unix socket has none. Errors: those of sources_add(). */
static enum err count_source(struct conn *c)
{
    uint32_t max = c->worker->config->limits.connections_per_source;
    if (c->source.family == ADDR_NONE) return ERR_OK;
    enum err e = sources_add(&c->worker->sources, &c->source, max);
    c->source_counted = e == ERR_OK;
    return e;
}

void accept_client(struct worker *w, int fd, const struct sockaddr *from)
{
    const struct config_limits *limits = &w->config->limits;
    metrics_add(w->metrics, METRIC_CONNECTIONS_ACCEPTED, 0, 1);
    struct conn *c =
        w->nconns < limits->connections_per_worker + REFUSED_EXTRA ? conn_create(w, fd, from) : NULL;
    if (!c) {
        if (w->nconns >= limits->connections_per_worker + REFUSED_EXTRA)
            (void)close(fd); /* else conn_create() did */
        metrics_add(w->metrics, METRIC_CONNECTIONS_REFUSED, 0, 1);
        return;
    }
    metrics_gauge_set(w->metrics, METRIC_CONNECTIONS_OPEN, 0, w->nconns);
    enum err counted = count_source(c);
    if (w->nconns > limits->connections_per_worker) {
        answer_refused(c, LIMIT_CONNECTIONS_PER_WORKER);
    } else if (counted) {
        answer_refused(c, counted == ERR_LIMIT ? LIMIT_CONNECTIONS_PER_SOURCE : LIMIT_MEMORY);
    } else {
        note_source(c);
        stream_read_now(&c->stream); /* TCP_DEFER_ACCEPT: the request is usually there */
    }
    conn_update(c);
}
