#include "proxy/worker_update.h"

#include "base/container.h"
#include "base/log.h"
#include "proxy/conn.h"

#include <stdlib.h>

struct worker_update *worker_update_create(struct worker *w, struct generation *g, const int *kept,
                                           const int *fds)
{
    uint32_t n = g->config->nlisteners;
    struct worker_update *u = calloc(1, sizeof *u);
    bool complete = u != NULL;
    for (uint32_t i = 0; i < n; i++) {
        struct worker_listener *l = kept[i] < 0 ? worker_listener_create(w, fds[i]) : NULL;
        if (kept[i] < 0 && !l) complete = false;
        if (u) {
            u->opened[i] = l;
            u->kept[i] = kept[i];
        } else {
            worker_listener_discard(l);
        }
    }
    if (u) {
        u->worker = w;
        u->settings = settings_create(g);
    }
    if (complete && u->settings) return u;
    worker_update_destroy(u);
    return NULL;
}

void worker_update_destroy(struct worker_update *u)
{
    if (!u) return;
    for (uint32_t i = 0; i < CONFIG_LISTENERS_MAX; i++)
        worker_listener_discard(u->opened[i]);
    settings_release(u->settings);
    free(u);
}

/* The new list of listeners; what is on the old one only is closed. */
static void apply_listeners(struct worker_update *u)
{
    struct worker *w = u->worker;
    struct worker_listener *next[CONFIG_LISTENERS_MAX] = {0};
    uint32_t n = w->settings->config->nlisteners;
    for (uint32_t i = 0; i < n; i++) {
        struct worker_listener *l = u->opened[i];
        u->opened[i] = NULL;
        if (l) {
            if (worker_listener_open(l, w->settings, i) == ERR_OK)
                next[i] = l;
            else
                u->nfailed++;
        } else if (w->listeners[u->kept[i]]) { /* the loop may have refused it in the generation before */
            next[i] = w->listeners[u->kept[i]];
            w->listeners[u->kept[i]] = NULL;
            worker_listener_adopt(next[i], w->settings, i);
        }
    }
    for (uint32_t i = 0; i < CONFIG_LISTENERS_MAX; i++) {
        if (w->listeners[i]) worker_listener_close(w->listeners[i]);
        w->listeners[i] = next[i];
    }
}

static void apply(struct worker_update *u)
{
    struct worker *w = u->worker;
    struct worker_settings *before = w->settings;
    w->settings = u->settings;
    u->settings = NULL;
    /* First: a listener that closes takes what waits in it, and those requests may be for a new backend. */
    for (unsigned e = 0; e < ENV_COUNT; e++) {
        if (u->addresses[e].n) upstream_set_addresses(&w->upstreams[e], &u->addresses[e]);
        upstream_configure(&w->upstreams[e], w->settings->generation);
    }
    apply_listeners(u);
    conn_adopt_all(w);
    settings_release(before);
    if (u->nfailed) log_error("listen_failed", KV_UINT("worker", w->index), KV_UINT("listeners", u->nfailed));
    if (u->on_applied) u->on_applied(u);
}

static void on_update(struct loop_message *message)
{
    apply(CONTAINER_OF(message, struct worker_update, message));
}

void worker_update_publish(struct worker_update *u)
{
    if (!u->worker->started) {
        apply(u);
        return;
    }
    u->message.deliver = on_update;
    BUG_IF(!loop_post(&u->worker->loop, &u->message), "a worker ended without being told to");
}
