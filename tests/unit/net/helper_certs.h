/* Certificates made at run time, in a folder that goes away: authorities, leaves, and what can be wrong with
 * them. */
#ifndef TEST_NET_HELPER_CERTS_H
#define TEST_NET_HELPER_CERTS_H

#include "net/tls_certificate.h"

#include <openssl/x509.h>

enum { DAY_S = 24 * 3600, PATH_BYTES = 96, ROTATE_MS = 12 * 3600 * 1000 };

struct pair {
    X509 *x;
    EVP_PKEY *key;
};

struct leaf {
    const char *names;     /* "DNS:a.example,DNS:*.b.example,IP:127.0.0.1"; NULL = an authority */
    const struct pair *by; /* the issuer; NULL = itself */
    long from_s, to_s;     /* from now; 0, 0: yesterday to tomorrow */
    unsigned rsa_bits;     /* 0 = EC */
    const char *curve;     /* NULL = P-256 */
};

/* The folder of this process; removed at exit with what is in it. Valid until the next call but three. */
const char *certs_path(const char *name);

struct pair certs_make(const struct leaf *l);
void pair_free(struct pair *p);

/* "<name>.pem" with these certificates in order, "<name>.key" with the key of the first, mode 0600. */
struct tls_certificate_files certs_write(const char *name, const struct pair *first,
                                         const struct pair *second);
void certs_write_text(const char *path, const char *text, unsigned mode);

/* What most tests need, made once: an authority, and a leaf of it for "api.example", "localhost", 127.0.0.1.
 */
const struct pair *certs_authority(void);
const char *certs_authority_file(void);
struct tls_certificate_files certs_files(void);

#endif
