/* The listener: accepting, resting when descriptors run out, and ending without losing a queued connection.
 */
#include "base/fd.h"
#include "helper_net.h"
#include "net/listener.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { CLIENTS = 5 };

struct host {
    struct listener listener; /* first */
    struct net_test *t;
    struct socket_address bound;
    unsigned accepted, refused, closed;
    int last_fd; /* of the last accepted connection; closed by the next one and at the end */
    uint16_t last_port;
    bool close_in_accept;
    int clients[CLIENTS]; /* of queue_clients() */
    int nclients;
};

static void on_closed(struct listener *l)
{
    struct host *h = l->user;
    assert_true(l->loop->in_turn);
    h->closed++;
}

static void on_accept(struct listener *l, int fd, const struct sockaddr *from)
{
    struct host *h = l->user;
    struct socket_address a;
    memset(&a, 0, sizeof a);
    memcpy(&a.storage, from, sizeof(struct sockaddr_in));
    assert_int_equal(h->closed, 0);
    assert_int_equal(from->sa_family, AF_INET);
    if (l->loop->leaves_reserve && fd_is_reserved(fd)) {
        close(fd);
        h->refused++;
        listener_rest(l);
        return;
    }
    if (h->last_fd >= 0) close(h->last_fd);
    h->last_fd = fd;
    h->last_port = socket_address_port(&a);
    h->accepted++;
    if (h->close_in_accept) listener_close(l, on_closed);
}

static void host_open(struct host *h, struct net_test *t)
{
    *h = (struct host){.t = t, .last_fd = -1};
    assert_int_equal(listener_open(&h->listener, &t->loop, test_listen(&h->bound), on_accept, h), ERR_OK);
}

static void host_close(struct host *h)
{
    listener_close(&h->listener, on_closed);
    RUN_UNTIL(h->t, h->closed);
    if (h->last_fd >= 0) close(h->last_fd);
    while (h->nclients)
        close(h->clients[--h->nclients]);
}

/* connect() has returned: the connection is in the listener's queue. */
static int connect_to(const struct host *h)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, &h->bound.any, h->bound.len), 0);
    return fd;
}

static void queue_clients(struct host *h)
{
    while (h->nclients < CLIENTS)
        h->clients[h->nclients++] = connect_to(h);
}

static void accepts_a_connection(void **state)
{
    struct net_test *t = *state;
    struct host h;
    struct socket_address from;
    host_open(&h, t);
    int fd = connect_to(&h);
    assert_int_equal(socket_local(fd, &from), ERR_OK);
    RUN_UNTIL(t, h.accepted == 1);
    assert_int_equal(h.last_port, socket_address_port(&from));
    assert_true(fcntl(h.last_fd, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(h.last_fd, F_GETFD) & FD_CLOEXEC);
    close(fd);
    host_close(&h);
}

static void accepts_all_that_wait(void **state)
{
    struct net_test *t = *state;
    struct host h;
    host_open(&h, t);
    queue_clients(&h);
    RUN_UNTIL(t, h.accepted == CLIENTS);
    host_close(&h);
}

/* Closing a SO_REUSEPORT socket resets what waits in its queue: these clients think that they are connected.
 */
static void a_queue_can_be_emptied_before_closing(void **state)
{
    struct net_test *t = *state;
    struct host h;
    host_open(&h, t);
    queue_clients(&h);
    listener_accept_queued(&h.listener);
    assert_int_equal(h.accepted, CLIENTS); /* in the same call */
    listener_close(&h.listener, on_closed);
    assert_int_equal(h.closed, 0); /* but that comes in a later turn */
    int refused = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(refused, &h.bound.any, h.bound.len), -1);
    close(refused);
    host_close(&h); /* again: harmless */
    assert_int_equal(h.closed, 1);
}

static void may_be_closed_inside_on_accept(void **state)
{
    struct net_test *t = *state;
    struct host h;
    host_open(&h, t);
    h.close_in_accept = true;
    queue_clients(&h);
    RUN_UNTIL(t, h.closed);
    assert_int_equal(h.accepted, 1);
    assert_int_equal(h.closed, 1);
    host_close(&h);
}

/* --- descriptors run out --------------------------------------------------------------------------- */

static struct rlimit usual_limit;

static rlim_t next_descriptor(void)
{
    int next = dup(STDERR_FILENO);
    assert_true(next >= 0);
    close(next);
    return (rlim_t)next;
}

static void limit_descriptors(rlim_t max)
{
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &usual_limit), 0);
    const struct rlimit tight = {.rlim_cur = max, .rlim_max = usual_limit.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
}

/* From now on no descriptor can be opened. */
static void exhaust_descriptors(void)
{
    limit_descriptors(next_descriptor());
}

/* From now on only reserved ones can be opened. */
static void leave_the_reserve(void)
{
    limit_descriptors(next_descriptor() + 1); /* of which a quarter is reserved */
    assert_false(fd_is_to_be_had());          /* a limit that was lowered counts from this look on */
}

