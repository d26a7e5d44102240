/* relay.c - proof-relay: a TCP relay that looks at nothing, the physical limit of any gateway on this
 * machine.
 *
 * Each accepted connection gets one to the target; bytes go both ways by recv and send through one shared
 * buffer. One thread, one epoll, level-triggered, armed readable once: two receives and two sends for a
 * request with its answer. */
#include "tool.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER_BYTES = 256 * 1024, EVENTS = 256, BACKLOG = 4096, EXIT_USAGE = 2 };

/* One socket of a pair. */
struct side {
    int fd; /* -1 = closed */
    uint32_t armed;
    struct side *other;
    char *pending; /* owned: bytes that the kernel did not take yet; then `other` is not read */
    size_t npending, pending_at;
};

struct pair {
    struct side client, server;
    struct pair *next_dead;
};

static int epoll_fd;
static struct socket_address target;
static struct pair *dead; /* freed when all events of a wait have been seen */
static char buffer[BUFFER_BYTES];

static _Noreturn void die(const char *what)
{
    perror(what);
    exit(EXIT_FAILURE);
}

static void arm(struct side *s, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.ptr = s};
    if (s->armed == events) return;
    if (epoll_ctl(epoll_fd, s->armed == UINT32_MAX ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, s->fd, &e))
        die("epoll_ctl");
    s->armed = events;
}

/* The client side is first in its pair. */
static struct pair *pair_of(struct side *s)
{
    struct side *first = s < s->other ? s : s->other;
    return (struct pair *)first;
}

static void end_pair(struct pair *p)
{
    if (p->client.fd < 0) return;
    (void)close(p->client.fd);
    (void)close(p->server.fd);
    p->client.fd = p->server.fd = -1;
    p->next_dead = dead;
    dead = p;
}

static void free_dead(void)
{
    while (dead) {
        struct pair *p = dead;
        dead = p->next_dead;
        free(p->client.pending);
        free(p->server.pending);
        free(p);
    }
}

/* Sends; what does not fit waits. False when the pair is over. */
static bool pass_on(struct side *to, const char *p, size_t n)
{
    ssize_t sent = send(to->fd, p, n, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != ENOTCONN) return false;
    size_t done = sent > 0 ? (size_t)sent : 0;
    if (done == n) return true;
    to->pending = malloc(n - done);
    if (!to->pending) return false;
    memcpy(to->pending, p + done, n - done);
    to->npending = n - done;
    to->pending_at = 0;
    arm(to, to->armed | EPOLLOUT);
    arm(to->other, to->other->armed & ~(uint32_t)EPOLLIN);
    return true;
}

static bool on_readable(struct side *s)
{
    ssize_t n = recv(s->fd, buffer, sizeof buffer, 0);
    if (n < 0) return errno == EAGAIN || errno == EINTR;
    return n > 0 && pass_on(s->other, buffer, (size_t)n); /* either end is the end of both */
}

static bool on_writable(struct side *s)
{
    ssize_t n = send(s->fd, s->pending + s->pending_at, s->npending - s->pending_at, MSG_NOSIGNAL);
    if (n < 0) return errno == EAGAIN;
    s->pending_at += (size_t)n;
    if (s->pending_at < s->npending) return true;
    free(s->pending);
    s->pending = NULL;
    arm(s, s->armed & ~(uint32_t)EPOLLOUT);
    arm(s->other, s->other->armed | EPOLLIN);
    return true;
}

static void on_event(struct side *s, uint32_t events)
{
    bool alive = s->fd >= 0;
    if (!alive) return;
    if (events & EPOLLOUT && s->pending) alive = on_writable(s);
    if (alive && events & EPOLLIN) alive = on_readable(s);
    if (alive && events & (EPOLLERR | EPOLLHUP) && !(events & EPOLLIN)) alive = false;
    if (!alive) end_pair(pair_of(s));
}

static int connect_target(void)
{
    int on = 1, fd = socket(target.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* refused for unix sockets only */
    if (connect(fd, &target.any, target.len) == 0 || errno == EINPROGRESS) return fd;
    (void)close(fd);
    return -1;
}

static void on_accept(int listener)
{
    int on = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    int other = connect_target();
    struct pair *p = other >= 0 ? calloc(1, sizeof *p) : NULL;
    if (!p) {
        if (other >= 0) (void)close(other);
        (void)close(fd);
        return;
    }
    p->client = (struct side){.fd = fd, .armed = UINT32_MAX, .other = &p->server};
    p->server = (struct side){.fd = other, .armed = UINT32_MAX, .other = &p->client};
    arm(&p->client, EPOLLIN);
    arm(&p->server, EPOLLIN);
}

static int listen_at(struct socket_address *a)
{
    int fd, sys = 0;
    if (socket_listen(a, BACKLOG, false, false, &fd, &sys)) {
        errno = sys;
        die("cannot listen");
    }
    char text[128];
    (void)socket_local(fd, a);
    socket_address_format(a, text, sizeof text);
    (void)printf("listening on %s\n", text);
    (void)fflush(stdout); /* who started us waits for this line */
    return fd;
}

int main(int argc, char **argv)
{
    struct socket_address address;
    if (argc != 3 || !tool_parse_address(argv[1], &address) || !tool_parse_address(argv[2], &target)) {
        (void)fputs("usage: proof-relay LISTEN TARGET        (127.0.0.1:PORT, [::1]:PORT or unix:PATH)\n",
                    stderr);
        return EXIT_USAGE;
    }
    tool_raise_descriptor_limit();
    (void)signal(SIGPIPE, SIG_IGN); /* fails only for a bad signal number */
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int listener = listen_at(&address);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL}, events[EVENTS];
    if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &e)) die("epoll");
    for (;;) {
        int n = epoll_wait(epoll_fd, events, EVENTS, -1);
        if (n < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr)
                on_event(events[i].data.ptr, events[i].events);
            else
                on_accept(listener);
        }
        free_dead();
    }
}
