/* handshake.h - TLS handshakes with clients: counted while they go on, and what came of them.
 *
 * Their number is bounded (limits.tls_handshakes_per_worker, accept.c): they cost more than anything else
 * that a stranger can ask for. Failures are counted by reason; some are logged, at a low level, because
 * anybody on the internet can cause them.
 *
 * Thread: [worker].
 */
#ifndef PROXY_HANDSHAKE_H
#define PROXY_HANDSHAKE_H

#include "base/addr.h"
#include "net/stream.h"

struct worker;

void handshake_begin(struct worker *w);

/* However it ended. */
void handshake_leave(struct worker *w);

/* It succeeded. `*digest` becomes SHA-256 of the client's certificate (CERTIFICATE_DIGEST_BYTES, the caller
 * frees), if it has shown one. False when memory is out. */
bool handshake_done(struct worker *w, const struct stream *s, uint8_t **digest);

/* It failed. `reason`: static text of stream_tls_reason(), or NULL. */
void handshake_failed(struct worker *w, const struct addr *client, enum tls_failure why, const char *reason);

#endif
