#include "proxy/worker_update.h"

#include "base/container.h"
#include "base/log.h"
#include "proxy/conns.h"

#include <stdlib.h>

struct worker_update *worker_update_create(struct worker *w, struct generation *g, const int *kept)
{
    struct worker_update *u = calloc(1, sizeof *u);
    if (!u) return NULL;
    u->worker = w;
    for (uint32_t i = 0; i < g->config->nlisteners; i++)
        u->kept[i] = kept[i];
    u->settings = settings_create(g);
    if (u->settings) return u;
    free(u);
    return NULL;
}

enum err worker_update_listen(struct worker_update *u, uint32_t i, int fd)
{
    struct worker_listener *l = worker_listener_create(u->worker, fd, u->opened[i]);
    if (!l) return ERR_NOMEM;
    u->opened[i] = l;
    return ERR_OK;
}

void worker_update_destroy(struct worker_update *u)
{
    if (!u) return;
    for (uint32_t i = 0; i < CONFIG_LISTENERS_MAX; i++)
        worker_listener_discard(u->opened[i]);
    settings_unref(u->settings);
    free(u);
}

/* The new list of listeners; what is on the old one only is closed. What waits there is taken, unless the
 * thread does not run yet: then it is for the process that this one may take over from. */
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
        if (w->listeners[i]) worker_listener_close(w->listeners[i], w->started);
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
    conns_adopt(w);
    settings_unref(before);
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
