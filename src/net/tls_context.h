/* tls_context.h - what every TLS context of this program has in common, a server's and a client's: the strong
 * defaults in one place.
 *
 * TLS 1.2 and 1.3, ECDHE with AEAD only, security level 2 (112 bits), X25519, P-256, P-384; no compression,
 * no renegotiation, no early data; buffers of idle connections are released.
 *
 * Thread: [control].
 */
#ifndef NET_TLS_CONTEXT_H
#define NET_TLS_CONTEXT_H

#include "base/err.h"

#include <openssl/ssl.h>
#include <stdbool.h>

/* NULL: no memory, or an OpenSSL that lacks what is asked for. */
SSL_CTX *tls_context_create(const SSL_METHOD *method, bool only_1_3);

#endif
