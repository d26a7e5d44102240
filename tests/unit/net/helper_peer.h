/* The other side of a TLS stream: OpenSSL over memory, whose bytes this helper carries to a socket and back,
 * in pieces of any size. Nothing here shares code with what is tested. */
#ifndef TEST_NET_HELPER_PEER_H
#define TEST_NET_HELPER_PEER_H

#include "helper_certs.h"
#include "helper_user.h"
#include "net/tls_client.h"
#include "net/tls_server.h"
#include "net/tls_tickets.h"

#include <openssl/ssl.h>

struct peer {
    SSL_CTX *ctx;
    SSL *ssl;
    int fd;
    size_t piece; /* bytes a send; 0 = all */
    size_t first; /* bytes of the very first send; 0 = as `piece` */
    bool fin;     /* the stream's FIN came */
    long error;   /* errno of a failed recv */
    unsigned nsessions;
    SSL_SESSION *session; /* owned: the last ticket that came */
};

/* A client or server context that trusts certs_authority(). */
SSL_CTX *peer_client_ctx(void);
SSL_CTX *peer_server_ctx(void);

/* Takes `ctx` over. A client asks for `host` (NULL: no SNI). */
struct peer *peer_create(SSL_CTX *ctx, int fd, const char *host);
void peer_destroy(struct peer *p);

/* Carries what waits, both ways; runs the loop once. */
void peer_carry(struct net_test *t, struct peer *p);

/* Carries until the handshake is over at this side. True when it went well. */
bool peer_shake(struct net_test *t, struct peer *p);

/* As SSL_write and SSL_read, carrying until it is done. peer_read: bytes, 0 at close_notify, -1 at a failure.
 */
void peer_write(struct net_test *t, struct peer *p, const char *bytes, size_t n);
int peer_read(struct net_test *t, struct peer *p, char *to, int n);

/* A server with certs_files() and what `o` says besides. */
struct tls_server *test_server(const struct tls_server_settings *o);
struct tls_client *test_client(void);

/* A TLS server's stream on a new connection; `*fd` is the other end. */
struct user *user_serve(struct net_test *t, struct tls_server *server, int *fd);

#endif
