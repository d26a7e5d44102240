/* tls.h - one TLS connection as an engine without I/O: bytes in, bytes out.
 *
 *   ciphertext --tls_feed--> plaintext for the user, and ciphertext to send (handshake, KeyUpdate, alerts)
 *   plaintext  --tls_seal--> ciphertext to send
 *
 * The stream does the socket calls (net/stream_tls.c). OpenSSL talks to a BIO of our own over buffers that
 * all connections of a loop share, so a connection owns nothing but its SSL object, one recv() feeds many
 * records, and all records of an answer leave in one send(). SSL_set_fd() reads header and body of each
 * record by itself: 11 % more CPU on small answers, a third on large ones. A memory BIO would keep 2 KiB in
 * each connection.
 *
 * What is fed is taken whole: afterwards only an unfinished record waits, inside OpenSSL. So there is nothing
 * that could be forgotten when reading pauses.
 *
 * Bounds: 64 KiB of input before the handshake is done; 16 messages besides data (KeyUpdate, tickets, alerts)
 * in one feed. The error queue of OpenSSL is per thread, and what is left in it spoils the next call: it is
 * cleared first, everywhere.
 *
 * Thread: [the loop's]; the contexts are shared by all.
 */
#ifndef NET_TLS_H
#define NET_TLS_H

#include "base/err.h"
#include "base/span.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct loop;
struct tls;
struct tls_buffers;
struct tls_server;
struct tls_target;

void tls_buffers_destroy(struct tls_buffers *b); /* NULL is fine */

/* The server's side of a connection; the engine keeps a reference of `server`. Errors: ERR_NOMEM. */
enum err tls_accept(struct loop *l, struct tls_server *server, struct tls **out);

/* The client's side; feed it nothing to get the first flight. Errors: ERR_NOMEM. */
enum err tls_dial(struct loop *l, const struct tls_target *to, struct tls **out);

void tls_destroy(struct tls *t); /* NULL is fine */

/* What a feed brought. The spans live in the shared buffers: `out` until the next call for any connection of
 * the loop, `plain` until the next feed of any. */
struct tls_result {
    struct span out;   /* to be sent, also when `end` is set */
    struct span plain; /* for the user */
    bool secured;      /* the handshake is done, with this feed */
    enum err end; /* ERR_OK: goes on. ERR_EOF: close_notify came. ERR_TLS, ERR_LIMIT, ERR_NOMEM: it is over */
};

/* Takes all of p, at most loop.read_buffer_bytes. Not after ERR_EOF; after a failure it fails again. */
void tls_feed(struct tls *t, const char *p, size_t n, struct tls_result *r);

/* Part of a record waits for its rest. */
bool tls_is_inside_record(const struct tls *t);

/* Plaintext that is still to be encrypted; advanced by tls_seal(). */
struct tls_source {
    struct iovec *iov; /* used as scratch */
    unsigned n;
};

/* Encrypts from the front of `from`, as much as one send should carry (256 KiB), small slices together in one
 * record. Call again, with `out` sent, while from->n > 0. The handshake must be done. Errors: ERR_TLS,
 * ERR_NOMEM: then `out` is empty and the connection is over. */
enum err tls_seal(struct tls *t, struct tls_source *from, struct span *out);

/* close_notify: no more will be sealed. Empty when it cannot be said any more. */
struct span tls_finish(struct tls *t);

/* What is known when the handshake is done. Strings live as long as the connection. */
struct tls_info {
    const char *version;     /* "TLSv1.3" */
    const char *cipher;      /* "TLS_AES_256_GCM_SHA384" */
    const char *server_name; /* SNI; NULL = none */
    bool resumed;
    bool has_certificate; /* the other side showed one, and it was verified */
};

/* False before the handshake is done. */
bool tls_describe(const struct tls *t, struct tls_info *out);

/* This host is served by the certificate of the connection, as tls_server_covers() has it. The server's side,
 * after the handshake. */
bool tls_covers_host(const struct tls *t, struct span host);

/* SHA-256 of the other side's certificate (DER), which was verified; false when it has shown none. */
bool tls_fingerprint(const struct tls *t, uint8_t out[static 32]);

/* symbol, label */
#define TLS_FAILURE_MAP(XX)                                                                                  \
    XX(NONE, "none")                                                                                         \
    XX(NOT_TLS, "not_tls")           /* what came is no TLS: plain HTTP, a scanner */                        \
    XX(NO_AGREEMENT, "no_agreement") /* no version, cipher, group or ALPN protocol in common */              \
    XX(UNKNOWN_NAME, "unknown_name") /* SNI that no certificate has */                                       \
    XX(CERTIFICATE, "certificate")   /* the other side's is missing or cannot be verified */                 \
    XX(ALERT, "alert")               /* the other side gave up: it does not trust us, as a rule */           \
    XX(PROTOCOL, "protocol")         /* anything else that breaks the rules */                               \
    XX(LIMIT, "limit")               /* too much input */                                                    \
    XX(MEMORY, "memory")                                                                                     \
    XX(CLOSED, "closed")   /* the other side closed or reset */                                              \
    XX(TIMEOUT, "timeout") /* the user's time limit passed */

enum tls_failure {
#define XX(id, text) TLS_FAILURE_##id,
    TLS_FAILURE_MAP(XX)
#undef XX
        TLS_FAILURE_COUNT
};

extern const char *const tls_failure_names[TLS_FAILURE_COUNT];

/* The class of the failure; NONE when it has not failed. CLOSED and TIMEOUT are for users to say. */
enum tls_failure tls_failure(const struct tls *t);

/* Why it failed, for logs: "certificate has expired", "tlsv1 alert unknown ca". NULL when it has not. */
const char *tls_reason(const struct tls *t);

#endif
