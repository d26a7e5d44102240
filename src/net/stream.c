#include "net/stream.h"

#include "net/stream_tls.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

/* What a stream that reads waits for. The other side's FIN and urgent data end a read early, and must be told
 * from a read that has emptied the socket. */
enum { READ_MASK = UV_READABLE | UV_DISCONNECT | UV_PRIORITIZED };

static void on_poll(uv_poll_t *poll, int status, int events);

void stream_set_state(struct stream *s, enum stream_state to)
{
    static const uint8_t moves[] = {
        [STREAM_NONE] = 1 << STREAM_CONNECTING | 1 << STREAM_HANDSHAKE | 1 << STREAM_OPEN,
        [STREAM_CONNECTING] = 1 << STREAM_HANDSHAKE | 1 << STREAM_OPEN | 1 << STREAM_CLOSING,
        [STREAM_HANDSHAKE] = 1 << STREAM_OPEN | 1 << STREAM_CLOSING,
        [STREAM_OPEN] = 1 << STREAM_CLOSING,
        [STREAM_CLOSING] = 1 << STREAM_NONE,
    };
    BUG_IF(!(moves[s->state] & 1 << to), "a stream makes a move that does not exist");
    s->state = (uint8_t)to;
}

/* The only place that talks to libuv about interest: the mask is compared first because uv_poll_start()
 * costs two system calls even when nothing changes. */
static void arm(struct stream *s, uint8_t mask)
{
    if (mask == s->armed) return;
    s->armed = mask;
    s->is_edge = false;
    if (mask)
        (void)uv_poll_start(&s->poll, mask, on_poll); /* fails only on a bad fd, which is ours */
    else
        (void)uv_poll_stop(&s->poll);
}

/* Level-triggered, a socket that was read is looked at once more by the next wait, only to be found empty:
 * 1.5 % of an echo's or a GET's processor time. So a stream that does nothing but read becomes edge-triggered
 * by a read that has emptied the socket, and is level-triggered again as soon as a read has not, or its mask
 * changes: libuv then sets its own mask. libuv has no edge-triggered mode, so this changes its epoll
 * registration directly. It relies on `data.fd`, which libuv does not document (docs/adr/0006). Never on a
 * unix socket, where a read ends behind bytes that carry descriptors, and no event tells. */
static void set_edge(struct stream *s, bool is_empty)
{
    if (s->is_edge == is_empty || s->is_unix || s->state != STREAM_OPEN || s->armed != READ_MASK) return;
    if (is_empty) {
        struct epoll_event e = {.events = EPOLLIN | EPOLLRDHUP | EPOLLPRI | EPOLLET, .data.fd = s->fd};
        s->is_edge = epoll_ctl(uv_backend_fd(s->poll.loop), EPOLL_CTL_MOD, s->fd, &e) == 0;
    } else {
        arm(s, 0);
        arm(s, READ_MASK);
    }
}

/* A handshake is read even when the user does not want to read yet. */
static bool wants_bytes(const struct stream *s)
{
    if (s->eof) return false;
    return s->state == STREAM_HANDSHAKE || (s->state == STREAM_OPEN && s->reading);
}

void stream_update_interest(struct stream *s)
{
    uint8_t mask = 0;
    if (s->state == STREAM_CONNECTING) {
        mask = UV_WRITABLE;
    } else if (s->state == STREAM_OPEN || s->state == STREAM_HANDSHAKE) {
        if (wants_bytes(s)) mask |= READ_MASK;
        if (s->pending) mask |= UV_WRITABLE;
        /* After the FIN only an error is left to come. epoll reports that with any mask, but libuv has none
         * that is empty; urgent data, which this asks for, cannot follow a FIN. */
        if (s->eof && !s->is_lost) mask |= UV_PRIORITIZED;
    }
    arm(s, mask);
}

enum err stream_start(struct stream *s, struct loop *l, int fd, const struct stream_events *events,
                      enum stream_state state)
{
    memset(s, 0, sizeof *s);
    s->events = events;
    s->fd = fd;
    s->reading = true;
    int r = uv_poll_init(&l->uv, &s->poll, s->fd);
    if (r) {
        (void)close(s->fd);
        s->fd = -1;
        return r == UV_ENOMEM ? ERR_NOMEM : ERR_IO;
    }
    s->poll.data = s;
    stream_set_state(s, state);
    stream_update_interest(s);
    return ERR_OK;
}

enum err stream_open(struct stream *s, struct loop *l, int fd, const struct stream_events *events)
{
    return stream_start(s, l, fd, events, STREAM_OPEN);
}

enum err stream_connect(struct stream *s, struct loop *l, const struct socket_address *a,
                        const struct stream_events *events)
{
    int fd;
    enum err e = socket_connect(a, l->leaves_reserve, &fd);
    if (e) return e;
    e = stream_start(s, l, fd, events, STREAM_CONNECTING);
    s->is_unix = a->any.sa_family == AF_UNIX;
    return e;
}

