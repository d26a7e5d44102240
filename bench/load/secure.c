#include "load/secure.h"

#include <openssl/err.h>

/* TLS 1.3 sends its tickets after the handshake. */
static int on_session(SSL *ssl, SSL_SESSION *session)
{
    struct secure *s = SSL_get_app_data(ssl);
    SSL_SESSION_free(s->session);
    s->session = session;
    return 1; /* it is ours now */
}

SSL_CTX *secure_context(bool resume)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    if (!context) return NULL;
    if (!SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256")) {
        SSL_CTX_free(context);
        return NULL;
    }
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    if (resume) {
        SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(context, on_session);
    }
    return context;
}

bool secure_open(struct secure *s, SSL_CTX *context, const char *host)
{
    BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
    s->ssl = SSL_new(context);
    if (!s->ssl || !in || !out || !SSL_set_tlsext_host_name(s->ssl, host)) {
        BIO_free(in);
        BIO_free(out);
        SSL_free(s->ssl);
        s->ssl = NULL;
        return false;
    }
    BIO_set_mem_eof_return(in, -1); /* empty is "later", not the end */
    SSL_set_bio(s->ssl, in, out);
    SSL_set_app_data(s->ssl, s);
    SSL_set_connect_state(s->ssl);
    if (s->session && !SSL_set_session(s->ssl, s->session)) ERR_clear_error(); /* then a full handshake */
    return true;
}

void secure_close(struct secure *s)
{
    if (!s->ssl) return;
    SSL_set_shutdown(s->ssl,
                     SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN); /* else the session counts as broken */
    SSL_free(s->ssl);
    s->ssl = NULL;
}

void secure_free(struct secure *s)
{
    secure_close(s);
    SSL_SESSION_free(s->session);
    s->session = NULL;
}

bool secure_feed(struct secure *s, const char *p, size_t n)
{
    return BIO_write(SSL_get_rbio(s->ssl), p, (int)n) == (int)n;
}

bool secure_handshake(struct secure *s, bool *done)
{
    int got = SSL_do_handshake(s->ssl);
    *done = got == 1;
    if (*done || SSL_get_error(s->ssl, got) == SSL_ERROR_WANT_READ) return true;
    ERR_clear_error();
    return false;
}

bool secure_is_resumed(const struct secure *s)
{
    return SSL_session_reused(s->ssl);
}

int secure_read(struct secure *s, char *p, size_t n)
{
    int got = SSL_read(s->ssl, p, (int)n);
    if (got > 0) return got;
    if (SSL_get_error(s->ssl, got) == SSL_ERROR_WANT_READ) return 0;
    ERR_clear_error();
    return -1;
}

bool secure_write(struct secure *s, const char *p, size_t n)
{
    return SSL_write(s->ssl, p, (int)n) == (int)n;
}

size_t secure_outgoing(struct secure *s, char **p)
{
    long n = BIO_get_mem_data(SSL_get_wbio(s->ssl), p);
    return n > 0 ? (size_t)n : 0;
}

void secure_sent(struct secure *s)
{
    (void)BIO_reset(SSL_get_wbio(s->ssl)); /* cannot fail for memory */
}
