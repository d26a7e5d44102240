#include "helper_user.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct user *user_of(struct stream *s)
{
    return (struct user *)s;
}

static struct user *begin(struct stream *s)
{
    struct user *u = user_of(s);
    assert_int_equal(u->closed, 0); /* nothing comes after on_closed */
    assert_true(s->state == STREAM_OPEN || s->state == STREAM_CONNECTING || s->state == STREAM_HANDSHAKE);
    assert_true(stream_loop(s)->in_turn);
    assert_false(u->in_event); /* events do not nest */
    u->in_event = true;
    return u;
}

static void end(struct user *u, enum user_event e)
{
    if (u->close_on == e) stream_close(&u->stream, STREAM_END_CLOSE);
    assert_int_equal(u->closed, 0); /* on_closed comes in a later turn */
    u->in_event = false;
}

static void on_connected(struct stream *s)
{
    struct user *u = begin(s);
    u->connected++;
    end(u, ON_CONNECTED);
}

static void on_read(struct stream *s, const char *p, size_t n)
{
    struct user *u = begin(s);
    assert_true(n > 0);
    assert_int_equal(u->eofs, 0);
    assert_true(u->ngot + n < USER_GOT_MAX);
    memcpy(u->got + u->ngot, p, n);
    u->ngot += n;
    u->got[u->ngot] = '\0';
    u->reads++;
    u->had_more = stream_has_more(s);
    end(u, ON_READ);
}

static void on_eof(struct stream *s)
{
    struct user *u = begin(s);
    u->eofs++;
    end(u, ON_EOF);
}

static void on_drained(struct stream *s)
{
    struct user *u = begin(s);
    assert_false(stream_is_blocked(s));
    u->drains++;
    end(u, ON_DRAINED);
}

static void on_failed(struct stream *s, enum err e)
{
    struct user *u = begin(s);
    u->failures++;
    u->failure = e;
    end(u, ON_FAILED);
}

static void on_closed(struct stream *s)
{
    struct user *u = user_of(s);
    assert_false(u->in_event);
    u->closed++;
}

const struct stream_events user_events = {
    .on_connected = on_connected,
    .on_read = on_read,
    .on_eof = on_eof,
    .on_drained = on_drained,
    .on_failed = on_failed,
    .on_closed = on_closed,
};

struct user *user_create(void)
{
    struct user *u = calloc(1, sizeof *u);
    assert_non_null(u);
    u->got = calloc(1, USER_GOT_MAX);
    assert_non_null(u->got);
    return u;
}

struct user *user_open(struct net_test *t, int fd)
{
    struct user *u = user_create();
    assert_int_equal(stream_open(&u->stream, &t->loop, fd, &user_events), ERR_OK);
    return u;
}

struct user *user_open_tcp(struct net_test *t, int *fd)
{
    int fds[2];
    test_tcp_pair(fds);
    *fd = fds[1];
    return user_open(t, fds[0]);
}

struct user *user_open_unix(struct net_test *t, int *fd)
{
    int fds[2];
    test_unix_pair(fds);
    *fd = fds[1];
    return user_open(t, fds[0]);
}

void user_destroy(struct net_test *t, struct user *u)
{
    stream_close(&u->stream, STREAM_END_CLOSE);
    RUN_UNTIL(t, u->stream.state == STREAM_NONE);
    free(u->got);
    free(u);
}

enum err user_write(struct user *u, const char *p, size_t n)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)p, .iov_len = n};
    return stream_write(&u->stream, &iov, 1);
}

size_t user_drain(struct net_test *t, struct user *u, int fd, char *to, size_t cap)
{
    size_t n = 0;
    net_test_watch(t);
    for (;;) {
        long got = test_recv(fd, to + n, cap - n);
        if (got > 0) {
            n += (size_t)got;
            continue;
        }
        if (got == 0) return n; /* the end, or `to` is full */
        assert_int_equal(got, -EAGAIN);
        if (!stream_is_blocked(&u->stream)) return n;
        RUN_READY(t);
    }
}

char *test_pattern(size_t n)
{
    char *p = malloc(n);
    assert_non_null(p);
    test_fill(p, n);
    return p;
}
