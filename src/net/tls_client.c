#include "net/tls_client.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdatomic.h>
#include <stdlib.h>

struct tls_client {
    atomic_uint refs;
    uint64_t id; /* never given twice: an address may be */
    SSL_CTX *ctx;
    struct tls_certificate certificate; /* leaf NULL = none */
};

/* --- sessions -------------------------------------------------------------------------------------- */

void tls_sessions_clear(struct tls_sessions *s)
{
    for (unsigned i = 0; i < s->n; i++)
        SSL_SESSION_free(s->sessions[i]);
    s->n = 0;
}

/* Called by OpenSSL for each ticket. Returns 1 when it keeps the reference. */
static int on_session(SSL *ssl, SSL_SESSION *session)
{
    struct tls_sessions *s = SSL_get_app_data(ssl);
    const struct tls_client *c = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    if (!s || !SSL_SESSION_is_resumable(session)) return 0;
    if (s->client_id != c->id) tls_sessions_clear(s);
    s->client_id = c->id;
    if (s->n == TLS_SESSIONS_MAX) {
        SSL_SESSION_free(s->sessions[0]);
        memmove(s->sessions, s->sessions + 1, --s->n * sizeof *s->sessions);
    }
    s->sessions[s->n++] = session;
    return 1;
}

/* A ticket of TLS 1.3 is used once, so that nobody can tell that two connections belong together (RFC 8446
 * appendix C.4). A session of TLS 1.2 stays. */
static bool offer_session(SSL *ssl, const struct tls_target *to)
{
    struct tls_sessions *s = to->sessions;
    if (!s || s->client_id != to->client->id || s->n == 0) return true;
    SSL_SESSION *session = s->sessions[s->n - 1];
    bool ok = SSL_set_session(ssl, session);
    if (SSL_SESSION_get_protocol_version(session) >= TLS1_3_VERSION || !SSL_SESSION_is_resumable(session)) {
        s->n--;
        SSL_SESSION_free(session);
    }
    return ok;
}

/* --- connections ----------------------------------------------------------------------------------- */

static bool is_ip(const char *host)
{
    struct in6_addr any;
    return inet_pton(AF_INET, host, &any) == 1 || inet_pton(AF_INET6, host, &any) == 1;
}

static bool set_host(SSL *ssl, const char *host)
{
    if (is_ip(host)) return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host);
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    return SSL_set1_host(ssl, host) && SSL_set_tlsext_host_name(ssl, host);
}

SSL *tls_client_open(const struct tls_target *to)
{
    SSL *ssl = SSL_new(to->client->ctx);
    if (!ssl) return NULL;
    SSL_set_connect_state(ssl);
    if (set_host(ssl, to->host) && SSL_set_app_data(ssl, to->sessions) && offer_session(ssl, to)) return ssl;
    SSL_free(ssl);
    return NULL;
}

/* --- contexts -------------------------------------------------------------------------------------- */

static enum err fail(struct errmsg *why, const char *text)
{
    errmsg_set(why, 0, 0, "%s", text);
    ERR_clear_error();
    return ERR_NOMEM;
}

static enum err build(struct tls_client *c, const struct tls_client_settings *o,
                      const struct tls_warnings *warnings, struct errmsg *why)
{
    enum err e = ERR_OK;
    c->ctx = tls_context_create(TLS_client_method(), o->only_1_3);
    if (!c->ctx) return fail(why, "no memory for TLS");
    SSL_CTX_set_app_data(c->ctx, c);
    SSL_CTX_set_verify(c->ctx, SSL_VERIFY_PEER, NULL);
    (void)SSL_CTX_set_session_cache_mode(c->ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(c->ctx, on_session);
    if (o->authorities)
        e = tls_authorities_load(o->authorities, c->ctx, NULL, NULL, why);
    else if (!SSL_CTX_set_default_verify_paths(c->ctx))
        return fail(why, "the system's list of certificate authorities cannot be used");
    if (e || !o->certificate) return e;
    e = tls_certificate_load(o->certificate, warnings, &c->certificate, why);
    return e ? e : tls_certificate_use(&c->certificate, c->ctx, why);
}

enum err tls_client_create(const struct tls_client_settings *settings, const struct tls_warnings *warnings,
                           struct errmsg *why, struct tls_client **out)
{
    static _Atomic uint64_t last_id;
    struct tls_client *c = calloc(1, sizeof *c);
    if (!c) return fail(why, "no memory for TLS");
    atomic_init(&c->refs, 1);
    c->id = atomic_fetch_add_explicit(&last_id, 1, memory_order_relaxed) + 1;
    enum err e = build(c, settings, warnings, why);
    if (e)
        tls_client_unref(c);
    else
        *out = c;
    return e;
}

struct tls_client *tls_client_ref(struct tls_client *c)
{
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    return c;
}

void tls_client_unref(struct tls_client *c)
{
    if (!c || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1) return;
    SSL_CTX_free(c->ctx);
    tls_certificate_deinit(&c->certificate);
    free(c);
}

const struct tls_certificate *tls_client_certificate(const struct tls_client *c)
{
    return c->certificate.leaf ? &c->certificate : NULL;
}
