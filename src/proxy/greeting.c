#include "proxy/greeting.h"

#include "base/container.h"
#include "base/log.h"
#include "http/proxy_header.h"
#include "proxy/accept.h"
#include "proxy/caller.h"
#include "proxy/end.h"
#include "proxy/worker.h"
#include "proxy/worker_listener.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

struct greeting {
    uv_poll_t poll;
    struct worker_listener *listener;
    struct list_link link; /* worker->greetings */
    struct wheel_entry timer;
    struct caller caller;
    struct proxy_header header;
    int fd; /* owned; -1 = closing */
};

/* --- refusal --------------------------------------------------------------------------------------- */

/* A connection that ends without a header is a balancer's plain TCP check, as a rule: not worth a line. */
static void refuse(struct worker *w, int fd, const struct caller *caller, enum proxy_refusal why)
{
    char text[ADDR_TEXT_MAX];
    uint64_t unlogged;
    metrics_add(w->metrics, METRIC_PROXY_HEADERS_REFUSED, why, 1);
    socket_reset(fd);
    if (why == PROXY_REFUSAL_ENDED) return;
    if (!log_sample_take(&w->greeting_sample, w->loop.now_ms, &unlogged)) return;
    (void)addr_format(&caller->peer, text);
    log_warn("proxy_header_refused", KV_STR("reason", proxy_refusal_names[why]), KV_STR("peer_ip", text),
             KV_UINT("unlogged", unlogged));
}

/* --- reading --------------------------------------------------------------------------------------- */

/* Takes what has come of the header and nothing behind it: two system calls. */
static enum proxy_header_result read_header(struct loop *l, int fd, struct proxy_header *h)
{
    size_t used;
    h->refusal = PROXY_REFUSAL_ENDED; /* until the bytes say otherwise */
    ssize_t n = recv(fd, l->read_buffer, PROXY_V2_BYTES_MAX, MSG_PEEK);
    if (n < 0) return errno == EAGAIN || errno == EINTR ? PROXY_HEADER_MORE : PROXY_HEADER_REFUSED;
    if (n == 0) return PROXY_HEADER_REFUSED;
    enum proxy_header_result result = proxy_header_feed(h, l->read_buffer, (size_t)n, &used);
    if (result == PROXY_HEADER_REFUSED) return result;
    if (recv(fd, l->read_buffer, used, 0) == (ssize_t)used) return result;
    h->refusal = PROXY_REFUSAL_ENDED; /* reset between the two calls */
    return PROXY_HEADER_REFUSED;
}

/* The caller is known: the connection begins, or is turned away, as on any other listener. */
static void hand_over(struct worker_listener *l, int fd, const struct caller *peer,
                      const struct proxy_header *h)
{
    struct caller caller = *peer;
    if (!h->is_local) {
        caller.address = h->source;
        caller.origin = h->version == 1 ? CALLER_PROXY_V1 : CALLER_PROXY_V2;
    }
    accept_caller(l, fd, &caller);
}

/* --- waiting --------------------------------------------------------------------------------------- */

static void on_closed(uv_handle_t *handle)
{
    struct greeting *g = handle->data;
    struct worker *w = g->listener->worker;
    loop_turn(&w->loop);
    worker_listener_unref(g->listener);
    free(g);
    worker_object_closed(w);
}

/* Stops waiting; the memory goes in a later turn. Returns the socket, which is the caller's again: libuv has
 * forgotten it. */
static int detach(struct greeting *g)
{
    struct worker *w = g->listener->worker;
    int fd = g->fd;
    g->fd = -1;
    list_remove(&g->link);
    w->nconns--;
    metrics_gauge_set(w->metrics, METRIC_CONNECTIONS_OPEN, 0, w->nconns);
    loop_deadline_clear(&w->loop, &g->timer);
    uv_close((uv_handle_t *)&g->poll, on_closed);
    return fd;
}

static void on_timer(struct wheel_entry *e)
{
    struct greeting *g = CONTAINER_OF(e, struct greeting, timer);
    refuse(g->listener->worker, detach(g), &g->caller, PROXY_REFUSAL_TIMEOUT);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct greeting *g = poll->data;
    struct worker *w = g->listener->worker;
    (void)status; /* an error is found by reading */
    (void)events;
    loop_turn(&w->loop);
    switch (read_header(&w->loop, g->fd, &g->header)) {
    case PROXY_HEADER_MORE: break;
    case PROXY_HEADER_DONE: hand_over(g->listener, detach(g), &g->caller, &g->header); break;
    case PROXY_HEADER_REFUSED: refuse(w, detach(g), &g->caller, g->header.refusal); break;
    }
}

/* The rest of the header is still on its way. */
static void wait(struct worker_listener *l, int fd, const struct caller *caller, const struct proxy_header *h)
{
    struct worker *w = l->worker;
    bool is_full = w->nconns >= w->settings->config->limits.connections_per_worker;
    struct greeting *g = is_full ? NULL : calloc(1, sizeof *g);
    if (!g || uv_poll_init(&w->loop.uv, &g->poll, fd)) {
        free(g);
        accept_turn_away(w, fd, is_full ? LIMIT_CONNECTIONS_PER_WORKER : LIMIT_MEMORY);
        return;
    }
    g->poll.data = g;
    g->listener = worker_listener_ref(l);
    g->fd = fd;
    g->caller = *caller;
    g->header = *h;
    list_prepend(&w->greetings, &g->link);
    w->nconns++;
    metrics_gauge_set(w->metrics, METRIC_CONNECTIONS_OPEN, 0, w->nconns);
    worker_object_opened(w);
    wheel_entry_init(&g->timer, on_timer);
    loop_deadline(&w->loop, &g->timer, w->settings->config->timeouts.proxy_header_ms);
    (void)uv_poll_start(&g->poll, UV_READABLE, on_poll); /* fails only on a bad fd, which is ours */
}

void greeting_begin(struct worker_listener *l, int fd, const struct caller *caller)
{
    struct worker *w = l->worker;
    struct proxy_header h;
    if (!caller_peer_is_trusted(l->config, &caller->peer)) {
        refuse(w, fd, caller, PROXY_REFUSAL_NOT_TRUSTED);
        return;
    }
    proxy_header_init(&h);
    switch (read_header(&w->loop, fd, &h)) { /* TCP_DEFER_ACCEPT: it is usually there */
    case PROXY_HEADER_MORE: wait(l, fd, caller, &h); break;
    case PROXY_HEADER_DONE: hand_over(l, fd, caller, &h); break;
    case PROXY_HEADER_REFUSED: refuse(w, fd, caller, h.refusal); break;
    }
}

void greeting_cut_all(struct worker *w)
{
    while (!list_is_empty(&w->greetings))
        socket_reset(detach(CONTAINER_OF(w->greetings.next, struct greeting, link)));
}
