/* A connection between a TLS server's stream and OpenSSL as its client. */
#ifndef TEST_NET_HELPER_LINK_H
#define TEST_NET_HELPER_LINK_H

#include "helper_peer.h"

struct link {
    struct net_test *t;
    struct tls_server *server;
    struct user *u;
    struct peer *p;
};

/* `o`: besides test_server(); may be NULL. Takes `ctx` over; NULL: peer_client_ctx(). */
struct link link_new(void **state, const struct tls_server_settings *o, SSL_CTX *ctx);
/* The same after the handshake. */
struct link link_open(void **state);
void link_free(struct link *l);

/* A question and an answer. */
void link_exchange(struct link *l);

/* The stream fails with `e`, says why, and hands nothing over. */
void link_refused(struct link *l, enum err e);

#endif
