#include "net/tls.h"

#include "net/loop.h"
#include "net/tls_client.h"
#include "net/tls_server.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdatomic.h>
#include <stdlib.h>

enum {
    RECORD_BYTES = SSL3_RT_MAX_PLAIN_LENGTH,
    RECORD_ROOM = RECORD_BYTES + 512, /* a sealed record, and a KeyUpdate before it */
    OUT_BYTES = 17 * RECORD_ROOM,     /* 256 KiB of body and a head leave in one send */
    HANDSHAKE_BYTES_MAX = 64 * 1024,  /* a client certificate chain is a tenth of that */
    MESSAGES_MAX = 16,                /* besides data, in one feed */
};

/* Shared by the connections of a loop; only one is being worked on at a time. */
struct tls_buffers {
    const char *in; /* borrowed, during tls_feed(): what OpenSSL has not taken */
    size_t in_n;
    char *plain; /* owned: room for all that one feed can bring */
    size_t plain_cap;
    size_t out_n;
    char out[OUT_BYTES];
    char record[RECORD_BYTES]; /* small slices, put together */
};

struct tls {
    SSL *ssl;
    struct tls_buffers *buffers; /* borrowed: the loop's */
    struct tls_server *server;   /* one reference, or NULL: a client's side */
    struct tls_client *client;   /* one reference, or NULL: a server's side */
    const char *reason;          /* static text */
    uint32_t handshake_bytes;    /* fed before it was done */
    uint8_t nmessages;           /* besides data, in this feed */
    uint8_t failure;             /* enum tls_failure */
    bool is_secured;
    bool has_failed; /* OpenSSL must not be asked again */
};

/* --- buffers and BIO ------------------------------------------------------------------------------- */

static int bio_read(BIO *bio, char *to, int n)
{
    struct tls_buffers *b = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (b->in_n == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    size_t take = (size_t)n < b->in_n ? (size_t)n : b->in_n;
    memcpy(to, b->in, take);
    b->in += take;
    b->in_n -= take;
    return (int)take;
}

/* All or nothing: tls_seal() looks for room first, and no handshake of ours fills the buffer. */
static int bio_write(BIO *bio, const char *from, int n)
{
    struct tls_buffers *b = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if ((size_t)n > sizeof b->out - b->out_n) return -1;
    memcpy(b->out + b->out_n, from, (size_t)n);
    b->out_n += (size_t)n;
    return n;
}

static long bio_ctrl(BIO *bio, int command, long number, void *p)
{
    (void)bio, (void)number, (void)p;
    return command == BIO_CTRL_FLUSH;
}

static BIO_METHOD *make_bio_method(void)
{
    BIO_METHOD *m = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "shared buffers"); /* nobody looks for its type */
    if (!m) return NULL;
    (void)BIO_meth_set_read(m, bio_read); /* these fill in fields and cannot fail */
    (void)BIO_meth_set_write(m, bio_write);
    (void)BIO_meth_set_ctrl(m, bio_ctrl);
    return m;
}

/* One for the whole process, made by whoever needs it first; NULL when memory is out, this time. */
static const BIO_METHOD *bio_method(void)
{
    static _Atomic(BIO_METHOD *) shared;
    BIO_METHOD *m = atomic_load_explicit(&shared, memory_order_acquire), *other = NULL;
    if (m) return m;
    m = make_bio_method();
    if (!m || atomic_compare_exchange_strong_explicit(&shared, &other, m, memory_order_acq_rel,
                                                      memory_order_acquire))
        return m;
    BIO_meth_free(m);
    return other;
}

static enum err attach_bio(struct tls *t)
{
    const BIO_METHOD *method = bio_method();
    BIO *bio = method ? BIO_new(method) : NULL;
    if (!bio) return ERR_NOMEM;
    BIO_set_data(bio, t->buffers);
    BIO_set_init(bio, 1);
    SSL_set_bio(t->ssl, bio, bio); /* takes it over */
    return ERR_OK;
}

/* OpenSSL may hold all but the last byte of a record, which this feed completes. */
static enum err need_buffers(struct loop *l)
{
    if (l->tls) return ERR_OK;
    struct tls_buffers *b = malloc(sizeof *b);
    if (!b) return ERR_NOMEM;
    b->in = NULL;
    b->in_n = b->out_n = 0;
    b->plain_cap = l->read_buffer_bytes + RECORD_BYTES;
    b->plain = malloc(b->plain_cap);
    if (!b->plain) {
        free(b);
        return ERR_NOMEM;
    }
    l->tls = b;
    return ERR_OK;
}

void tls_buffers_destroy(struct tls_buffers *b)
{
    if (!b) return;
    OPENSSL_cleanse(b->record, sizeof b->record);
    OPENSSL_cleanse(b->plain, b->plain_cap);
    free(b->plain);
    free(b);
}

static struct span take_out(struct tls_buffers *b)
{
    struct span out = span_of(b->out, b->out_n);
    b->out_n = 0;
    return out;
}

/* --- life ------------------------------------------------------------------------------------------ */

