#include "net/tls_server.h"

#include "net/tls_tickets.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdatomic.h>
#include <stdlib.h>

enum {
    NAME_BYTES_MAX = 255,
    TICKETS_SENT = 1, /* with each full handshake: a second one costs 7 % of it, and few clients keep it */
};

/* Certificates that serve the same names, at most one for each type of key. */
struct choice {
    const struct tls_certificate *by_type[TLS_KEY_TYPES]; /* of the server's list; NULL = none */
    SSL_CTX *ctx;                                         /* owned */
};

struct served_name {
    struct span name; /* in the certificate's list; may begin with "*." */
    SSL_CTX *ctx;     /* of a choice */
};

struct tls_server {
    atomic_uint refs;
    unsigned ncertificates, nchoices, nnames;
    struct tls_certificate *certificates; /* owned */
    struct choice *choices;               /* owned; the first is for clients without SNI */
    struct served_name *names;            /* owned; sorted, without repetition */
    bool refuse_unknown_names;
    struct tls_tickets *tickets; /* one reference, or NULL */
    EVP_CIPHER *cipher;          /* owned: of the tickets */
};

/* --- names ----------------------------------------------------------------------------------------- */

static int compare_names(const void *a, const void *b)
{
    const struct span *x = a, *y = b; /* struct served_name begins with its name */
    int order = memcmp(x->p, y->p, x->n < y->n ? x->n : y->n);
    return order ? order : (x->n > y->n) - (x->n < y->n);
}

static SSL_CTX *find_name(const struct tls_server *s, struct span name)
{
    const struct served_name *found =
        s->nnames ? bsearch(&name, s->names, s->nnames, sizeof *s->names, compare_names) : NULL;
    return found ? found->ctx : NULL;
}

/* The very name first, then the wildcard for its first label. */
static SSL_CTX *context_for(const struct tls_server *s, struct span name)
{
    char lower[NAME_BYTES_MAX];
    if (name.n == 0 || name.n > sizeof lower || name.p[0] == '*') return NULL;
    for (size_t i = 0; i < name.n; i++)
        lower[i] = ascii_lower(name.p[i]);
    SSL_CTX *ctx = find_name(s, span_of(lower, name.n));
    char *dot = memchr(lower, '.', name.n);
    if (ctx || !dot || dot == lower) return ctx;
    dot[-1] = '*';
    return find_name(s, span_of(dot - 1, (size_t)(lower + name.n - dot) + 1));
}

/* The one place that decides about names. Called by OpenSSL in each handshake, with or without SNI. */
static int choose_context(SSL *ssl, int *alert, void *arg)
{
    const struct tls_server *s = arg;
    const char *sent = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    if (!sent) return SSL_TLSEXT_ERR_NOACK;
    SSL_CTX *ctx = context_for(s, span_str(sent));
    if (ctx) return SSL_set_SSL_CTX(ssl, ctx) ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
    *alert = SSL_AD_UNRECOGNIZED_NAME;
    return s->refuse_unknown_names ? SSL_TLSEXT_ERR_ALERT_FATAL : SSL_TLSEXT_ERR_NOACK;
}

bool tls_server_covers(const struct tls_server *s, const SSL *ssl, struct span host)
{
    const char *sent = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    if (sent && span_ieq(span_str(sent), host)) return true;
    SSL_CTX *ctx = context_for(s, host);
    return (ctx ? ctx : s->choices[0].ctx) == SSL_get_SSL_CTX(ssl);
}

/* --- ALPN ------------------------------------------------------------------------------------------ */

/* A client that names protocols but none of ours would not understand what we say (RFC 7301 section 3.2).
 * Each request says its version by itself, so nothing else depends on which one is chosen. */
