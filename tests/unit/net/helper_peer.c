#include "helper_peer.h"

#include <errno.h>
#include <openssl/err.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static SSL_CTX *new_ctx(const SSL_METHOD *method)
{
    SSL_CTX *ctx = SSL_CTX_new(method);
    assert_non_null(ctx);
    assert_int_equal(SSL_CTX_load_verify_locations(ctx, certs_authority_file(), NULL), 1);
    return ctx;
}

SSL_CTX *peer_client_ctx(void)
{
    SSL_CTX *ctx = new_ctx(TLS_client_method());
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    return ctx;
}

SSL_CTX *peer_server_ctx(void)
{
    struct tls_certificate_files f = certs_files();
    SSL_CTX *ctx = new_ctx(TLS_server_method());
    assert_int_equal(SSL_CTX_use_certificate_chain_file(ctx, f.certificate), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey_file(ctx, f.key, SSL_FILETYPE_PEM), 1);
    return ctx;
}

static int on_session(SSL *ssl, SSL_SESSION *session)
{
    struct peer *p = SSL_get_app_data(ssl);
    SSL_SESSION_free(p->session);
    p->session = session;
    p->nsessions++;
    return 1;
}

struct peer *peer_create(SSL_CTX *ctx, int fd, const char *host)
{
    struct peer *p = calloc(1, sizeof *p);
    assert_non_null(p);
    p->ctx = ctx;
    p->fd = fd;
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(ctx, on_session);
    p->ssl = SSL_new(ctx);
    assert_non_null(p->ssl);
    SSL_set_app_data(p->ssl, p);
    SSL_set_bio(p->ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    if (SSL_CTX_get_ssl_method(ctx) == TLS_server_method())
        SSL_set_accept_state(p->ssl);
    else
        SSL_set_connect_state(p->ssl);
    if (host) assert_int_equal(SSL_set_tlsext_host_name(p->ssl, host), 1);
    return p;
}

void peer_destroy(struct peer *p)
{
    SSL_SESSION_free(p->session);
    SSL_free(p->ssl);
    SSL_CTX_free(p->ctx);
    if (p->fd >= 0) close(p->fd);
    free(p);
}

static void carry_out(struct net_test *t, struct peer *p)
{
    char *bytes;
    BIO *bio = SSL_get_wbio(p->ssl);
    size_t n = (size_t)BIO_get_mem_data(bio, &bytes), cut = p->first ? p->first : p->piece;
    if (n == 0) return;
    if (cut && cut < n) n = cut;
    ssize_t sent = send(p->fd, bytes, n, MSG_NOSIGNAL);
    if (sent <= 0) {
        if (sent < 0 && errno != EAGAIN) BIO_reset(bio);
        return;
    }
    p->first = 0;
    char *taken = malloc((size_t)sent);
    assert_int_equal(BIO_read(bio, taken, (int)sent), sent);
    free(taken);
    if (cut) net_test_settle(t); /* the piece arrives by itself */
}

void peer_carry(struct net_test *t, struct peer *p)
{
    char bytes[16384];
    carry_out(t, p);
    RUN_READY(t);
    long n = test_recv(p->fd, bytes, sizeof bytes);
    if (n > 0)
        assert_int_equal(BIO_write(SSL_get_rbio(p->ssl), bytes, (int)n), n);
    else if (n == 0)
        p->fin = true;
    else if (n != -EAGAIN)
        p->error = -n;
}

/* True when `result` of an SSL call says that more bytes are needed, and more can come. */
static bool wants_more(struct peer *p, int result)
{
    int why = SSL_get_error(p->ssl, result);
    bool waits = why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE;
    return waits && !(p->fin && BIO_pending(SSL_get_rbio(p->ssl)) == 0) && !p->error;
}

bool peer_shake(struct net_test *t, struct peer *p)
{
    net_test_watch(t);
    for (;;) {
        ERR_clear_error();
        int done = SSL_do_handshake(p->ssl);
        if (done != 1 && wants_more(p, done)) {
            peer_carry(t, p);
            continue;
        }
        while (BIO_pending(SSL_get_wbio(p->ssl)) && !p->error)
            peer_carry(t, p);
        return done == 1;
    }
}

void peer_write(struct net_test *t, struct peer *p, const char *bytes, size_t n)
{
    net_test_watch(t);
    assert_int_equal(SSL_write(p->ssl, bytes, (int)n), n); /* into memory: whole */
    while (BIO_pending(SSL_get_wbio(p->ssl)) && !p->error)
        peer_carry(t, p);
}

int peer_read(struct net_test *t, struct peer *p, char *to, int n)
{
    net_test_watch(t);
    for (;;) {
        ERR_clear_error();
        int got = SSL_read(p->ssl, to, n);
        if (got > 0) return got;
        if (SSL_get_error(p->ssl, got) == SSL_ERROR_ZERO_RETURN) return 0;
        if (!wants_more(p, got)) return -1;
        peer_carry(t, p);
    }
}

struct tls_server *test_server(const struct tls_server_settings *o)
{
    struct tls_server_settings all = o ? *o : (struct tls_server_settings){0};
    struct tls_certificate_files files = certs_files();
    struct errmsg why = {0};
    struct tls_server *server = NULL;
    if (all.ncertificates == 0) {
        all.certificates = &files;
        all.ncertificates = 1;
    }
    enum err e = tls_server_create(&all, NULL, &why, &server);
    if (e) print_error("%s\n", why.text);
    assert_int_equal(e, ERR_OK);
    return server;
}

struct tls_client *test_client(void)
{
    struct errmsg why = {0};
    struct tls_client *client = NULL;
    const struct tls_client_settings o = {.authorities = certs_authority_file()};
    assert_int_equal(tls_client_create(&o, NULL, &why, &client), ERR_OK);
    return client;
}

struct user *user_serve(struct net_test *t, struct tls_server *server, int *fd)
{
    int fds[2];
    test_tcp_pair(fds);
    struct user *u = user_create();
    assert_int_equal(stream_open_tls(&u->stream, &t->loop, fds[0], server, &user_events), ERR_OK);
    *fd = fds[1];
    return u;
}
