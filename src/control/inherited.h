/* inherited.h - listening sockets that another process opened: the gateway before an upgrade, or the service
 * manager (socket activation).
 *
 * What is handed over is found again by the address as the configuration writes it (upgrade) or as the socket
 * is bound (LISTEN_FDS). The queue of connections that wait in such a socket is kept.
 *
 * Thread: [control].
 */
#ifndef CONTROL_INHERITED_H
#define CONTROL_INHERITED_H

#include "config/config.h"
#include "net/socket.h"

enum { INHERITED_NAME_MAX = sizeof((struct endpoint *)0)->text };

struct inherited_socket {
    struct inherited_socket *next;
    struct socket_address bound;
    char name[INHERITED_NAME_MAX]; /* as the other process's configuration writes it; "" = unknown */
    int fd;
};

/* A list; zeros are an empty one. */
struct inherited {
    struct inherited_socket *first;
};

/* Adds a socket. `name` may be "". The descriptor is the list's then; it is closed when this fails.
 * Errors: ERR_NOMEM, ERR_IO (not a listening socket). */
enum err inherited_add(struct inherited *in, const char *name, int fd);

/* Takes the descriptors that the service manager passed (LISTEN_FDS), if any. Errors: those of
 * inherited_add(). */
enum err inherited_from_service_manager(struct inherited *in);

/* Takes a socket for this address out of the list; -1 when there is none (any more). */
int inherited_take(struct inherited *in, const struct endpoint *e);

/* Closes what nobody has taken; returns how many there were. */
unsigned inherited_close(struct inherited *in);

#endif