static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_n, const unsigned char *in,
                           unsigned in_n, void *arg)
{
    static const unsigned char ours[] = "\x08http/1.1\x08http/1.0"; /* the first that it has */
    unsigned char *chosen;
    (void)ssl, (void)arg;
    int r = SSL_select_next_proto(&chosen, out_n, ours, sizeof ours - 1, in, in_n);
    *out = chosen;
    return r == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* --- tickets --------------------------------------------------------------------------------------- */

static bool use_key(const struct tls_server *s, struct tls_ticket_key *key, unsigned char *iv,
                    EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, bool is_sealing)
{
    char digest[] = "SHA256";
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key->hmac, sizeof key->hmac),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };
    return EVP_MAC_CTX_set_params(mac, params) &&
           EVP_CipherInit_ex2(cipher, s->cipher, key->aes, iv, is_sealing, NULL);
}

/* Returns what OpenSSL wants: -1 failed, 0 unknown key (a full handshake follows), 1 sealed, 2 opened, and a
 * new ticket is due. 2 also for the current key: with 1 TLS 1.3 gives no new ticket, and clients that use
 * each one once would be back to full handshakes. */
static int on_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                     EVP_MAC_CTX *mac, int is_sealing)
{
    const struct tls_server *s = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    struct tls_ticket_key key;
    if (!is_sealing && !tls_tickets_find(s->tickets, name, &key)) return 0;
    if (is_sealing) {
        if (RAND_bytes(iv, EVP_CIPHER_get_iv_length(s->cipher)) != 1) return -1;
        tls_tickets_current(s->tickets, &key);
        memcpy(name, key.name, sizeof key.name);
    }
    bool ok = use_key(s, &key, iv, cipher, mac, is_sealing);
    OPENSSL_cleanse(&key, sizeof key);
    if (!ok) return -1;
    return is_sealing ? 1 : 2;
}

/* A session resumes without its client certificate being looked at again, and each resumption gives a new
 * ticket: one that has expired would be good for ever. */
static SSL_TICKET_RETURN judge_session(SSL *ssl, SSL_SESSION *session, const unsigned char *name,
                                       size_t name_n, SSL_TICKET_STATUS status, void *arg)
{
    (void)ssl, (void)name, (void)name_n, (void)arg;
    if (status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW)
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    const X509 *shown = SSL_SESSION_get0_peer(session);
    if (shown && X509_cmp_current_time(X509_get0_notAfter(shown)) <= 0) return SSL_TICKET_RETURN_IGNORE_RENEW;
    return status == SSL_TICKET_SUCCESS ? SSL_TICKET_RETURN_USE : SSL_TICKET_RETURN_USE_RENEW;
}

/* --- building -------------------------------------------------------------------------------------- */

static enum err fail_nomem(struct errmsg *why)
{
    errmsg_set(why, 0, 0, "no memory for TLS");
    ERR_clear_error();
    return ERR_NOMEM;
}

/* Sessions of other rules for client certificates are not taken over: what they stand for was checked by
 * those. */
static enum err set_clients(SSL_CTX *ctx, const struct tls_server_settings *o, struct errmsg *why)
{
    uint8_t sessions[32] = "proofgw";
    int verify = SSL_VERIFY_NONE;
    if (o->client_certificates != TLS_CLIENTS_OFF) {
        STACK_OF(X509_NAME) *names = sk_X509_NAME_new_null();
        enum err e =
            names ? tls_authorities_load(o->client_authorities, ctx, names, sessions, why) : fail_nomem(why);
        if (e) {
            sk_X509_NAME_pop_free(names, X509_NAME_free);
            return e;
        }
        SSL_CTX_set_client_CA_list(ctx, names); /* takes it over */
        sessions[0] ^= (uint8_t)o->client_certificates;
        verify = SSL_VERIFY_PEER;
        if (o->client_certificates == TLS_CLIENTS_REQUIRED) verify |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    }
    SSL_CTX_set_verify(ctx, verify, NULL);
    return SSL_CTX_set_session_id_context(ctx, sessions, sizeof sessions) ? ERR_OK : fail_nomem(why);
}

