/* A loop for one test, waiting for a condition on it, and pairs of connected sockets. */
#ifndef TEST_NET_HELPER_NET_H
#define TEST_NET_HELPER_NET_H

#include "net/loop.h"
#include "net/socket.h"

#include <stddef.h>

enum { TEST_READ_BUFFER = 64 * 1024 };

struct net_test {
    struct loop loop;
    uv_timer_t watchdog; /* ends a test that waits for something that never comes */
    bool expired;
    unsigned turns; /* how often libuv called anything on the loop */
};

/* cmocka set-up and tear-down: `*state` is a struct net_test. The tear-down runs the loop until every handle
 * is closed, so a test that leaves one open fails there. */
int net_test_setup(void **state);
int net_test_teardown(void **state);

/* Runs the loop until `condition` holds; fails the test after ten seconds. */
#define RUN_UNTIL(t, condition)                                                                              \
    do {                                                                                                     \
        net_test_watch(t);                                                                                   \
        while (!(condition))                                                                                 \
            net_test_run(t, UV_RUN_ONCE, #condition, __FILE__, __LINE__);                                    \
    } while (0)

/* The same for loops that have work of their own besides: net_test_watch() before, this in every round. */
#define RUN_READY(t) net_test_run(t, UV_RUN_NOWAIT, "the end of a loop", __FILE__, __LINE__)

void net_test_watch(struct net_test *t);
void net_test_run(struct net_test *t, uv_run_mode mode, const char *waits_for, const char *file, int line);

/* Runs what is ready now and returns; many times, so that whatever spins is seen in `turns`. */
void net_test_settle(struct net_test *t);

/* 127.0.0.1 with this port. */
struct socket_address test_loopback(uint16_t port);

/* A listening socket on a port of the kernel's choice. */
int test_listen(struct socket_address *bound);

/* Two connected TCP sockets over loopback, both non-blocking. */
void test_tcp_pair(int fds[2]);
/* The same as a pair of unix sockets: small buffers, no RST. */
void test_unix_pair(int fds[2]);

/* Closes with RST. */
void test_reset(int fd);

/* What one recv() says now: bytes, 0 at the end, -errno. */
long test_recv(int fd, char *p, size_t n);
void test_send(int fd, const char *text);

/* A pattern in which every byte depends on its place. */
void test_fill(char *p, size_t n);

#endif
