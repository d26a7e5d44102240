/* sockets.h - the listening sockets of all workers, opened before any worker starts.
 *
 * TCP: one SO_REUSEPORT socket per worker and address. When the address asks for port 0 the kernel chooses
 * once and the other workers follow. Unix: one socket, its descriptor duplicated for each worker.
 *
 * Sockets that another process has handed over come first (inherited.h), all of them, because connections
 * wait in each: there may be more than workers. When there are fewer, more are opened; a socket that cannot
 * share its address (unix, or opened without SO_REUSEPORT by the service manager) is duplicated.
 *
 * Thread: [control].
 */
#ifndef CONTROL_SOCKETS_H
#define CONTROL_SOCKETS_H

#include "control/inherited.h"

/* The sockets of one listener. */
struct socket_set {
    int *fds; /* owned, and so are the descriptors, until socket_set_take() */
    unsigned n;
    struct socket_address bound; /* where they really listen */
};

/* Opens listener `l` for `workers` workers: at least so many sockets. `is_moved`: a listener of ours that is
 * about to go has this port (127.0.0.1:8080 becomes 0.0.0.0:8080), so that somebody listening there is no
 * reason to refuse. Nothing stays open on failure. Errors: ERR_EXISTS, ERR_IO, ERR_RANGE, ERR_NOMEM (`why`
 * says which address and the cause). */
enum err sockets_open(struct inherited *in, const struct config_listener *l, unsigned workers, bool is_moved,
                      struct socket_set *set, struct errmsg *why);

/* Opens one plain listening socket (the admin listener). Errors as above. */
enum err sockets_open_one(struct inherited *in, const struct endpoint *e, int backlog, int *fd,
                          struct socket_address *bound, struct errmsg *why);

/* Writes into `why` that `name`, whose address is `a`, cannot be listened on, the errno `sys`, and what to
 * do. */
void sockets_say_why(const char *name, const struct socket_address *a, int sys, struct errmsg *why);

/* Descriptor i, which is the caller's from now on. */
int socket_set_take(struct socket_set *set, unsigned i);

/* Closes what nobody has taken. Harmless with zeros. */
void socket_set_close(struct socket_set *set);

/* The file of a unix socket, when nobody listens on it any more; nothing for other addresses. */
void sockets_remove_file(const struct endpoint *e);

#endif
