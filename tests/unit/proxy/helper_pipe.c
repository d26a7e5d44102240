#include "helper_pipe.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static void on_read(struct stream *s, const char *p, size_t n)
{
    (void)s;
    (void)p;
    (void)n;
}

static void on_event(struct stream *s)
{
    (void)s;
}

static void on_failed(struct stream *s, enum err e)
{
    (void)e;
    stream_close(s, STREAM_END_CLOSE);
}

static const struct stream_events events = {.on_read = on_read,
                                            .on_eof = on_event,
                                            .on_drained = on_event,
                                            .on_failed = on_failed,
                                            .on_closed = on_event};

int test_pipe_setup(void **state)
{
    struct test_pipe *p = calloc(1, sizeof *p);
    int fds[2];
    assert_non_null(p);
    p->got = calloc(1, PIPE_GOT_MAX + 1);
    assert_non_null(p->got);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    assert_int_equal(loop_init(&p->loop, 64 * 1024, NULL), ERR_OK);
    assert_int_equal(stream_open(&p->stream, &p->loop, fds[0], &events), ERR_OK);
    p->fd = fds[1];
    *state = p;
    return 0;
}

int test_pipe_teardown(void **state)
{
    struct test_pipe *p = *state;
    if (p->fd >= 0) close(p->fd);
    stream_close(&p->stream, STREAM_END_CLOSE);
    loop_close(&p->loop);
    loop_run(&p->loop);
    loop_deinit(&p->loop);
    free(p->got);
    free(p);
    return 0;
}

void test_pipe_take(struct test_pipe *p)
{
    for (;;) {
        ssize_t n = recv(p->fd, p->got + p->ngot, PIPE_GOT_MAX - p->ngot, MSG_DONTWAIT);
        if (n > 0) {
            p->ngot += (size_t)n;
            p->got[p->ngot] = '\0';
            continue;
        }
        assert_int_equal(n, -1);
        assert_int_equal(errno, EAGAIN);
        if (!stream_is_blocked(&p->stream)) return;
        (void)uv_run(&p->loop.uv, UV_RUN_ONCE); /* there is room now: it will be writable */
    }
}

void test_pipe_break(struct test_pipe *p)
{
    close(p->fd);
    p->fd = -1;
}
