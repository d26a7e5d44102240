#include "control/inherited.h"

#include "base/log.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LISTEN_FDS_START = 3, LISTEN_FDS_MAX = 4096 };

static bool is_listening(int fd)
{
    int on = 0;
    socklen_t n = sizeof on;
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &n) == 0 && on;
}

void inherited_name(enum inherited_role role, const struct endpoint *e, char out[static INHERITED_NAME_MAX])
{
    static const char *const roles[] = {
        [INHERITED_LISTENER] = "listener", [INHERITED_ADMIN] = "admin", [INHERITED_CONTROL] = "control"};
    (void)snprintf(out, INHERITED_NAME_MAX, "%s %s", roles[role], e->text);
}

/* Sets what every listening socket of ours has; accepted sockets inherit TCP_NODELAY. */
static bool prepare(int fd)
{
    int flags = fcntl(fd, F_GETFL), on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* not for unix sockets */
    return is_listening(fd) && flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0 &&
           fcntl(fd, F_SETFD, FD_CLOEXEC) == 0;
}

enum err inherited_add(struct inherited *in, const char *name, int fd)
{
    struct inherited_socket *s = calloc(1, sizeof *s);
    if (!s || !prepare(fd) || socket_local(fd, &s->bound)) {
        (void)close(fd);
        enum err e = s ? ERR_IO : ERR_NOMEM;
        free(s);
        return e;
    }
    s->fd = fd;
    (void)snprintf(s->name, sizeof s->name, "%s", name);
    struct inherited_socket **last = &in->first;
    while (*last)
        last = &(*last)->next;
    *last = s;
    return ERR_OK;
}

enum err inherited_from_service_manager(struct inherited *in)
{
    uint64_t pid, n;
    const char *pid_text = getenv("LISTEN_PID"), *n_text = getenv("LISTEN_FDS");
    if (!pid_text || !n_text || !span_to_u64(span_str(pid_text), &pid) || pid != (uint64_t)getpid())
        return ERR_OK;
    if (!span_to_u64(span_str(n_text), &n) || n > LISTEN_FDS_MAX) return ERR_OK;
    for (uint64_t i = 0; i < n; i++) {
        enum err e = inherited_add(in, "", LISTEN_FDS_START + (int)i);
        if (e) return e;
    }
    return ERR_OK;
}

/* Whether a socket that is bound here serves what the configuration asks for. */
static bool is_bound_to(const struct socket_address *bound, const struct endpoint *e)
{
    if (e->kind == ENDPOINT_UNIX)
        return bound->any.sa_family == AF_UNIX && strcmp(bound->un.sun_path, e->host) == 0;
    if (e->port == 0 || bound->any.sa_family == AF_UNIX) return false;
    struct addr a = addr_from_sockaddr(&bound->any);
    return addr_eq(&a, &e->addr) && socket_address_port(bound) == e->port;
}

/* Whether `all` stands for all addresses of its family, or of both, and `one` is another of those. */
static bool takes_in(const struct addr *all, bool is_of_both, const struct addr *one)
{
    bool is_any = all->family == ADDR_V4 ? all->v4 == 0 : all->v6.hi == 0 && all->v6.lo == 0;
    return is_any && !addr_eq(all, one) && (is_of_both || all->family == one->family);
}

enum inherited_neighbours inherited_neighbours(const struct inherited *in, const struct endpoint *e)
{
    enum inherited_neighbours found = NEIGHBOURS_NONE;
    if (e->kind != ENDPOINT_IP || e->port == 0) return found;
    for (const struct inherited_socket *s = in->first; s; s = s->next) {
        bool is_near = s->bound.any.sa_family != AF_UNIX && socket_address_port(&s->bound) == e->port;
        if (!is_near || !span_starts(span_str(s->name), SPAN("listener "))) continue;
        bool is_of_both = span_starts(span_str(s->name), SPAN("listener *:"));
        const struct addr theirs = addr_from_sockaddr(&s->bound.any);
        if (addr_eq(&theirs, &e->addr) || takes_in(&theirs, is_of_both, &e->addr)) return NEIGHBOURS_AROUND;
        if (takes_in(&e->addr, e->wildcard, &theirs)) found = NEIGHBOURS_WITHIN;
    }
    return found;
}

static bool is_same_bound(const struct socket_address *a, const struct socket_address *b)
{
    return a->len == b->len && memcmp(&a->storage, &b->storage, a->len) == 0;
}

int inherited_take(struct inherited *in, enum inherited_role role, const struct endpoint *e,
                   const struct socket_address *bound)
{
    char name[INHERITED_NAME_MAX];
    inherited_name(role, e, name);
    for (struct inherited_socket **at = &in->first; *at; at = &(*at)->next) {
        struct inherited_socket *s = *at;
        bool is_it = s->name[0] ? strcmp(s->name, name) == 0 : is_bound_to(&s->bound, e);
        if (!is_it || (bound && !is_same_bound(&s->bound, bound))) continue;
        int fd = s->fd;
        *at = s->next;
        free(s);
        return fd;
    }
    return -1;
}

unsigned inherited_count(const struct inherited *in)
{
    unsigned n = 0;
    for (const struct inherited_socket *s = in->first; s; s = s->next)
        n++;
    return n;
}

void inherited_close(struct inherited *in, bool is_worth_a_line)
{
    char text[160];
    while (in->first) {
        struct inherited_socket *s = in->first;
        in->first = s->next;
        socket_address_format(&s->bound, text, sizeof text);
        if (is_worth_a_line)
            log_warn("inherited_socket_unused", KV_STR("address", text),
                     KV_STR("hint", "nothing in the configuration listens there"));
        (void)close(s->fd);
        free(s);
    }
}