void stream_read_pause(struct stream *s)
{
    if (!s->reading) return;
    s->reading = false;
    if (s->state == STREAM_OPEN) stream_update_interest(s);
}

void stream_read_resume(struct stream *s)
{
    if (s->reading) return;
    s->reading = true;
    if (s->state != STREAM_OPEN) return;
    stream_update_interest(s);
    if (s->tls) stream_tls_resume(s);
}

/* One recv. True when it has emptied the socket. */
static bool read_once(struct stream *s)
{
    if (s->tls && stream_tls_hand_over(s))
        return false; /* what came before goes first; the socket will ask again */
    const struct loop *l = stream_loop(s);
    if (s->events->on_readable && !s->tls && s->events->on_readable(s)) return false;
    ssize_t n = recv(s->fd, l->read_buffer, l->read_buffer_bytes, 0);
    if (n > 0) {
        s->bytes_in += (uint64_t)n;
        if ((size_t)n == l->read_buffer_bytes) s->has_more = true;
        if (s->tls)
            stream_tls_take(s, l->read_buffer, (size_t)n);
        else
            s->events->on_read(s, l->read_buffer, (size_t)n);
        return (size_t)n < l->read_buffer_bytes;
    }
    if (n < 0 && errno == EAGAIN) return true;
    if (n == 0 && s->tls) {
        stream_tls_take_fin(s);
    } else if (n == 0) {
        s->eof = true;
        s->events->on_eof(s); /* usually closes */
        if (s->state == STREAM_OPEN) stream_update_interest(s);
    } else if (errno != EINTR) {
        s->events->on_failed(s, err_from_errno(errno));
    }
    return false;
}

void stream_read_now(struct stream *s)
{
    if (wants_bytes(s)) (void)read_once(s);
}

bool stream_is_quiet(const struct stream *s)
{
    char byte;
    if (s->tls && stream_tls_has_waiting(s)) return false;
    return recv(s->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

bool stream_has_more(const struct stream *s)
{
    return s->has_more || s->eof || (s->tls && stream_tls_has_more(s));
}

void stream_finish_shutdown(struct stream *s)
{
    if (!s->shut_wanted || s->shut_done || s->pending || s->state != STREAM_OPEN) return;
    s->shut_done = true;
    (void)shutdown(s->fd, SHUT_WR); /* fails only when the peer is gone already; reading tells */
}

static void drop_pending(struct stream *s)
{
    free(s->pending);
    s->pending = NULL;
}

/* Sending failed. The reading side goes on: an early answer may still be in the receive buffer. */
static enum err fail_writes(struct stream *s)
{
    enum err e = err_from_errno(errno);
    s->write_failed = true;
    drop_pending(s);
    stream_update_interest(s);
    return e;
}

static void flush_pending(struct stream *s)
{
    struct stream_pending *waiting = s->pending;
    ssize_t n = send(s->fd, waiting->p + waiting->at, waiting->n, MSG_NOSIGNAL);
    if (n < 0) {
        if (errno == EAGAIN || errno == EINTR) return;
        (void)fail_writes(s); /* the next write, or the reading side, reports it */
    } else {
        s->bytes_out += (uint64_t)n;
        waiting->at += (size_t)n;
        waiting->n -= (size_t)n;
        waiting->moved_ms = stream_loop(s)->now_ms;
        if (waiting->n) return;
        drop_pending(s);
        stream_update_interest(s);
    }
    if (s->state != STREAM_OPEN) return; /* part of a handshake: the user's bytes still wait */
    stream_finish_shutdown(s);
    s->events->on_drained(s);
}

void stream_tell_open(struct stream *s)
{
    stream_update_interest(s);
    if (s->events->on_connected) s->events->on_connected(s);
}

static void finish_connect(struct stream *s)
{
    int sys = 0;
    socklen_t len = sizeof sys;
    if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &sys, &len) != 0) sys = errno;
    if (sys) {
        arm(s, 0);
        s->events->on_failed(s, err_from_errno(sys));
        return;
    }
    if (s->tls) {
        stream_tls_begin(s);
    } else {
        stream_set_state(s, STREAM_OPEN);
        stream_tell_open(s);
        if (s->state == STREAM_OPEN && s->pending)
            flush_pending(s);
        else
            stream_finish_shutdown(s);
    }
}

