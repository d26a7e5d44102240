#include "net/tls_context.h"

#include <openssl/err.h>

enum { CHAIN_BYTES_MAX = 48 * 1024, CHAIN_DEPTH_MAX = 6 }; /* of the other side's certificates */

static const char ciphers_12[] =
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
static const char ciphers_13[] = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";

SSL_CTX *tls_context_create(const SSL_METHOD *method, bool only_1_3)
{
    int version = only_1_3 ? TLS1_3_VERSION : TLS1_2_VERSION;
    ERR_clear_error();
    SSL_CTX *ctx = SSL_CTX_new(method);
    if (!ctx) return NULL;
    SSL_CTX_set_security_level(ctx, 2);
    (void)SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    (void)SSL_CTX_clear_options(ctx, SSL_OP_IGNORE_UNEXPECTED_EOF); /* the system's openssl.cnf may set it */
    (void)SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                    SSL_MODE_AUTO_RETRY);
    (void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_max_cert_list(ctx, CHAIN_BYTES_MAX);
    SSL_CTX_set_verify_depth(ctx, CHAIN_DEPTH_MAX);
    if (SSL_CTX_set_min_proto_version(ctx, version) && SSL_CTX_set_max_proto_version(ctx, 0) &&
        SSL_CTX_set_cipher_list(ctx, ciphers_12) && SSL_CTX_set_ciphersuites(ctx, ciphers_13) &&
        SSL_CTX_set1_groups_list(ctx, "X25519:P-256:P-384"))
        return ctx;
    SSL_CTX_free(ctx);
    return NULL;
}
