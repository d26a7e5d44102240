/* tls_certificate.h - a certificate chain with its key, read and judged; and lists of trusted authorities.
 *
 * Everything that would make clients turn away is found here, before anything is swapped, and said with the
 * file's name and what to do.
 *
 * Thread: [control]; reads files.
 */
#ifndef NET_TLS_CERTIFICATE_H
#define NET_TLS_CERTIFICATE_H

#include "base/err.h"
#include "base/span.h"

#include <openssl/ssl.h>

struct tls_certificate_files {
    const char *certificate; /* PEM: the leaf, then each issuer, without the root */
    const char *key;         /* PEM, not encrypted, not readable by everybody */
    const X509 *in_force;    /* the leaf shown so far, or NULL: that one may have expired */
};

/* What is wrong, but no reason to refuse. `text` is one sentence with the file's name; it dies with the call.
 */
struct tls_warnings {
    void (*fn)(const char *text, void *arg); /* NULL: they are not wanted */
    void *arg;
};

enum tls_key_type { TLS_KEY_EC, TLS_KEY_RSA, TLS_KEY_OTHER, TLS_KEY_TYPES };

struct tls_certificate {
    char *file;               /* owned: where the chain came from */
    char *names;              /* owned: DNS names of the leaf, lower case, ", " between; may be empty */
    uint64_t not_after_ms;    /* wall clock: the leaf expires */
    X509 *leaf;               /* owned */
    STACK_OF(X509) * issuers; /* owned: the rest of the chain, may be empty */
    EVP_PKEY *key;            /* owned */
    enum tls_key_type type;
};

/* Errors, all with `why`: those of tls_file_read(); ERR_PARSE (no PEM, an encrypted key, a chain out of
 * order), ERR_CONFLICT (the key does not belong to it), ERR_RANGE (expired, not valid yet, too weak),
 * ERR_NOMEM. A certificate that expired while it was in force is taken on: to refuse it would only keep what
 * is beside it from being renewed. */
enum err tls_certificate_load(const struct tls_certificate_files *files, const struct tls_warnings *warnings,
                              struct tls_certificate *out, struct errmsg *why);
void tls_certificate_deinit(struct tls_certificate *c);

/* Takes the next name off the front of `names`; false at the end. */
bool tls_certificate_name(struct span *names, struct span *name);

/* How well it serves `name` (lower case): 2 by its very name, 1 by a wildcard for the first label, 0 not. */
unsigned tls_certificate_covers(const struct tls_certificate *c, struct span name);

/* Puts certificate, issuers and key into `ctx`, which keeps its own references. Errors: ERR_NOMEM, ERR_RANGE
 * (OpenSSL's security level refuses it; with `why`). */
enum err tls_certificate_use(const struct tls_certificate *c, SSL_CTX *ctx, struct errmsg *why);

/* Adds the authorities of a PEM file to the store of `ctx`. `digest` (or NULL) becomes the SHA-256 of the
 * file; `names` (or NULL) gets their subjects. Errors, all with `why`: those of tls_file_read(), ERR_PARSE,
 * ERR_NOMEM. */
enum err tls_authorities_load(const char *file, SSL_CTX *ctx, STACK_OF(X509_NAME) * names, uint8_t digest[32],
                              struct errmsg *why);

#endif
