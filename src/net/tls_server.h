/* tls_server.h - what a listener needs to speak TLS: certificates by name, policy, tickets. Immutable.
 *
 *   SNI "api.example"    -> names[] -> context with the ECDSA and the RSA certificate that serve that name
 *   SNI "x.api.example"  -> the same for "*.api.example"
 *   another SNI          -> refused with unrecognized_name, or the first certificate
 *   no SNI               -> the first certificate                      (one place: choose_context())
 *
 * Built aside by control, then shared by all workers and counted: a reload swaps the pointer, connections
 * that are open go on with what they began with. Certificates that serve the same name with keys of different
 * kinds stand side by side in one context, and OpenSSL takes the one that the client can verify.
 *
 * A session resumes only where the same rules for client certificates hold (session id context).
 *
 * Thread: create [control]; the rest [any].
 */
#ifndef NET_TLS_SERVER_H
#define NET_TLS_SERVER_H

#include "net/tls_certificate.h"
#include "net/tls_context.h"

struct tls_server;
struct tls_tickets;

enum { TLS_CERTIFICATES_MAX = 64 };

enum tls_client_certificates { TLS_CLIENTS_OFF = 0, TLS_CLIENTS_OPTIONAL, TLS_CLIENTS_REQUIRED };

struct tls_server_settings {
    const struct tls_certificate_files *certificates; /* the first is for clients without SNI */
    unsigned ncertificates;                           /* 1 to TLS_CERTIFICATES_MAX */
    bool only_1_3;                                    /* TLS 1.3; else 1.2 as well */
    bool refuse_unknown_names;
    enum tls_client_certificates client_certificates;
    const char *client_authorities; /* PEM; needed unless OFF. One that is shown must be verifiable, also if
                                       OPTIONAL */
    struct tls_tickets *tickets;    /* NULL: no resumption. A reference is taken */
};

/* Reads and judges everything. Nothing of `settings` is kept. Errors, all with `why`: those of
 * tls_certificate_load(), tls_certificate_use() and tls_authorities_load(); ERR_RANGE (a certificate that is
 * not for servers). */
enum err tls_server_create(const struct tls_server_settings *settings, const struct tls_warnings *warnings,
                           struct errmsg *why, struct tls_server **out);

struct tls_server *tls_server_ref(struct tls_server *s);
void tls_server_unref(struct tls_server *s); /* NULL is fine */

/* For status and metrics: file, names, not_after_ms. In the order of the settings. */
unsigned tls_server_ncertificates(const struct tls_server *s);
const struct tls_certificate *tls_server_certificate(const struct tls_server *s, unsigned i);

/* True when the host of a request (any case, no port), sent as SNI, would have got the certificates that the
 * connection has. So the setting for unknown names applies to the Host as well. */
bool tls_server_covers(const struct tls_server *s, const SSL *ssl, struct span host);

/* A new connection, ready to be fed. NULL: no memory. For net/tls.c. */
SSL *tls_server_open(const struct tls_server *s);

#endif
