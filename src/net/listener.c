#include "net/listener.h"

#include "base/container.h"
#include "base/fd.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum {
    ACCEPTS_PER_TURN = 64, /* a flood of connections must not starve those that are open */
    REST_MS = 500,
    LAST_ACCEPTS_MAX = 65536, /* a flood must not keep a listener from closing */
};

static void on_poll(uv_poll_t *poll, int status, int events);

/* Goes on later; `sys`: why. */
static void rest(struct listener *l, int sys)
{
    uint64_t unlogged;
    l->rests++;
    l->shortage = sys;
    if (log_sample_take(&l->told, l->loop->now_us / 1000, &unlogged))
        log_error("accept_failed", KV_STR("cause", strerror(sys)), KV_UINT("unlogged", unlogged));
    (void)uv_poll_stop(&l->poll);
    loop_deadline(l->loop, &l->rest, REST_MS);
}

void listener_rest(struct listener *l)
{
    rest(l, EMFILE);
}

/* Nobody is taken from the queue only to find out that there is still no descriptor for him. */
static bool is_short(const struct listener *l)
{
    return l->shortage && l->loop->leaves_reserve && !fd_is_to_be_had();
}

/* One accept. False when there is nothing (more) to accept now. */
static bool accept_one(struct listener *l)
{
    if (is_short(l)) {
        rest(l, l->shortage);
        return false;
    }
    struct socket_address from = {.len = sizeof from.storage};
    int fd = accept4(l->fd, &from.any, &from.len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        uint64_t rests = l->rests;
        l->on_accept(l, fd, &from.any);
        return l->rests == rests;
    }
    if (errno == ECONNABORTED || errno == EINTR || errno == EPROTO) return true;
    if (errno == EAGAIN)
        l->shortage = 0;
    else
        rest(l, errno);
    return false;
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct listener *l = poll->data;
    (void)events;
    loop_turn(l->loop);
    if (status < 0) loop_deadline(l->loop, &l->rest, REST_MS); /* libuv has stopped the handle */
    for (int i = 0; i < ACCEPTS_PER_TURN && l->open; i++)
        if (!accept_one(l)) return;
}

static void on_rested(struct wheel_entry *e)
{
    struct listener *l = CONTAINER_OF(e, struct listener, rest);
    (void)uv_poll_start(&l->poll, UV_READABLE, on_poll);
}

enum err listener_open(struct listener *l, struct loop *loop, int fd, listener_accept_fn on_accept,
                       void *user)
{
    *l = (struct listener){.loop = loop, .fd = fd, .on_accept = on_accept, .user = user};
    wheel_entry_init(&l->rest, on_rested);
    if (uv_poll_init(&loop->uv, &l->poll, fd)) {
        (void)close(fd);
        return ERR_IO;
    }
    l->poll.data = l;
    l->open = true;
    (void)uv_poll_start(&l->poll, UV_READABLE, on_poll); /* fails only on a bad fd */
    return ERR_OK;
}

static void on_uv_closed(uv_handle_t *handle)
{
    struct listener *l = handle->data;
    loop_turn(l->loop);
    if (l->on_closed) l->on_closed(l);
}

void listener_accept_queued(struct listener *l)
{
    if (l->loop->leaves_reserve && !fd_is_to_be_had())
        return; /* whoever has the socket as well serves them */
    for (int i = 0; i < LAST_ACCEPTS_MAX && l->open && accept_one(l); i++) {
        /* on_accept() may close the listener */
    }
}

void listener_close(struct listener *l, void (*on_closed)(struct listener *l))
{
    if (!l->open) return;
    l->open = false;
    l->on_closed = on_closed;
    loop_deadline_clear(l->loop, &l->rest);
    uv_close((uv_handle_t *)&l->poll, on_uv_closed);
    (void)close(l->fd);
    l->fd = -1;
}
