#include "helper_net.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { PATIENCE_MS = 10000, SETTLE_RUNS = 50 };

static void on_turn_begin(void *arg)
{
    ((struct net_test *)arg)->turns++;
}

static void on_expired(uv_timer_t *timer)
{
    ((struct net_test *)timer->data)->expired = true;
}

int net_test_setup(void **state)
{
    struct net_test *t = calloc(1, sizeof *t);
    assert_non_null(t);
    const struct loop_hooks hooks = {.on_turn_begin = on_turn_begin, .arg = t};
    assert_int_equal(loop_init(&t->loop, TEST_READ_BUFFER, &hooks), ERR_OK);
    assert_int_equal(uv_timer_init(&t->loop.uv, &t->watchdog), 0);
    uv_unref((uv_handle_t *)&t->watchdog);
    t->watchdog.data = t;
    *state = t;
    return 0;
}

int net_test_teardown(void **state)
{
    struct net_test *t = *state;
    uv_close((uv_handle_t *)&t->watchdog, NULL);
    loop_close(&t->loop);
    loop_run(&t->loop);
    loop_deinit(&t->loop);
    free(t);
    return 0;
}

void net_test_watch(struct net_test *t)
{
    t->expired = false;
    uv_update_time(&t->loop.uv);
    assert_int_equal(uv_timer_start(&t->watchdog, on_expired, PATIENCE_MS, 0), 0);
}

void net_test_run(struct net_test *t, uv_run_mode mode, const char *waits_for, const char *file, int line)
{
    if (t->expired) {
        print_error("waited in vain for: %s\n", waits_for);
        _fail(file, line);
    }
    (void)uv_run(&t->loop.uv, mode); /* says only whether handles are left */
}

void net_test_settle(struct net_test *t)
{
    for (int i = 0; i < SETTLE_RUNS; i++)
        (void)uv_run(&t->loop.uv, UV_RUN_NOWAIT);
}

struct socket_address test_loopback(uint16_t port)
{
    const struct addr a = {.family = ADDR_V4, .v4 = 0x7f000001};
    return socket_address_ip(&a, port);
}

int test_listen(struct socket_address *bound)
{
    struct socket_address any = test_loopback(0);
    int fd, sys;
    assert_int_equal(socket_listen(&any, 16, false, false, &fd, &sys), ERR_OK);
    assert_int_equal(socket_local(fd, bound), ERR_OK);
    return fd;
}

static void make_nonblocking(int fd)
{
    assert_int_equal(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK), 0);
}

void test_tcp_pair(int fds[2])
{
    struct socket_address bound;
    int listening = test_listen(&bound);
    fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fds[0], &bound.any, bound.len), 0);
    fds[1] = accept(listening, NULL, NULL); /* connect() has returned, so the connection is in the queue */
    assert_true(fds[1] >= 0);
    close(listening);
    make_nonblocking(fds[0]);
    make_nonblocking(fds[1]);
}

void test_unix_pair(int fds[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
}

void test_reset(int fd)
{
    const struct linger hard = {.l_onoff = 1, .l_linger = 0};
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard), 0);
    close(fd);
}

long test_recv(int fd, char *p, size_t n)
{
    ssize_t got = recv(fd, p, n, MSG_DONTWAIT);
    return got < 0 ? -errno : got;
}

void test_send(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

void test_fill(char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (char)(i * 31 + i / 251);
}
