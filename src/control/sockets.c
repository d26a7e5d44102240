#include "control/sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PRIVILEGED_PORTS = 1024 };

static bool is_socket_file(const struct socket_address *a)
{
    struct stat st;
    return lstat(a->un.sun_path, &st) == 0 && S_ISSOCK(st.st_mode);
}

/* What to do about `sys`; NULL when nobody can say. */
static const char *advice(const struct socket_address *a, int sys)
{
    bool is_unix = a->any.sa_family == AF_UNIX;
    switch (sys) {
    case EADDRINUSE:
        if (is_unix && !is_socket_file(a)) return "a file that is no socket is there; choose another path";
        return "another process has this address; stop it or choose another one";
    case EADDRNOTAVAIL: return "no interface of this machine has it; `ip address` shows those it has";
    case EAFNOSUPPORT: return "this machine has no IPv6; write an IPv4 address, or 0.0.0.0 for all";
    case ENOENT: return "make its folder first";
    case EACCES:
        if (is_unix) return "the user of this process may not write in its folder";
        if (socket_address_port(a) < PRIVILEGED_PORTS)
            return "ports below 1024 need CAP_NET_BIND_SERVICE; give it, or choose a higher one";
        return NULL;
    default: return NULL; /* an open list: errno is not ours */
    }
}

void sockets_say_why(const char *name, const struct socket_address *a, int sys, struct errmsg *why)
{
    const char *todo = advice(a, sys);
    errmsg_set(why, 0, 0, "cannot listen on %s: %s%s%s", name, strerror(sys), todo ? "; " : "",
               todo ? todo : "");
}

static enum err to_address(const struct endpoint *e, struct socket_address *out, struct errmsg *why)
{
    *out = socket_address_ip(&e->addr, e->port);
    if (e->kind != ENDPOINT_UNIX || socket_address_unix(e->host, out) == ERR_OK) return ERR_OK;
    errmsg_set(why, 0, 0, "cannot listen on %s: the path is too long", e->text);
    return ERR_RANGE;
}

/* `alone`: nobody else may have the address; else it is shared with sockets of ours. */
static enum err open_socket(const struct endpoint *e, const struct socket_address *a, int backlog, bool defer,
                            bool alone, int *fd, struct errmsg *why)
{
    int sys = 0;
    enum err err = alone ? socket_probe(a, e->wildcard, &sys) : ERR_OK;
    if (err == ERR_OK) err = socket_listen(a, backlog, e->wildcard, defer, fd, &sys);
    if (err) sockets_say_why(e->text, a, sys, why);
    return err;
}

static enum err read_bound(int fd, const struct endpoint *e, struct socket_address *bound, struct errmsg *why)
{
    if (socket_local(fd, bound) == ERR_OK) return ERR_OK;
    errmsg_set(why, 0, 0, "cannot listen on %s: its own address cannot be read", e->text);
    return ERR_IO;
}

enum err sockets_open_one(struct inherited *in, const struct endpoint *e, int backlog, int *fd,
                          struct socket_address *bound, struct errmsg *why)
{
    struct socket_address a;
    enum err err = to_address(e, &a, why);
    if (err) return err;
    *fd = inherited_take(in, INHERITED_ADMIN, e, NULL);
    if (*fd < 0) err = open_socket(e, &a, backlog, false, true, fd, why);
    if (err) return err;
    err = read_bound(*fd, e, bound, why);
    if (err) (void)close(*fd);
    return err;
}

/* --- all sockets of a listener --------------------------------------------------------------------- */

int socket_set_take(struct socket_set *set, unsigned i)
{
    int fd = set->fds[i];
    set->fds[i] = -1;
    return fd;
}

void socket_set_close(struct socket_set *set)
{
    for (unsigned i = 0; i < set->n; i++)
        if (set->fds[i] >= 0) (void)close(set->fds[i]);
    free(set->fds);
    *set = (struct socket_set){0};
}

