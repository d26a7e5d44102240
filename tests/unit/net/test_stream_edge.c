/* Streams that wait edge-triggered: when they do, as the kernel sees it, and that nothing is forgotten: what
 * a read leaves behind, a FIN that came with bytes, what follows an urgent byte, what came during a pause. */
#include "helper_link.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* What the kernel waits for on the stream's socket (see proc(5), fdinfo); `*data` is what it gives back. */
static uint32_t kernel_mask(const struct user *u, uint64_t *data)
{
    char path[64], line[256];
    (void)snprintf(path, sizeof path, "/proc/self/fdinfo/%d", uv_backend_fd(u->stream.poll.loop));
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    uint32_t events = 0, found = 0;
    while (!found && fgets(line, sizeof line, f)) {
        int fd = -1;
        if (sscanf(line, "tfd: %d events: %" SCNx32 " data: %" SCNx64, &fd, &events, data) == 3)
            found = fd == u->stream.fd;
    }
    (void)fclose(f);
    assert_true(found);
    return events;
}

static bool is_edge(const struct user *u)
{
    uint64_t data;
    bool edge = (kernel_mask(u, &data) & EPOLLET) != 0;
    assert_true(u->stream.is_edge ||
                !edge); /* thinking so in vain costs time, the other way round a stream */
    return edge;
}

/* A stream that has read five bytes. */
static struct user *open_edge(struct net_test *t, int *fd)
{
    struct user *u = user_open_tcp(t, fd);
    test_send(*fd, "hello");
    RUN_UNTIL(t, u->ngot == 5);
    assert_true(is_edge(u));
    return u;
}

static void waiting_goes_on_in_the_words_of_libuv(void **state)
{
    struct net_test *t = *state;
    int fd;
    uint64_t before, after;
    struct user *u = user_open_tcp(t, &fd);
    net_test_settle(t);
    uint32_t level = kernel_mask(u, &before);
    assert_int_equal(level & EPOLLET, 0);
    test_send(fd, "hello");
    RUN_UNTIL(t, u->ngot == 5);
    assert_int_equal(kernel_mask(u, &after), level | EPOLLET);
    assert_int_equal(after, before);
    test_send(fd, " again");
    RUN_UNTIL(t, u->ngot == 11);
    assert_true(is_edge(u));
    close(fd);
    user_destroy(t, u);
}

/* The first read takes a whole buffer and cannot know what is left. */
static void what_a_read_leaves_is_read(void **state)
{
    struct net_test *t = *state;
    int fd;
    struct user *u = open_edge(t, &fd);
    const size_t n = 5 * (size_t)TEST_READ_BUFFER; /* less than the socket's buffers hold */
    char *sent = test_pattern(n);
    assert_int_equal(send(fd, sent, n, MSG_NOSIGNAL), n);
    RUN_UNTIL(t, u->ngot == 5 + TEST_READ_BUFFER);
    assert_false(u->stream.is_edge);
    RUN_UNTIL(t, u->ngot == 5 + n);
    assert_memory_equal(u->got + 5, sent, n);
    test_send(fd, "end");
    RUN_UNTIL(t, u->ngot == 5 + n + 3);
    assert_true(is_edge(u));
    free(sent);
    close(fd);
    user_destroy(t, u);
}

static void a_fin_that_came_with_bytes_is_seen(void **state)
{
    struct net_test *t = *state;
    int fd;
    struct user *u = open_edge(t, &fd);
    test_send(fd, " and goodbye");
    shutdown(fd, SHUT_WR);
    RUN_UNTIL(t, u->eofs);
    assert_string_equal(u->got, "hello and goodbye");
    assert_int_equal(user_write(u, "bye", 3), ERR_OK);
    test_reset(fd);
    RUN_UNTIL(t, u->failures);
    assert_int_equal(u->failure, ERR_RESET);
    user_destroy(t, u);
}

static void a_fin_or_a_reset_alone_is_seen(void **state)
{
    struct net_test *t = *state;
    int fd;
    struct user *u = open_edge(t, &fd);
    close(fd);
    RUN_UNTIL(t, u->eofs);
    user_destroy(t, u);
    u = open_edge(t, &fd);
    test_reset(fd);
    RUN_UNTIL(t, u->failures);
    assert_int_equal(u->failure, ERR_RESET);
    user_destroy(t, u);
}