/* Counts what is neither data nor part of the handshake. When it is too much, OpenSSL is starved of input,
 * which makes it return. */
static void on_message(int is_sent, int version, int type, const void *p, size_t n, SSL *ssl, void *arg)
{
    struct tls *t = arg;
    (void)is_sent, (void)version, (void)p, (void)n, (void)ssl;
    if (!t->is_secured || (type != SSL3_RT_HANDSHAKE && type != SSL3_RT_ALERT)) return;
    if (t->nmessages < MESSAGES_MAX) t->nmessages++;
    if (t->nmessages == MESSAGES_MAX) t->buffers->in_n = 0;
}

static enum err create(struct loop *l, struct tls **out)
{
    enum err e = need_buffers(l);
    if (e) return e;
    struct tls *t = calloc(1, sizeof *t);
    if (!t) return ERR_NOMEM;
    t->buffers = l->tls;
    *out = t;
    return ERR_OK;
}

/* Takes `ssl` over; NULL when there is none. */
static enum err complete(struct tls *t, SSL *ssl)
{
    t->ssl = ssl;
    enum err e = ssl ? attach_bio(t) : ERR_NOMEM;
    if (e) {
        tls_destroy(t);
        return e;
    }
    SSL_set_msg_callback(ssl, on_message);
    SSL_set_msg_callback_arg(ssl, t);
    return ERR_OK;
}

enum err tls_accept(struct loop *l, struct tls_server *server, struct tls **out)
{
    struct tls *t;
    enum err e = create(l, &t);
    if (e) return e;
    ERR_clear_error();
    t->server = tls_server_ref(server);
    e = complete(t, tls_server_open(server));
    if (!e) *out = t;
    return e;
}

enum err tls_dial(struct loop *l, const struct tls_target *to, struct tls **out)
{
    struct tls *t;
    enum err e = create(l, &t);
    if (e) return e;
    ERR_clear_error();
    t->client = tls_client_ref(to->client);
    e = complete(t, tls_client_open(to));
    if (!e) *out = t;
    return e;
}

void tls_destroy(struct tls *t)
{
    if (!t) return;
    SSL_free(t->ssl);
    tls_server_unref(t->server);
    tls_client_unref(t->client);
    free(t);
}

/* --- failing --------------------------------------------------------------------------------------- */

const char *const tls_failure_names[TLS_FAILURE_COUNT] = {
#define XX(id, text) text,
    TLS_FAILURE_MAP(XX)
#undef XX
};

static enum tls_failure class_of(int reason)
{
    /* An alert that was received. Reasons that all libraries share, such as lack of memory, have larger
     * numbers. */
    if (reason > SSL_AD_REASON_OFFSET && reason <= SSL_AD_REASON_OFFSET + UINT8_MAX) return TLS_FAILURE_ALERT;
    switch (reason) {
    case SSL_R_HTTP_REQUEST:
    case SSL_R_HTTPS_PROXY_REQUEST:
    case SSL_R_WRONG_VERSION_NUMBER: return TLS_FAILURE_NOT_TLS;
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_VERSION_TOO_LOW:
    case SSL_R_NO_SHARED_CIPHER:
    case SSL_R_NO_SUITABLE_KEY_SHARE:
    case SSL_R_NO_SHARED_GROUPS:
    case SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM:
    case SSL_R_NO_SHARED_SIGNATURE_ALGORITHMS:
    case SSL_R_NO_APPLICATION_PROTOCOL: return TLS_FAILURE_NO_AGREEMENT;
    case SSL_R_CALLBACK_FAILED:
        return TLS_FAILURE_UNKNOWN_NAME; /* choose_context() is the only one that refuses */
    case SSL_R_CERTIFICATE_VERIFY_FAILED:
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE: return TLS_FAILURE_CERTIFICATE;
    case ERR_R_MALLOC_FAILURE: return TLS_FAILURE_MEMORY;
    default: return TLS_FAILURE_PROTOCOL;
    }
}

/* Notes why a call of OpenSSL failed. Its last error says most, unless the first is lack of memory. */
static enum err fail(struct tls *t)
{
    unsigned long first = ERR_peek_error();
    unsigned long code = ERR_GET_REASON(first) == ERR_R_MALLOC_FAILURE ? first : ERR_peek_last_error();
    t->has_failed = true;
    t->reason = ERR_reason_error_string(code);
    if (ERR_GET_REASON(code) == SSL_R_CERTIFICATE_VERIFY_FAILED)
        t->reason = X509_verify_cert_error_string(SSL_get_verify_result(t->ssl));
    if (!t->reason) t->reason = "protocol error";
    t->failure = (uint8_t)class_of(ERR_GET_REASON(code));
    ERR_clear_error();
    return t->failure == TLS_FAILURE_MEMORY ? ERR_NOMEM : ERR_TLS;
}

static enum err fail_limit(struct tls *t, const char *reason)
{
    t->has_failed = true;
    t->reason = reason;
    t->failure = TLS_FAILURE_LIMIT;
    return ERR_LIMIT;
}

/* --- reading --------------------------------------------------------------------------------------- */

