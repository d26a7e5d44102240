/* accept.h - a new client connection: whether it is taken at all, and on what terms.
 *
 *   socket -> (PROXY header, greeting.h) -> shield -> limits -> conn (TLS, requests)
 *
 * Everything here goes by the address that is believed, so on a listener with proxy_protocol it waits for the
 * header. The shield drops who is on nobody's list before a byte is answered; a trusted proxy that speaks for
 * itself is not a caller, so it is neither shielded nor counted for its address.
 *
 * Over a limit a plain connection is answered 503. With TLS it is reset: a handshake is what costs most, and
 * there is too much to do already.
 *
 * Thread: [worker].
 */
#ifndef PROXY_ACCEPT_H
#define PROXY_ACCEPT_H

#include "proxy/end.h"

struct caller;
struct sockaddr;
struct worker;
struct worker_listener;

/* Takes over an accepted socket. */
void accept_client(struct worker_listener *l, int fd, const struct sockaddr *from);

/* The same once it is known who calls; nothing has been read of what the caller sends. Over a connection
 * limit it is answered 503, or reset. */
void accept_caller(struct worker_listener *l, int fd, const struct caller *caller);

/* Over a limit, and nothing was made for the socket yet: resets it, and counts. */
void accept_turn_away(struct worker *w, int fd, enum limit_id limit);

#endif