/* A receive ends before an urgent byte; that byte itself belongs to no stream (RFC 6093 section 3). */
static void bytes_behind_an_urgent_one_are_read(void **state)
{
    struct net_test *t = *state;
    int fd;
    struct user *u = open_edge(t, &fd);
    test_send(fd, " be");
    assert_int_equal(send(fd, "!", 1, MSG_OOB | MSG_NOSIGNAL), 1);
    test_send(fd, "hind");
    RUN_UNTIL(t, u->ngot == 12);
    assert_string_equal(u->got, "hello behind");
    unsigned turns = t->turns;
    net_test_settle(t);
    assert_true(t->turns - turns < 5); /* nothing spins over it */
    close(fd);
    user_destroy(t, u);
}

/* After a FIN urgent data stand for its being over both ways: those before it do not. */
static void a_reset_after_an_urgent_byte_and_a_fin_is_seen(void **state)
{
    struct net_test *t = *state;
    int fd;
    struct user *u = open_edge(t, &fd);
    assert_int_equal(send(fd, "!", 1, MSG_OOB | MSG_NOSIGNAL), 1);
    shutdown(fd, SHUT_WR);
    RUN_UNTIL(t, u->eofs);
    test_reset(fd);
    RUN_UNTIL(t, u->failures);
    assert_int_equal(u->failure, ERR_RESET);
    user_destroy(t, u);
}

static void an_urgent_byte_alone_is_passed_over(void **state)
{
    struct net_test *t = *state;
    int fd;
    struct user *u = open_edge(t, &fd);
    assert_int_equal(send(fd, "!", 1, MSG_OOB | MSG_NOSIGNAL), 1);
    net_test_settle(t);
    unsigned turns = t->turns;
    net_test_settle(t);
    assert_true(t->turns - turns < 5);
    assert_int_equal(u->ngot, 5);
    test_send(fd, " you");
    RUN_UNTIL(t, u->ngot == 9);
    close(fd);
    RUN_UNTIL(t, u->eofs);
    user_destroy(t, u);
}

static void what_came_during_a_pause_is_read(void **state)
{
    struct net_test *t = *state;
    int fd;
    struct user *u = open_edge(t, &fd);
    stream_read_pause(&u->stream);
    net_test_settle(t);
    test_send(fd, " there");
    net_test_settle(t);
    assert_int_equal(u->ngot, 5);
    stream_read_resume(&u->stream);
    RUN_UNTIL(t, u->ngot == 11);
    test_send(fd, " more"); /* before the pause reaches the kernel, and it is over then */
    stream_read_pause(&u->stream);
    stream_read_resume(&u->stream);
    RUN_UNTIL(t, u->ngot == 16);
    close(fd);
    user_destroy(t, u);
}

/* A writable socket is waited for level-triggered, and so is reading meanwhile. */
static void what_comes_while_writing_is_blocked_is_read(void **state)
{
    struct net_test *t = *state;
    int fd;
    struct user *u = open_edge(t, &fd);
    char *sent = test_pattern(MUCH), *got = malloc(2 * MUCH);
    size_t total = 0, ngot = 0;
    while (!stream_is_blocked(&u->stream)) {
        assert_int_equal(user_write(u, sent, MUCH), ERR_OK);
        total += MUCH;
    }
    net_test_settle(t);
    assert_false(is_edge(u));
    test_send(fd, " meanwhile");
    RUN_UNTIL(t, u->ngot == 15);
    net_test_watch(t);
    while (ngot < total) {
        long n = test_recv(fd, got, 2 * MUCH);
        if (n > 0) ngot += (size_t)n;
        RUN_READY(t);
    }
    RUN_UNTIL(t, u->drains == 1);
    test_send(fd, " after");
    RUN_UNTIL(t, u->ngot == 21);
    assert_true(is_edge(u));
    free(sent);
    free(got);
    close(fd);
    user_destroy(t, u);
}

/* --- TLS ------------------------------------------------------------------------------------------- */