static enum err do_handshake(struct tls *t, size_t n)
{
    ERR_clear_error();
    int done = SSL_do_handshake(t->ssl);
    if (done == 1) {
        t->is_secured = true;
        return ERR_OK;
    }
    if (SSL_get_error(t->ssl, done) != SSL_ERROR_WANT_READ) return fail(t);
    t->handshake_bytes += (uint32_t)n;
    return t->handshake_bytes > HANDSHAKE_BYTES_MAX ? fail_limit(t, "handshake too large") : ERR_OK;
}

/* Also without input, once: OpenSSL then lets go of the buffer of the last handshake record. */
static enum err read_records(struct tls *t, size_t *nplain)
{
    struct tls_buffers *b = t->buffers;
    do {
        size_t got = 0;
        ERR_clear_error();
        int ok = SSL_read_ex(t->ssl, b->plain + *nplain, b->plain_cap - *nplain, &got);
        if (t->nmessages == MESSAGES_MAX) return fail_limit(t, "too many messages besides data");
        if (!ok) {
            int why = SSL_get_error(t->ssl, ok);
            if (why == SSL_ERROR_ZERO_RETURN) return ERR_EOF;
            return why == SSL_ERROR_WANT_READ ? ERR_OK : fail(t);
        }
        *nplain += got;
    } while (b->in_n || SSL_pending(t->ssl));
    return ERR_OK;
}

void tls_feed(struct tls *t, const char *p, size_t n, struct tls_result *r)
{
    struct tls_buffers *b = t->buffers;
    size_t nplain = 0;
    bool was_secured = t->is_secured;
    b->in = p;
    b->in_n = n;
    t->nmessages = 0;
    r->end = t->has_failed ? ERR_TLS : ERR_OK;
    if (!r->end && !was_secured) r->end = do_handshake(t, n);
    if (!r->end && t->is_secured) r->end = read_records(t, &nplain);
    b->in = NULL;
    b->in_n = 0;
    r->secured = t->is_secured && !was_secured;
    r->plain = span_of(b->plain, nplain);
    r->out = take_out(b);
}

bool tls_is_inside_record(const struct tls *t)
{
    return SSL_has_pending(t->ssl);
}

/* --- writing --------------------------------------------------------------------------------------- */

/* The next record's worth of plaintext: straight from a large slice, else gathered. Leaves empty slices
 * behind. */
static struct span next_record(struct tls_buffers *b, struct tls_source *from)
{
    size_t n = 0;
    while (from->n && n < RECORD_BYTES) {
        struct iovec *v = from->iov;
        size_t take = v->iov_len < RECORD_BYTES - n ? v->iov_len : RECORD_BYTES - n;
        char *p = v->iov_base;
        v->iov_base = p + take;
        v->iov_len -= take;
        if (take == RECORD_BYTES) return span_of(p, take);
        if (take) memcpy(b->record + n, p, take);
        n += take;
        if (v->iov_len == 0) from->iov++, from->n--;
    }
    return span_of(b->record, n);
}

enum err tls_seal(struct tls *t, struct tls_source *from, struct span *out)
{
    struct tls_buffers *b = t->buffers;
    *out = (struct span){0};
    if (t->has_failed) return ERR_TLS;
    while (from->n && sizeof b->out - b->out_n >= RECORD_ROOM) {
        struct span record = next_record(b, from);
        size_t written;
        if (record.n == 0) continue;
        ERR_clear_error();
        if (!SSL_write_ex(t->ssl, record.p, record.n, &written)) {
            b->out_n = 0;
            return fail(t);
        }
    }
    *out = take_out(b);
    return ERR_OK;
}

struct span tls_finish(struct tls *t)
{
    if (!t->is_secured || t->has_failed) return (struct span){0};
    ERR_clear_error();
    (void)SSL_shutdown(t->ssl); /* what it could not say is missing in `out` */
    ERR_clear_error();
    return take_out(t->buffers);
}

/* --- telling --------------------------------------------------------------------------------------- */

bool tls_describe(const struct tls *t, struct tls_info *out)
{
    if (!t->is_secured) return false;
    *out = (struct tls_info){
        .version = SSL_get_version(t->ssl),
        .cipher = SSL_get_cipher_name(t->ssl),
        .server_name = SSL_get_servername(t->ssl, TLSEXT_NAMETYPE_host_name),
        .resumed = SSL_session_reused(t->ssl),
        .has_certificate = SSL_get0_peer_certificate(t->ssl) != NULL,
    };
    return true;
}

bool tls_covers_host(const struct tls *t, struct span host)
{
    return tls_server_covers(t->server, t->ssl, host);
}

bool tls_fingerprint(const struct tls *t, uint8_t out[static 32])
{
    X509 *peer = t->is_secured ? SSL_get0_peer_certificate(t->ssl) : NULL;
    return peer && X509_digest(peer, EVP_sha256(), out, NULL);
}

enum tls_failure tls_failure(const struct tls *t)
{
    return (enum tls_failure)t->failure;
}

const char *tls_reason(const struct tls *t)
{
    return t->reason;
}