static bool set_tickets(struct tls_server *s, SSL_CTX *ctx)
{
    if (!s->tickets) (void)SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
    if (s->tickets) (void)SSL_CTX_set_timeout(ctx, (long)(tls_tickets_rotate_ms(s->tickets) / 1000));
    return SSL_CTX_set_num_tickets(ctx, s->tickets ? TICKETS_SENT : 0) &&
           (!s->tickets || (SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, on_ticket) &&
                            SSL_CTX_set_session_ticket_cb(ctx, NULL, judge_session, NULL)));
}

static enum err make_context(struct tls_server *s, const struct tls_server_settings *o, struct choice *choice,
                             struct errmsg *why)
{
    SSL_CTX *ctx = choice->ctx = tls_context_create(TLS_server_method(), o->only_1_3);
    if (!ctx || !set_tickets(s, ctx) || !SSL_CTX_set_max_early_data(ctx, 0)) return fail_nomem(why);
    /* ChaCha20 for clients that put it first: they have no AES in hardware. */
    (void)SSL_CTX_set_options(ctx, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_app_data(ctx, s);
    SSL_CTX_set_alpn_select_cb(ctx, choose_protocol, NULL);
    (void)SSL_CTX_set_tlsext_servername_callback(ctx, choose_context); /* these two return 1 always */
    (void)SSL_CTX_set_tlsext_servername_arg(ctx, s);
    enum err e = set_clients(ctx, o, why);
    for (int type = 0; !e && type < TLS_KEY_TYPES; type++)
        if (choice->by_type[type]) e = tls_certificate_use(choice->by_type[type], ctx, why);
    return e;
}

/* For each type of key the first certificate with the very name, else the first with a wildcard for it. */
static void choose(const struct tls_server *s, struct span name, struct choice *c)
{
    *c = (struct choice){0};
    for (unsigned covers = 2; covers > 0; covers--)
        for (unsigned i = 0; i < s->ncertificates; i++) {
            const struct tls_certificate *x = &s->certificates[i];
            if (!c->by_type[x->type] && tls_certificate_covers(x, name) == covers) c->by_type[x->type] = x;
        }
}

/* The context for a choice, made when there is none like it yet. */
static enum err need_context(struct tls_server *s, const struct tls_server_settings *o,
                             const struct choice *want, SSL_CTX **out, struct errmsg *why)
{
    for (unsigned i = 0; i < s->nchoices; i++)
        if (memcmp(s->choices[i].by_type, want->by_type, sizeof want->by_type) == 0) {
            *out = s->choices[i].ctx;
            return ERR_OK;
        }
    struct choice *grown = realloc(s->choices, (s->nchoices + 1) * sizeof *grown);
    if (!grown) return fail_nomem(why);
    s->choices = grown;
    s->choices[s->nchoices] = *want;
    enum err e = make_context(s, o, &s->choices[s->nchoices++], why);
    if (!e) *out = s->choices[s->nchoices - 1].ctx;
    return e;
}

/* The first certificate, and beside it one with another type of key for the same name. */
static enum err make_default(struct tls_server *s, const struct tls_server_settings *o, struct errmsg *why)
{
    const struct tls_certificate *first = &s->certificates[0];
    struct span names = span_str(first->names), name;
    struct choice c = {0};
    SSL_CTX *ctx;
    if (tls_certificate_name(&names, &name)) choose(s, name, &c);
    c.by_type[first->type] = first;
    return need_context(s, o, &c, &ctx, why);
}

static unsigned count_names(const struct tls_server *s)
{
    unsigned n = 0;
    for (unsigned i = 0; i < s->ncertificates; i++) {
        struct span names = span_str(s->certificates[i].names), name;
        while (tls_certificate_name(&names, &name))
            n++;
    }
    return n;
}

static enum err make_names(struct tls_server *s, const struct tls_server_settings *o, struct errmsg *why)
{
    s->names = calloc(count_names(s) + 1, sizeof *s->names);
    if (!s->names) return fail_nomem(why);
    unsigned n = 0;
    for (unsigned i = 0; i < s->ncertificates; i++) {
        struct span names = span_str(s->certificates[i].names);
        while (tls_certificate_name(&names, &s->names[n].name))
            n++;
    }
    qsort(s->names, n, sizeof *s->names, compare_names);
    for (unsigned i = 0; i < n; i++) {
        struct served_name *to = &s->names[s->nnames];
        if (s->nnames && span_eq(to[-1].name, s->names[i].name)) continue;
        struct choice c;
        *to = s->names[i];
        choose(s, to->name, &c);
        enum err e = need_context(s, o, &c, &to->ctx, why);
        if (e) return e;
        s->nnames++;
    }
    return ERR_OK;
}

static enum err check_purpose(const struct tls_certificate *x, struct errmsg *why)
{
    if (X509_check_purpose(x->leaf, X509_PURPOSE_SSL_SERVER, 0) == 1) return ERR_OK;
    errmsg_set(why, 0, 0, "%s: the certificate is not for servers: its (extended) key usage says for what",
               x->file);
    ERR_clear_error();
    return ERR_RANGE;
}

static enum err load_certificates(struct tls_server *s, const struct tls_server_settings *o,
                                  const struct tls_warnings *warnings, struct errmsg *why)
{
    s->certificates = calloc(o->ncertificates, sizeof *s->certificates);
    if (!s->certificates) return fail_nomem(why);
    for (unsigned i = 0; i < o->ncertificates; i++) {
        enum err e = tls_certificate_load(&o->certificates[i], warnings, &s->certificates[i], why);
        if (e) return e;
        e = check_purpose(&s->certificates[s->ncertificates++], why);
        if (e) return e;
    }
    return ERR_OK;
}

static enum err build(struct tls_server *s, const struct tls_server_settings *o,
                      const struct tls_warnings *warnings, struct errmsg *why)
{
    s->refuse_unknown_names = o->refuse_unknown_names;
    if (o->tickets) {
        s->tickets = tls_tickets_ref(o->tickets);
        s->cipher = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
        if (!s->cipher) return fail_nomem(why);
    }
    enum err e = load_certificates(s, o, warnings, why);
    if (!e) e = make_default(s, o, why);
    return e ? e : make_names(s, o, why);
}

enum err tls_server_create(const struct tls_server_settings *settings, const struct tls_warnings *warnings,
                           struct errmsg *why, struct tls_server **out)
{
    BUG_IF(settings->ncertificates == 0 || settings->ncertificates > TLS_CERTIFICATES_MAX,
           "how many certificates?");
    struct tls_server *s = calloc(1, sizeof *s);
    if (!s) return fail_nomem(why);
    atomic_init(&s->refs, 1);
    enum err e = build(s, settings, warnings, why);
    if (e)
        tls_server_unref(s);
    else
        *out = s;
    return e;
}

struct tls_server *tls_server_ref(struct tls_server *s)
{
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

void tls_server_unref(struct tls_server *s)
{
    if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1) return;
    for (unsigned i = 0; i < s->nchoices; i++)
        SSL_CTX_free(s->choices[i].ctx);
    for (unsigned i = 0; i < s->ncertificates; i++)
        tls_certificate_deinit(&s->certificates[i]);
    free(s->choices);
    free(s->certificates);
    free(s->names);
    EVP_CIPHER_free(s->cipher);
    tls_tickets_unref(s->tickets);
    free(s);
}

unsigned tls_server_ncertificates(const struct tls_server *s)
{
    return s->ncertificates;
}

const struct tls_certificate *tls_server_certificate(const struct tls_server *s, unsigned i)
{
    return &s->certificates[i];
}

SSL *tls_server_open(const struct tls_server *s)
{
    SSL *ssl = SSL_new(s->choices[0].ctx);
    if (ssl) SSL_set_accept_state(ssl);
    return ssl;
}