static void tls_waits_so_too(void **state)
{
    struct link l = link_open(state);
    link_exchange(&l);
    peer_write(l.t, l.p, "once more", 9);
    RUN_UNTIL(l.t, l.u->ngot == 17);
    assert_true(is_edge(l.u));
    char *sent = test_pattern(MUCH);
    peer_write(l.t, l.p, sent, MUCH);
    RUN_UNTIL(l.t, l.u->ngot == 17 + MUCH);
    assert_memory_equal(l.u->got + 17, sent, MUCH);
    stream_read_pause(&l.u->stream);
    peer_write(l.t, l.p, sent, 1000);
    (void)SSL_shutdown(l.p->ssl);
    peer_carry(l.t, l.p);
    shutdown(l.p->fd, SHUT_WR);
    net_test_settle(l.t);
    stream_read_resume(&l.u->stream);
    RUN_UNTIL(l.t, l.u->eofs);
    assert_int_equal(l.u->ngot, 17 + MUCH + 1000);
    free(sent);
    link_free(&l);
}

/* --- a model: whatever happens, everything comes, in order ------------------------------------------ */

enum { RUNS = 300, STEPS = 40, PIECE_MAX = 3 * TEST_READ_BUFFER, SENT_MAX = USER_GOT_MAX - PIECE_MAX };

struct model {
    struct net_test *t;
    struct user *u;
    int fd;
    const char *pattern;
    size_t nsent;
    bool was_urgent; /* a second urgent byte would make the first an ordinary one */
};

static unsigned pick(unsigned below)
{
    return (unsigned)rand() % below;
}

static void send_some(struct model *m)
{
    size_t n = pick(3) ? 1 + pick(300) : 1 + pick(PIECE_MAX);
    if (m->nsent + n > SENT_MAX) return;
    ssize_t sent = send(m->fd, m->pattern + m->nsent, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) m->nsent += (size_t)sent;
}

static void send_urgent(struct model *m)
{
    if (!m->was_urgent) m->was_urgent = send(m->fd, "!", 1, MSG_OOB | MSG_NOSIGNAL | MSG_DONTWAIT) == 1;
}

static void step(struct model *m)
{
    char got[PIECE_MAX];
    switch (pick(10)) {
    case 0: stream_read_pause(&m->u->stream); break;
    case 1: stream_read_resume(&m->u->stream); break;
    case 2:
        if (!stream_is_blocked(&m->u->stream))
            assert_int_equal(user_write(m->u, m->pattern, 1 + pick(PIECE_MAX)), ERR_OK);
        break;
    case 3: (void)test_recv(m->fd, got, sizeof got); break;
    case 4: send_urgent(m); break;
    case 5:
    case 6:
    case 7: send_some(m); break;
    default: RUN_READY(m->t); break;
    }
}

static void run_model(struct net_test *t, const char *pattern)
{
    struct model m = {.t = t, .pattern = pattern};
    m.u = user_open_tcp(t, &m.fd);
    net_test_watch(t);
    for (int i = 0; i < STEPS; i++)
        step(&m);
    stream_read_resume(&m.u->stream);
    if (pick(2)) { /* the end with bytes before it, or after all of them */
        RUN_UNTIL(t, m.u->ngot == m.nsent);
        assert_int_equal(m.u->eofs, 0);
    }
    shutdown(m.fd, SHUT_WR);
    RUN_UNTIL(t, m.u->eofs);
    assert_int_equal(m.u->ngot, m.nsent);
    assert_memory_equal(m.u->got, pattern, m.nsent);
    close(m.fd);
    user_destroy(t, m.u);
}

static void everything_comes_whatever_happens(void **state)
{
    char *pattern = test_pattern(USER_GOT_MAX);
    for (unsigned seed = 1; seed <= RUNS; seed++) {
        srand(seed);
        run_model(*state, pattern);
    }
    free(pattern);
}

#define EDGE_TEST(name) cmocka_unit_test_setup_teardown(name, net_test_setup, net_test_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        EDGE_TEST(waiting_goes_on_in_the_words_of_libuv),
        EDGE_TEST(what_a_read_leaves_is_read),
        EDGE_TEST(a_fin_that_came_with_bytes_is_seen),
        EDGE_TEST(a_fin_or_a_reset_alone_is_seen),
        EDGE_TEST(bytes_behind_an_urgent_one_are_read),
        EDGE_TEST(a_reset_after_an_urgent_byte_and_a_fin_is_seen),
        EDGE_TEST(an_urgent_byte_alone_is_passed_over),
        EDGE_TEST(what_came_during_a_pause_is_read),
        EDGE_TEST(what_comes_while_writing_is_blocked_is_read),
        EDGE_TEST(tls_waits_so_too),
        EDGE_TEST(everything_comes_whatever_happens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
