/* greeting.h - a connection to a listener with proxy_protocol, until its PROXY header is whole.
 *
 *   accept -> peer is trusted? -> header there already? -> accept_caller()
 *                  `-> reset           `-> struct greeting: waits for it, at most timeouts.proxy_header
 *
 * The header is looked at with MSG_PEEK and only its own bytes are taken, so that what comes behind it, TLS
 * or HTTP, is read from the socket by a stream that knows nothing of all this. No byte is ever answered to a
 * header that is refused: the connection is reset, counted by reason, and some are logged.
 *
 * Bounds: as for client connections; a greeting counts as one.
 *
 * Spec: HAProxy's "The PROXY protocol", versions 1 and 2.
 * Thread: [worker].
 */
#ifndef PROXY_GREETING_H
#define PROXY_GREETING_H

struct caller;
struct worker;
struct worker_listener;

/* Takes over an accepted socket. `caller` is its peer. */
void greeting_begin(struct worker_listener *l, int fd, const struct caller *caller);

/* Resets all that wait. */
void greeting_cut_all(struct worker *w);

#endif
