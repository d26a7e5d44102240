#include "control/sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static enum err to_address(const struct endpoint *e, struct socket_address *out)
{
    if (e->kind == ENDPOINT_UNIX) return socket_address_unix(e->host, out);
    *out = socket_address_ip(&e->addr, e->port);
    return ERR_OK;
}

/* `first`: of this address; the workers after it share it. */
static enum err open_socket(const struct endpoint *e, const struct socket_address *a, int backlog, bool defer,
                            bool first, int *fd, struct errmsg *why)
{
    int sys = 0;
    enum err err = first ? socket_probe(a, e->wildcard, &sys) : ERR_OK;
    if (err == ERR_OK) err = socket_listen(a, backlog, e->wildcard, defer, fd, &sys);
    if (err == ERR_EXISTS)
        errmsg_set(why, 0, 0,
                   "cannot listen on %s: another process has this address; stop it or choose another one",
                   e->text);
    else if (err)
        errmsg_set(why, 0, 0, "cannot listen on %s: %s", e->text, strerror(sys));
    return err;
}

static enum err path_too_long(const struct endpoint *e, struct errmsg *why)
{
    errmsg_set(why, 0, 0, "cannot listen on %s: the path is too long", e->text);
    return ERR_RANGE;
}

enum err sockets_open_one(const struct endpoint *e, int backlog, int *fd, struct socket_address *bound,
                          struct errmsg *why)
{
    struct socket_address a;
    if (to_address(e, &a)) return path_too_long(e, why);
    enum err err = open_socket(e, &a, backlog, false, true, fd, why);
    if (err) return err;
    err = socket_local(*fd, bound);
    if (err) {
        errmsg_set(why, 0, 0, "cannot listen on %s: its own address cannot be read", e->text);
        (void)close(*fd);
    }
    return err;
}

static void close_all(const int *fds, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        (void)close(fds[i]);
}

/* One descriptor more of listener `l`; the first one decides the port that all share. */
static enum err open_next(const struct config_listener *l, unsigned i, const struct socket_address *a,
                          int *fds, struct errmsg *why)
{
    if (i == 0 || l->address.kind != ENDPOINT_UNIX)
        return open_socket(&l->address, a, l->backlog, true, i == 0, &fds[i], why);
    fds[i] = fcntl(fds[0], F_DUPFD_CLOEXEC, 0);
    if (fds[i] >= 0) return ERR_OK;
    errmsg_set(why, 0, 0, "cannot listen on %s: %s", l->address.text, strerror(errno));
    return ERR_IO;
}

enum err sockets_open(const struct config_listener *l, unsigned n, int *fds, struct socket_address *bound,
                      struct errmsg *why)
{
    struct socket_address a;
    if (to_address(&l->address, &a)) return path_too_long(&l->address, why);
    for (unsigned i = 0; i < n; i++) {
        enum err e = open_next(l, i, &a, fds, why);
        if (e) {
            close_all(fds, i);
            return e;
        }
        if (i > 0) continue;
        if (socket_local(fds[0], bound)) {
            errmsg_set(why, 0, 0, "cannot listen on %s: its own address cannot be read", l->address.text);
            close_all(fds, 1);
            return ERR_IO;
        }
        if (l->address.kind == ENDPOINT_IP) a = *bound; /* port 0: all workers share what the kernel chose */
    }
    return ERR_OK;
}
