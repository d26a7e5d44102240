/* socket.h - sockets as this project makes them: non-blocking, close-on-exec, errors as enum err.
 *
 * Thread: [any].
 */
#ifndef NET_SOCKET_H
#define NET_SOCKET_H

#include "base/addr.h"
#include "base/err.h"

#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

/* A socket address of any family that we use. */
struct socket_address {
    union {
        struct sockaddr any;
        struct sockaddr_storage storage;
        struct sockaddr_un un;
    };
    socklen_t len;
};

/* `a`: not ADDR_NONE. */
struct socket_address socket_address_ip(const struct addr *a, uint16_t port);
/* Errors: ERR_RANGE (path longer than 107 bytes). */
enum err socket_address_unix(const char *path, struct socket_address *out);
/* 0 for a unix socket. */
uint16_t socket_address_port(const struct socket_address *a);

/* Opens a listening socket. TCP sockets get SO_REUSEADDR, SO_REUSEPORT (each worker has its own), TCP_NODELAY
 * (inherited by accepted ones) and, with `defer_accept`, TCP_DEFER_ACCEPT; `dual_stack` lets an
 * IPv6 socket take IPv4 as well. A unix socket file that nobody listens on is replaced; its mode becomes
 * 0660. Errors: ERR_EXISTS (address in use), ERR_IO (`*sys` = errno). */
enum err socket_listen(const struct socket_address *a, int backlog, bool dual_stack, bool defer_accept,
                       int *fd, int *sys);

/* The same for a unix socket that only its owner (and root) may open: mode 0600 from its first moment on.
 * Errors: as above. */
enum err socket_listen_private(const struct socket_address *a, int backlog, int *fd, int *sys);

/* Who is at the other end of a connected unix socket. Errors: ERR_IO. */
enum err socket_peer_user(int fd, uid_t *uid);

/* Finds out whether somebody listens on `a` already, even with SO_REUSEPORT, which would let two gateways
 * that know nothing of each other share the connections. Port 0 is always free. Errors: ERR_EXISTS, ERR_IO
 * (`*sys` = errno). */
enum err socket_probe(const struct socket_address *a, bool dual_stack, int *sys);

/* Removes the file of a unix socket on which nobody listens any more. */
void socket_remove_stale(const struct socket_address *a);

/* Starts connecting; ERR_OK may still mean "in progress" (the stream finds out). `leaves_reserve`: not with
 * one of the last descriptors (base/fd.h). Errors: ERR_LIMIT (no descriptor), ERR_NO_PORT, ERR_REFUSED,
 * ERR_UNREACHABLE, ERR_IO, ... */
enum err socket_connect(const struct socket_address *a, bool leaves_reserve, int *fd);

/* The address that a socket was really bound to. Errors: ERR_IO. */
enum err socket_local(int fd, struct socket_address *out);

/* The address that a connected socket is connected to. Errors: ERR_IO. */
enum err socket_peer(int fd, struct socket_address *out);

/* Closes so that the other side gets a RST and nothing is kept of the connection. */
void socket_reset(int fd);

/* "127.0.0.1:8080", "[::1]:8080" or "unix:/path" with a NUL. */
void socket_address_format(const struct socket_address *a, char *out, size_t cap);

#endif
