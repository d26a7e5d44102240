#include "net/socket.h"

#include "base/fd.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DEFER_ACCEPT_S = 5 }; /* the kernel hands over a silent connection after about this time */

struct socket_address socket_address_ip(const struct addr *a, uint16_t port)
{
    struct socket_address out;
    memset(&out, 0, sizeof out);
    if (a->family == ADDR_V4) {
        struct sockaddr_in *in = (struct sockaddr_in *)&out.storage;
        in->sin_family = AF_INET;
        in->sin_port = htons(port);
        in->sin_addr.s_addr = htonl(a->v4);
        out.len = sizeof *in;
        return out;
    }
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&out.storage;
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(port);
    for (unsigned i = 0; i < 8; i++) {
        in6->sin6_addr.s6_addr[i] = (uint8_t)(a->v6.hi >> (56 - 8 * i));
        in6->sin6_addr.s6_addr[8 + i] = (uint8_t)(a->v6.lo >> (56 - 8 * i));
    }
    out.len = sizeof *in6;
    return out;
}

enum err socket_address_unix(const char *path, struct socket_address *out)
{
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof out->un.sun_path) return ERR_RANGE;
    memset(out, 0, sizeof *out);
    out->un.sun_family = AF_UNIX;
    memcpy(out->un.sun_path, path, n);
    out->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + 1);
    return ERR_OK;
}

uint16_t socket_address_port(const struct socket_address *a)
{
    if (a->any.sa_family == AF_INET) return ntohs(((const struct sockaddr_in *)&a->storage)->sin_port);
    if (a->any.sa_family == AF_INET6) return ntohs(((const struct sockaddr_in6 *)&a->storage)->sin6_port);
    return 0;
}

void socket_reset(int fd)
{
    const struct linger hard = {.l_onoff = 1, .l_linger = 0};
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard); /* else it is an ordinary close */
    (void)close(fd);
}

void socket_address_format(const struct socket_address *a, char *out, size_t cap)
{
    if (a->any.sa_family == AF_UNIX) {
        (void)snprintf(out, cap, "unix:%s", a->un.sun_path);
        return;
    }
    char text[ADDR_TEXT_MAX];
    struct addr addr = addr_from_sockaddr(&a->any);
    size_t n = addr_format(&addr, text);
    const char *format = addr.family == ADDR_V6 ? "[%.*s]:%u" : "%.*s:%u";
    (void)snprintf(out, cap, format, (int)n, text, (unsigned)socket_address_port(a));
}

static bool option_on(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof value) == 0;
}

void socket_remove_stale(const struct socket_address *a)
{
    struct stat st;
    if (lstat(a->un.sun_path, &st) != 0 || !S_ISSOCK(st.st_mode)) return;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return;
    if (connect(fd, &a->any, a->len) != 0 && errno == ECONNREFUSED) (void)unlink(a->un.sun_path);
    (void)close(fd);
}

static bool set_v6_only(int fd, const struct socket_address *a, bool dual_stack)
{
    return a->any.sa_family != AF_INET6 || option_on(fd, IPPROTO_IPV6, IPV6_V6ONLY, dual_stack ? 0 : 1);
}

static bool set_listen_options(int fd, const struct socket_address *a, bool dual_stack, bool defer_accept)
{
    if (a->any.sa_family == AF_UNIX) return true;
    if (!option_on(fd, SOL_SOCKET, SO_REUSEADDR, 1) || !option_on(fd, SOL_SOCKET, SO_REUSEPORT, 1))
        return false;
    if (!option_on(fd, IPPROTO_TCP, TCP_NODELAY, 1)) return false;
    if (defer_accept && !option_on(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, DEFER_ACCEPT_S)) return false;
    return set_v6_only(fd, a, dual_stack);
}

/* Binds. A unix socket gets its mode from the umask, which is the process's: nobody else makes files at this
 * moment. */
static bool bind_address(int fd, const struct socket_address *a, mode_t mode)
{
    if (a->any.sa_family != AF_UNIX) return bind(fd, &a->any, a->len) == 0;
    socket_remove_stale(a);
    mode_t before = umask(0777 & ~mode);
    bool ok = bind(fd, &a->any, a->len) == 0;
    int sys = errno;
    (void)umask(before);
    errno = sys;
    return ok;
}

static enum err listen_with_mode(const struct socket_address *a, int backlog, bool dual_stack,
                                 bool defer_accept, mode_t mode, int *out, int *sys)
{
    int fd = socket(a->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        *sys = errno;
        return ERR_IO;
    }
    if (!set_listen_options(fd, a, dual_stack, defer_accept) || !bind_address(fd, a, mode) ||
        listen(fd, backlog) != 0) {
        *sys = errno;
        (void)close(fd);
        return *sys == EADDRINUSE ? ERR_EXISTS : ERR_IO;
    }
    *out = fd;
    return ERR_OK;
}

enum err socket_listen(const struct socket_address *a, int backlog, bool dual_stack, bool defer_accept,
                       int *fd, int *sys)
{
    return listen_with_mode(a, backlog, dual_stack, defer_accept, 0660, fd, sys);
}

enum err socket_listen_private(const struct socket_address *a, int backlog, int *fd, int *sys)
{
    return listen_with_mode(a, backlog, false, false, 0600, fd, sys);
}

enum err socket_peer_user(int fd, uid_t *uid)
{
    struct ucred peer;
    socklen_t n = sizeof peer;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) != 0) return ERR_IO;
    *uid = peer.uid;
    return ERR_OK;
}

enum err socket_probe(const struct socket_address *a, bool dual_stack, int *sys)
{
    if (a->any.sa_family == AF_UNIX || socket_address_port(a) == 0) return ERR_OK;
    int fd = socket(a->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = fd >= 0 && option_on(fd, SOL_SOCKET, SO_REUSEADDR, 1) && set_v6_only(fd, a, dual_stack) &&
              bind(fd, &a->any, a->len) == 0;
    *sys = ok ? 0 : errno;
    if (fd >= 0) (void)close(fd);
    if (ok) return ERR_OK;
    return *sys == EADDRINUSE ? ERR_EXISTS : ERR_IO;
}

enum err socket_connect(const struct socket_address *a, bool leaves_reserve, int *out)
{
    int fd = socket(a->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return err_from_errno(errno);
    if (leaves_reserve && fd_is_reserved(fd)) {
        (void)close(fd);
        return ERR_LIMIT;
    }
    if (a->any.sa_family != AF_UNIX)
        (void)option_on(fd, IPPROTO_TCP, TCP_NODELAY, 1); /* only costs latency */
    if (connect(fd, &a->any, a->len) != 0 && errno != EINPROGRESS) {
        enum err e = errno == EAGAIN ? ERR_REFUSED /* unix socket: backlog full */ : err_from_errno(errno);
        (void)close(fd);
        return e;
    }
    *out = fd;
    return ERR_OK;
}

enum err socket_local(int fd, struct socket_address *out)
{
    memset(out, 0, sizeof *out);
    out->len = sizeof out->storage;
    return getsockname(fd, &out->any, &out->len) == 0 ? ERR_OK : ERR_IO;
}

enum err socket_peer(int fd, struct socket_address *out)
{
    memset(out, 0, sizeof *out);
    out->len = sizeof out->storage;
    return getpeername(fd, &out->any, &out->len) == 0 ? ERR_OK : ERR_IO;
}