/* Something happened behind the other side's FIN: it reset the connection, or both directions have ended. */
static void note_lost(struct stream *s, bool failed)
{
    s->is_lost = true;
    stream_update_interest(s);
    if (failed) s->events->on_failed(s, ERR_RESET);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct stream *s = poll->data;
    loop_turn(stream_loop(s));
    if (status < 0) {
        /* libuv saw POLLERR and has stopped the handle; the cause is found by using the socket. */
        s->armed = 0;
        s->is_edge = false;
        events = UV_READABLE | UV_WRITABLE;
    }
    if (s->state == STREAM_CONNECTING) {
        finish_connect(s);
        return;
    }
    if ((events & UV_WRITABLE) && s->pending && s->state != STREAM_CLOSING) flush_pending(s);
    bool was_eof = s->eof, is_empty = false;
    s->has_more = status < 0 || (events & (READ_MASK & ~UV_READABLE));
    if ((events & READ_MASK) && wants_bytes(s))
        is_empty = read_once(s) && !(events & (READ_MASK & ~UV_READABLE));
    if (s->state != STREAM_OPEN && s->state != STREAM_HANDSHAKE) return;
    if (s->eof && !s->is_lost && (status < 0 || (was_eof && (events & UV_PRIORITIZED))))
        note_lost(s, status < 0);
    else if (status < 0)
        stream_update_interest(s);
    else
        set_edge(s, is_empty);
}

/* Room for `total` bytes more. Errors: ERR_NOMEM. */
static enum err grow_pending(struct stream *s, size_t total)
{
    struct stream_pending *before = s->pending;
    size_t n = before ? before->n : 0;
    if (before && before->at + n + total <= before->cap) return ERR_OK;
    struct stream_pending *grown = malloc(sizeof *grown + n + total);
    if (!grown) return ERR_NOMEM;
    grown->at = 0;
    grown->n = n;
    grown->cap = n + total;
    grown->moved_ms = before ? before->moved_ms : stream_loop(s)->now_ms;
    if (before) memcpy(grown->p, before->p + before->at, n);
    free(before);
    s->pending = grown;
    return ERR_OK;
}

static enum err keep_pending(struct stream *s, const struct iovec *iov, unsigned n, size_t total)
{
    if (grow_pending(s, total)) return ERR_NOMEM;
    char *to = s->pending->p + s->pending->at + s->pending->n;
    for (unsigned i = 0; i < n; i++) {
        if (iov[i].iov_len) memcpy(to, iov[i].iov_base, iov[i].iov_len);
        to += iov[i].iov_len;
    }
    s->pending->n += total;
    stream_update_interest(s);
    return ERR_OK;
}

static ssize_t send_slices(int fd, struct iovec *iov, unsigned n)
{
    if (n == 1) return send(fd, iov->iov_base, iov->iov_len, MSG_NOSIGNAL);
    struct msghdr m = {.msg_iov = iov, .msg_iovlen = n};
    return sendmsg(fd, &m, MSG_NOSIGNAL);
}

enum err stream_send(struct stream *s, struct iovec *iov, unsigned n, size_t total)
{
    if (!s->pending && s->state != STREAM_CONNECTING) {
        ssize_t sent = send_slices(s->fd, iov, n);
        if (sent < 0 && errno != EAGAIN && errno != EINTR) return fail_writes(s);
        size_t skip = sent > 0 ? (size_t)sent : 0;
        s->bytes_out += skip;
        total -= skip;
        if (total == 0) return ERR_OK;
        while (skip >= iov->iov_len) {
            skip -= iov->iov_len;
            iov++;
            n--;
        }
        iov->iov_base = (char *)iov->iov_base + skip;
        iov->iov_len -= skip;
    }
    return keep_pending(s, iov, n, total);
}

enum err stream_write(struct stream *s, struct iovec *iov, unsigned n)
{
    BUG_IF(n > STREAM_IOV_MAX, "too many slices in one write");
    if (s->write_failed) return ERR_RESET;
    if (s->state == STREAM_NONE || s->state == STREAM_CLOSING || s->shut_wanted) return ERR_CLOSED;
    size_t total = 0;
    for (unsigned i = 0; i < n; i++)
        total += iov[i].iov_len;
    if (total == 0) return ERR_OK;
    return s->tls ? stream_tls_write(s, iov, n, total) : stream_send(s, iov, n, total);
}

void stream_shutdown(struct stream *s)
{
    if (s->shut_wanted) return;
    s->shut_wanted = true;
    if (s->tls) stream_tls_send_close_notify(s);
    stream_finish_shutdown(s);
}

static void on_uv_closed(uv_handle_t *handle)
{
    struct stream *s = handle->data;
    loop_turn(stream_loop(s));
    stream_set_state(s, STREAM_NONE);
    s->events->on_closed(s);
}

void stream_close(struct stream *s, enum stream_end how)
{
    if (s->state == STREAM_NONE || s->state == STREAM_CLOSING) return;
    if (s->tls) stream_tls_end(s, how);
    stream_set_state(s, STREAM_CLOSING);
    drop_pending(s);
    if (how == STREAM_END_RESET) {
        const struct linger hard = {.l_onoff = 1, .l_linger = 0};
        (void)setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard); /* then it is an ordinary close */
    }
    uv_close((uv_handle_t *)&s->poll, on_uv_closed); /* stops polling: the fd may be closed at once */
    (void)close(s->fd);
    s->fd = -1;
}
