/* tls_contexts.h - what the listeners and backends of one generation speak TLS with.
 *
 *   control/certificates  makes it from the configuration and its files, aside
 *   generation            holds it; a connection takes a reference of the context that it begins with
 *
 * Equal settings share one context. What has not changed from one generation to the next is taken over (the
 * digests tell): then backends' connections stay in use, and nothing is read twice. The ticket keys always go
 * on while their settings are the same, so that sessions survive every reload.
 *
 * Thread: [control] until the generation is published; then immutable.
 */
#ifndef PROXY_TLS_CONTEXTS_H
#define PROXY_TLS_CONTEXTS_H

#include "config/config.h"
#include "net/tls_client.h"
#include "net/tls_server.h"
#include "net/tls_tickets.h"

enum { TLS_DIGEST_BYTES = 32 };

/* By index in the configuration. */
struct tls_listener {
    struct tls_server *server; /* one reference; NULL = plain */
    uint8_t digest[TLS_DIGEST_BYTES];
};

struct tls_backend {
    struct tls_client *client;      /* one reference; NULL = plain */
    char host[ENDPOINT_HOST_BYTES]; /* whom its certificate must be for */
    uint8_t digest[TLS_DIGEST_BYTES];
};

struct tls_contexts {
    struct tls_tickets *tickets; /* one reference; NULL = no listener speaks TLS */
    struct tls_listener listeners[CONFIG_LISTENERS_MAX];
    struct tls_backend backends[ENV_COUNT];
};

/* Gives all references back. */
void tls_contexts_deinit(struct tls_contexts *t);

#endif
