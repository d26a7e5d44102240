#include "proxy/worker_listener.h"

#include "base/container.h"
#include "proxy/accept.h"
#include "proxy/worker.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct worker_listener *worker_listener_create(struct worker *w, int fd, struct worker_listener *more)
{
    struct worker_listener *l = calloc(1, sizeof *l);
    if (!l) {
        (void)close(fd);
        return NULL;
    }
    l->worker = w;
    l->fd = fd;
    l->more = more;
    l->refs = 1;
    return l;
}

void worker_listener_unref(struct worker_listener *l)
{
    if (!l || --l->refs) return;
    settings_unref(l->settings);
    free(l);
}

void worker_listener_discard(struct worker_listener *l)
{
    while (l) {
        struct worker_listener *more = l->more;
        (void)close(l->fd);
        worker_listener_unref(l);
        l = more;
    }
}

static void on_accept(struct listener *listener, int fd, const struct sockaddr *from)
{
    accept_client(CONTAINER_OF(listener, struct worker_listener, listener), fd, from);
}

static void set_settings(struct worker_listener *l, struct worker_settings *s, uint32_t index)
{
    struct worker_settings *before = l->settings;
    l->settings = settings_ref(s);
    l->config = &s->config->listeners[index];
    l->tls = s->generation->tls.listeners[index].server;
    settings_unref(before);
}

static enum err open_one(struct worker_listener *l, struct worker_settings *s, uint32_t index)
{
    int fd = l->fd;
    l->fd = -1; /* listener_open() owns it, also when it fails */
    set_settings(l, s, index);
    enum err e = listener_open(&l->listener, &l->worker->loop, fd, on_accept, NULL);
    if (e) worker_listener_unref(l);
    return e;
}

enum err worker_listener_open(struct worker_listener *first, struct worker_settings *s, uint32_t index)
{
    struct worker_listener *opened = NULL;
    for (struct worker_listener *l = first, *more; l; opened = l, l = more) {
        more = l->more;
        enum err e = open_one(l, s, index);
        if (e == ERR_OK) continue;
        worker_listener_discard(more);
        if (opened) opened->more = NULL;
        if (opened) worker_listener_close(first, true);
        return e;
    }
    return ERR_OK;
}

void worker_listener_adopt(struct worker_listener *l, struct worker_settings *s, uint32_t index)
{
    int32_t before = l->config->backlog;
    for (; l; l = l->more) {
        set_settings(l, s, index);
        if (l->config->backlog != before)
            (void)listen(l->listener.fd, l->config->backlog); /* only moves it */
    }
}

static void on_closed(struct listener *listener)
{
    worker_listener_unref(CONTAINER_OF(listener, struct worker_listener, listener));
}

void worker_listener_close(struct worker_listener *l, bool take_queued)
{
    while (l) {
        struct worker_listener *more = l->more;
        l->more = NULL;
        if (take_queued) listener_accept_queued(&l->listener);
        listener_close(&l->listener, on_closed);
        l = more;
    }
}
