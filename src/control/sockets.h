/* sockets.h - the listening sockets of all workers, opened before any worker starts.
 *
 * TCP: one SO_REUSEPORT socket per worker and address. When the address asks for port 0 the kernel chooses
 * once and the other workers follow. Unix: one socket, its descriptor duplicated for each worker.
 *
 * Thread: [control].
 */
#ifndef CONTROL_SOCKETS_H
#define CONTROL_SOCKETS_H

#include "config/config.h"
#include "net/socket.h"

/* Opens listener `l` for `n` workers into fds[0..n). `bound` is where it really listens. Nothing stays open
 * on failure. Errors: ERR_EXISTS, ERR_IO (`why` says which address and the cause). */
enum err sockets_open(const struct config_listener *l, unsigned n, int *fds, struct socket_address *bound,
                      struct errmsg *why);

/* Opens one plain listening socket (the admin listener). Errors as above. */
enum err sockets_open_one(const struct endpoint *e, int backlog, int *fd, struct socket_address *bound,
                          struct errmsg *why);

#endif
