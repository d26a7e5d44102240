/* tls_client.h - what connections of our own need to speak TLS: to backends, Redis, Sentinel. Immutable.
 *
 * The other side is always verified: its chain against the given authorities or the system's, its name
 * against the host that was asked for. There is no switch to turn that off.
 *
 * Thread: create [control]; the rest [any]; a struct tls_sessions belongs to one loop.
 */
#ifndef NET_TLS_CLIENT_H
#define NET_TLS_CLIENT_H

#include "net/tls_certificate.h"
#include "net/tls_context.h"

struct tls_client;

struct tls_client_settings {
    const char *authorities;                         /* PEM; NULL = the system's */
    const struct tls_certificate_files *certificate; /* to show when asked; NULL = none */
    bool only_1_3;                                   /* TLS 1.3; else 1.2 as well */
};

/* Nothing of `settings` is kept. Errors, all with `why`: those of tls_certificate_load(),
 * tls_certificate_use() and tls_authorities_load(). */
enum err tls_client_create(const struct tls_client_settings *settings, const struct tls_warnings *warnings,
                           struct errmsg *why, struct tls_client **out);
struct tls_client *tls_client_ref(struct tls_client *c);
void tls_client_unref(struct tls_client *c); /* NULL is fine */

/* The certificate that is shown, for status and metrics; NULL = none. */
const struct tls_certificate *tls_client_certificate(const struct tls_client *c);

enum { TLS_SESSIONS_MAX = 8 };

/* Sessions to resume, newest last. One for each loop and host. Zero is empty. Sessions of another context are
 * not resumed: they were verified by other rules. */
struct tls_sessions {
    uint64_t client_id; /* the context that they came from */
    unsigned n;
    SSL_SESSION *sessions[TLS_SESSIONS_MAX]; /* owned */
};

/* Frees what is kept; it may be used again. */
void tls_sessions_clear(struct tls_sessions *s);

/* Whom to talk to. Read when the connection is made: a reference of `client` is taken, `sessions` must
 * outlive the connection. */
struct tls_target {
    struct tls_client *client;
    const char *host;              /* DNS name (sent as SNI) or IP address that the certificate must be for */
    struct tls_sessions *sessions; /* NULL: no resumption */
};

/* A new connection, ready to be fed. NULL: no memory. For net/tls.c. */
SSL *tls_client_open(const struct tls_target *to);

#endif