static void allow_descriptors(void)
{
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &usual_limit), 0);
}

static void rests_without_descriptors_and_goes_on_later(void **state)
{
    struct net_test *t = *state;
    struct host h;
    host_open(&h, t);
    int fd = connect_to(&h);
    exhaust_descriptors();
    RUN_UNTIL(t, h.listener.rests == 1);
    unsigned turns = t->turns;
    net_test_settle(t);
    assert_true(t->turns <= turns + 1); /* it does not spin on the readable socket */
    assert_int_equal(h.accepted, 0);
    allow_descriptors();
    RUN_UNTIL(t, h.accepted == 1); /* the connection has waited in the kernel */
    assert_int_equal(h.listener.rests, 1);
    int second = connect_to(&h);
    RUN_UNTIL(t, h.accepted == 2);
    close(fd);
    close(second);
    host_close(&h);
}

/* One that finds out; then it looks by itself. */
static void leaves_the_last_descriptors_to_others(void **state)
{
    struct net_test *t = *state;
    struct host h;
    host_open(&h, t);
    t->loop.leaves_reserve = true;
    queue_clients(&h);
    leave_the_reserve();
    RUN_UNTIL(t, h.listener.rests == 3);
    assert_int_equal(h.accepted, 0);
    assert_int_equal(h.refused, 1);
    allow_descriptors();
    RUN_UNTIL(t, h.accepted == CLIENTS - 1);
    assert_int_equal(h.refused, 1);
    host_close(&h);
}

static void the_others_may_have_them(void **state)
{
    struct net_test *t = *state;
    struct host h;
    host_open(&h, t);
    int fd = connect_to(&h);
    leave_the_reserve();
    RUN_UNTIL(t, h.accepted == 1);
    allow_descriptors();
    assert_int_equal(h.refused, 0);
    close(fd);
    host_close(&h);
}

/* A listener that goes does not take from the queue what it would only refuse. */
static void leaves_a_queue_that_it_would_refuse(void **state)
{
    struct net_test *t = *state;
    struct host h;
    host_open(&h, t);
    t->loop.leaves_reserve = true;
    queue_clients(&h);
    leave_the_reserve();
    listener_accept_queued(&h.listener);
    assert_int_equal(h.refused, 0);
    allow_descriptors();
    listener_accept_queued(&h.listener);
    assert_int_equal(h.refused, 0);
    assert_int_equal(h.accepted, CLIENTS);
    host_close(&h);
}

static void rests_again_while_there_are_none(void **state)
{
    struct net_test *t = *state;
    struct host h;
    host_open(&h, t);
    int fd = connect_to(&h);
    char log[4096] = "";
    int pipe_ends[2], saved = dup(STDERR_FILENO);
    assert_true(saved >= 0 && pipe(pipe_ends) == 0 && dup2(pipe_ends[1], STDERR_FILENO) >= 0);
    exhaust_descriptors();
    RUN_UNTIL(t, h.listener.rests == 3);
    allow_descriptors();
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    assert_true(read(pipe_ends[0], log, sizeof log - 1) > 0);
    close(pipe_ends[0]);
    close(pipe_ends[1]);
    close(saved);
    /* Half a second each: the first and the third one are said. */
    char *again = strstr(log, "event=accept_failed cause=\"Too many open files\" unlogged=0\n");
    assert_non_null(again);
    assert_non_null(strstr(again, "event=accept_failed cause=\"Too many open files\" unlogged=1\n"));
    RUN_UNTIL(t, h.accepted == 1);
    close(fd);
    host_close(&h);
}

static void may_be_closed_while_it_rests(void **state)
{
    struct net_test *t = *state;
    struct host h;
    host_open(&h, t);
    int fd = connect_to(&h);
    exhaust_descriptors();
    RUN_UNTIL(t, h.listener.rests == 1);
    host_close(&h);
    allow_descriptors();
    assert_int_equal(h.accepted, 0);
    assert_int_equal(t->loop.wheel.count, 0); /* its deadline went with it */
    close(fd);
}

#define LISTENER_TEST(name) cmocka_unit_test_setup_teardown(name, net_test_setup, net_test_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LISTENER_TEST(accepts_a_connection),
        LISTENER_TEST(accepts_all_that_wait),
        LISTENER_TEST(a_queue_can_be_emptied_before_closing),
        LISTENER_TEST(may_be_closed_inside_on_accept),
        LISTENER_TEST(rests_without_descriptors_and_goes_on_later),
        LISTENER_TEST(rests_again_while_there_are_none),
        LISTENER_TEST(leaves_the_last_descriptors_to_others),
        LISTENER_TEST(the_others_may_have_them),
        LISTENER_TEST(leaves_a_queue_that_it_would_refuse),
        LISTENER_TEST(may_be_closed_while_it_rests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