static bool is_shareable(int fd)
{
    int on = 0;
    socklen_t n = sizeof on;
    return getsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, &n) == 0 && on;
}

/* All that were handed over for this address. Those that are one and the same socket are one. */
static enum err take_inherited(struct inherited *in, const struct config_listener *l, struct socket_set *set,
                               struct errmsg *why)
{
    int fd = inherited_take(in, INHERITED_LISTENER, &l->address, NULL);
    if (fd < 0) return ERR_OK;
    set->fds[set->n++] = fd;
    enum err e = read_bound(fd, &l->address, &set->bound, why);
    while (e == ERR_OK && (fd = inherited_take(in, INHERITED_LISTENER, &l->address, &set->bound)) >= 0) {
        if (is_shareable(fd))
            set->fds[set->n++] = fd;
        else
            (void)close(fd);
    }
    for (unsigned i = 0; i < set->n; i++)
        (void)listen(set->fds[i], l->backlog); /* of a listening socket: only moves the bound */
    return e;
}

static enum err duplicate(const struct config_listener *l, int from, int *fd, struct errmsg *why)
{
    *fd = fcntl(from, F_DUPFD_CLOEXEC, 0);
    if (*fd >= 0) return ERR_OK;
    errmsg_set(why, 0, 0, "cannot listen on %s: %s", l->address.text, strerror(errno));
    return ERR_IO;
}

/* The first one decides the port that all share. It stands beside listeners of the process before this one
 * when nothing would go to it that was theirs: if this start fails, nothing has changed for them. */
static enum err open_first(const struct inherited *in, const struct config_listener *l, bool is_moved,
                           struct socket_set *set, struct errmsg *why)
{
    struct socket_address a;
    enum inherited_neighbours neighbours = inherited_neighbours(in, &l->address);
    bool is_alone = !is_moved && neighbours != NEIGHBOURS_WITHIN;
    enum err e = to_address(&l->address, &a, why);
    if (e == ERR_OK) e = open_socket(&l->address, &a, l->backlog, true, is_alone, &set->fds[0], why);
    if (e == ERR_EXISTS && neighbours == NEIGHBOURS_AROUND)
        errmsg_set(
            why, 0, 0,
            "cannot listen on %s: the process that this one takes over from listens on that port, for this "
            "address as well; let it reload this file first, then upgrade",
            l->address.text);
    if (e) return e;
    set->n = 1;
    return read_bound(set->fds[0], &l->address, &set->bound, why);
}

/* Beside the others; the system says no when those are another user's. */
static enum err open_next(const struct config_listener *l, struct socket_set *set, struct errmsg *why)
{
    int *fd = &set->fds[set->n];
    enum err e = ERR_UNSUPPORTED;
    if (is_shareable(set->fds[0]))
        e = open_socket(&l->address, &set->bound, l->backlog, true, false, fd, why);
    if (e) e = duplicate(l, set->fds[0], fd, why);
    if (e == ERR_OK) set->n++;
    return e;
}

enum err sockets_open(struct inherited *in, const struct config_listener *l, unsigned workers, bool is_moved,
                      struct socket_set *set, struct errmsg *why)
{
    *set = (struct socket_set){.fds = malloc((workers + inherited_count(in)) * sizeof *set->fds)};
    if (!set->fds) {
        errmsg_set(why, 0, 0, "out of memory");
        return ERR_NOMEM;
    }
    enum err e = take_inherited(in, l, set, why);
    if (e == ERR_OK && set->n == 0) e = open_first(in, l, is_moved, set, why);
    while (e == ERR_OK && set->n < workers)
        e = open_next(l, set, why);
    if (e) socket_set_close(set);
    return e;
}

void sockets_remove_file(const struct endpoint *e)
{
    struct socket_address a;
    if (e->kind == ENDPOINT_UNIX && socket_address_unix(e->host, &a) == ERR_OK) socket_remove_stale(&a);
}
