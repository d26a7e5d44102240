#include "net/tls_certificate.h"

#include "net/tls_file.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
    CHAIN_MAX = 10,          /* certificates in a chain */
    SECURITY_BITS_MIN = 112, /* RSA 2048 */
    CURVE_BYTES = 64,
    WHEN_BYTES = sizeof "2026-11-21 13:25 UTC",
};

/* The text behind "file: ". */
__attribute__((format(printf, 4, 5))) static enum err refuse(struct errmsg *why, enum err e, const char *file,
                                                             const char *format, ...)
{
    struct errmsg text;
    va_list ap;
    va_start(ap, format);
    if (vsnprintf(text.text, sizeof text.text, format, ap) < 0) text.text[0] = '\0';
    va_end(ap);
    errmsg_set(why, 0, 0, "%s: %s", file, text.text);
    ERR_clear_error();
    return e;
}

/* What OpenSSL says about its last failure. */
static const char *openssl_text(void)
{
    const char *text = ERR_reason_error_string(ERR_peek_last_error());
    return text ? text : "OpenSSL gives no reason";
}

static bool is_nomem(void)
{
    return ERR_GET_REASON(ERR_peek_last_error()) == ERR_R_MALLOC_FAILURE;
}

static void warn(const struct tls_warnings *w, const char *file, const char *text)
{
    struct errmsg m;
    if (!w || !w->fn) return;
    errmsg_set(&m, 0, 0, "%s: %s", file, text);
    w->fn(m.text, w->arg);
}

/* --- reading --------------------------------------------------------------------------------------- */

/* All certificates of a PEM text, in order; other blocks are skipped. Errors: ERR_PARSE, ERR_NOMEM. */
static enum err parse_chain(const struct tls_file *f, STACK_OF(X509) * to)
{
    BIO *bio = BIO_new_mem_buf(f->p, (int)f->n);
    if (!bio) return ERR_NOMEM;
    X509 *x;
    ERR_clear_error();
    while ((x = PEM_read_bio_X509(bio, NULL, NULL, NULL)) && sk_X509_push(to, x) > 0)
        ;
    if (x) X509_free(x); /* could not be pushed */
    BIO_free(bio);
    if (x || is_nomem()) return ERR_NOMEM;
    return ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE ? ERR_OK : ERR_PARSE;
}

/* Errors: those of tls_file_read(), ERR_PARSE, ERR_NOMEM. `digest` as in tls_authorities_load(). */
static enum err read_certificates(const char *file, STACK_OF(X509) * *out, uint8_t *digest,
                                  struct errmsg *why)
{
    struct tls_file f;
    enum err e = tls_file_read(file, false, &f, why);
    if (e) return e;
    STACK_OF(X509) *list = sk_X509_new_null();
    e = list ? parse_chain(&f, list) : ERR_NOMEM;
    if (!e && digest && !EVP_Digest(f.p, f.n, digest, NULL, EVP_sha256(), NULL)) e = ERR_NOMEM;
    if (!e && sk_X509_num(list) == 0)
        e = refuse(why, ERR_PARSE, file,
                   "it holds no certificate; PEM is expected (-----BEGIN CERTIFICATE-----)");
    else if (e == ERR_PARSE)
        refuse(why, e, file, "certificate %d cannot be read: %s", sk_X509_num(list) + 1, openssl_text());
    else if (e)
        refuse(why, e, file, "no memory to read it");
    tls_file_free(&f);
    if (e)
        sk_X509_pop_free(list, X509_free);
    else
        *out = list;
    return e;
}

/* Called for encrypted keys: notes that, and gives up. */
static int no_password(char *to, int n, int is_writing, void *arg)
{
    (void)to, (void)n, (void)is_writing;
    *(bool *)arg = true;
    return -1;
}

static enum err read_key(const char *file, EVP_PKEY **out, struct errmsg *why)
{
    struct tls_file f;
    bool is_encrypted = false;
    enum err e = tls_file_read(file, true, &f, why);
    if (e) return e;
    ERR_clear_error();
    BIO *bio = BIO_new_mem_buf(f.p, (int)f.n);
    EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_password, &is_encrypted) : NULL;
    BIO_free(bio);
    tls_file_free(&f);
    if (key) {
        *out = key;
        return ERR_OK;
    }
    if (is_encrypted)
        return refuse(why, ERR_PARSE, file,
                      "the key is encrypted; store it without a password (openssl pkey -in ...)");
    if (!bio || is_nomem()) return refuse(why, ERR_NOMEM, file, "no memory to read it");
    return refuse(why, ERR_PARSE, file, "it holds no private key that can be read; PEM is expected: %s",
                  openssl_text());
}

/* --- judging --------------------------------------------------------------------------------------- */

static void format_when(const ASN1_TIME *t, char out[static WHEN_BYTES])
{
    struct tm tm;
    if (!ASN1_TIME_to_tm(t, &tm) || strftime(out, WHEN_BYTES, "%Y-%m-%d %H:%M UTC", &tm) == 0)
        memcpy(out, "?", 2);
}

static enum err check_times(const struct tls_certificate *c, const X509 *in_force,
                            const struct tls_warnings *w, struct errmsg *why)
{
    char when[WHEN_BYTES];
    struct tm tm;
    if (X509_cmp_current_time(X509_get0_notBefore(c->leaf)) >= 0) {
        format_when(X509_get0_notBefore(c->leaf), when);
        return refuse(why, ERR_RANGE, c->file, "the certificate is not valid before %s; check the clock",
                      when);
    }
    bool is_over = X509_cmp_current_time(X509_get0_notAfter(c->leaf)) <= 0 ||
                   !ASN1_TIME_to_tm(X509_get0_notAfter(c->leaf), &tm);
    if (is_over && (!in_force || X509_cmp(c->leaf, in_force) != 0)) {
        format_when(X509_get0_notAfter(c->leaf), when);
        return refuse(why, ERR_RANGE, c->file, "the certificate expired on %s; renew it, or check the clock",
                      when);
    }
    for (int i = 0; i < sk_X509_num(c->issuers); i++)
        if (X509_cmp_current_time(X509_get0_notAfter(sk_X509_value(c->issuers, i))) <= 0)
            warn(w, c->file, "an issuer in it has expired; fetch the chain anew");
    return ERR_OK;
}

/* Whether the last one leads to a root that clients know cannot be known here. */
static enum err check_chain(const struct tls_certificate *c, const struct tls_warnings *w, struct errmsg *why)
{
    X509 *subject = c->leaf;
    for (int i = 0; i < sk_X509_num(c->issuers); i++) {
        X509 *issuer = sk_X509_value(c->issuers, i);
        if (X509_check_issued(issuer, subject) != X509_V_OK)
            return refuse(
                why, ERR_PARSE, c->file,
                "certificate %d did not issue certificate %d; the order is leaf, its issuer, and so on",
                i + 2, i + 1);
        subject = issuer;
    }
    if (sk_X509_num(c->issuers) == 0 && !(X509_get_extension_flags(c->leaf) & EXFLAG_SS))
        warn(w, c->file,
             "it holds the leaf only; unless its issuer is a root that clients trust, add the intermediate "
             "certificates behind it");
    return ERR_OK;
}

/* With any other kind every handshake would fail (net/tls_context.c). */
static bool is_for_tls(const EVP_PKEY *key)
{
    char curve[CURVE_BYTES];
    size_t n;
    int nid;
    switch (EVP_PKEY_get_base_id(key)) {
    case EVP_PKEY_RSA:
    case EVP_PKEY_RSA_PSS:
    case EVP_PKEY_ED25519:
    case EVP_PKEY_ED448: return true;
    case EVP_PKEY_EC:
        nid = EVP_PKEY_get_group_name(key, curve, sizeof curve, &n) ? OBJ_sn2nid(curve) : NID_undef;
        return nid == NID_X9_62_prime256v1 || nid == NID_secp384r1 || nid == NID_secp521r1;
    default: return false;
    }
}

static enum err check_key(struct tls_certificate *c, const char *key_file, struct errmsg *why)
{
    int base = EVP_PKEY_get_base_id(c->key);
    int bits = EVP_PKEY_get_security_bits(c->key);
    if (X509_check_private_key(c->leaf, c->key) != 1)
        return refuse(why, ERR_CONFLICT, key_file, "the key does not belong to the certificate in %s",
                      c->file);
    if (!is_for_tls(c->key))
        return refuse(why, ERR_RANGE, key_file,
                      "no client can use a key of this kind; make one of P-256, P-384, RSA or Ed25519");
    if (bits < SECURITY_BITS_MIN)
        return refuse(why, ERR_RANGE, key_file, "a key of %d bits is too weak; RSA needs 2048",
                      EVP_PKEY_get_bits(c->key));
    c->type = base == EVP_PKEY_EC ? TLS_KEY_EC : base == EVP_PKEY_RSA ? TLS_KEY_RSA : TLS_KEY_OTHER;
    return ERR_OK;
}

static uint64_t wall_ms_of(const ASN1_TIME *t)
{
    struct tm tm;
    time_t seconds = ASN1_TIME_to_tm(t, &tm) ? timegm(&tm) : 0;
    return seconds > 0 ? (uint64_t)seconds * 1000 : 0;
}

/* --- names ----------------------------------------------------------------------------------------- */

/* Only what can be a host name: a list of them is told apart by ", ". */
static bool is_name(struct span s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = ascii_lower(s.p[i]);
        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && !memchr("-._*", c, 4)) return false;
    }
    return s.n > 0;
}

static struct span dns_name(const GENERAL_NAMES *all, int i)
{
    const GENERAL_NAME *name = sk_GENERAL_NAME_value(all, i);
    if (name->type != GEN_DNS) return (struct span){0};
    struct span s = span_of((const char *)ASN1_STRING_get0_data(name->d.dNSName),
                            (size_t)ASN1_STRING_length(name->d.dNSName));
    return is_name(s) ? s : (struct span){0};
}

static char *list_names(X509 *leaf)
{
    GENERAL_NAMES *all = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);
    size_t cap = 1, n = 0;
    for (int i = 0; i < sk_GENERAL_NAME_num(all); i++)
        cap += dns_name(all, i).n + 2;
    char *text = malloc(cap);
    for (int i = 0; text && i < sk_GENERAL_NAME_num(all); i++) {
        struct span name = dns_name(all, i);
        if (name.n == 0) continue;
        if (n) memcpy(text + n, ", ", 2);
        if (n) n += 2;
        for (size_t k = 0; k < name.n; k++)
            text[n++] = ascii_lower(name.p[k]);
    }
    if (text) text[n] = '\0';
    GENERAL_NAMES_free(all);
    return text;
}

bool tls_certificate_name(struct span *names, struct span *name)
{
    if (names->n == 0) return false;
    const char *comma = memchr(names->p, ',', names->n);
    size_t n = comma ? (size_t)(comma - names->p) : names->n;
    size_t skip = comma ? n + 2 : n;
    *name = span_of(names->p, n);
    *names = span_of(names->p + skip, names->n - skip);
    return true;
}

static bool matches_wildcard(struct span pattern, struct span name)
{
    const char *dot = memchr(name.p, '.', name.n);
    if (!dot || dot == name.p || !span_starts(pattern, SPAN("*."))) return false;
    size_t first = (size_t)(dot - name.p);
    return span_eq(span_of(pattern.p + 1, pattern.n - 1), span_of(dot, name.n - first));
}

unsigned tls_certificate_covers(const struct tls_certificate *c, struct span name)
{
    struct span names = span_str(c->names), own;
    unsigned best = 0;
    while (best < 2 && tls_certificate_name(&names, &own)) {
        if (span_eq(own, name))
            best = 2;
        else if (matches_wildcard(own, name))
            best = 1;
    }
    return best;
}

/* --- life ------------------------------------------------------------------------------------------ */

static enum err load(const struct tls_certificate_files *files, const struct tls_warnings *w,
                     struct tls_certificate *c, struct errmsg *why)
{
    c->file = strdup(files->certificate);
    if (!c->file) return refuse(why, ERR_NOMEM, files->certificate, "no memory to read it");
    enum err e = read_certificates(files->certificate, &c->issuers, NULL, why);
    if (e) return e;
    if (sk_X509_num(c->issuers) > CHAIN_MAX)
        return refuse(why, ERR_PARSE, c->file, "it holds more than %d certificates", (int)CHAIN_MAX);
    c->leaf = sk_X509_shift(c->issuers);
    c->names = list_names(c->leaf);
    if (!c->names) return refuse(why, ERR_NOMEM, c->file, "no memory to read it");
    c->not_after_ms = wall_ms_of(X509_get0_notAfter(c->leaf));
    e = read_key(files->key, &c->key, why);
    if (!e) e = check_key(c, files->key, why);
    if (!e) e = check_times(c, files->in_force, w, why);
    return e ? e : check_chain(c, w, why);
}

enum err tls_certificate_load(const struct tls_certificate_files *files, const struct tls_warnings *warnings,
                              struct tls_certificate *out, struct errmsg *why)
{
    struct tls_certificate c = {0};
    enum err e = load(files, warnings, &c, why);
    if (e)
        tls_certificate_deinit(&c);
    else
        *out = c;
    return e;
}

void tls_certificate_deinit(struct tls_certificate *c)
{
    EVP_PKEY_free(c->key);
    X509_free(c->leaf);
    sk_X509_pop_free(c->issuers, X509_free);
    free(c->names);
    free(c->file);
    *c = (struct tls_certificate){0};
}

enum err tls_certificate_use(const struct tls_certificate *c, SSL_CTX *ctx, struct errmsg *why)
{
    ERR_clear_error();
    if (SSL_CTX_use_cert_and_key(ctx, c->leaf, c->key, c->issuers, 1) == 1) return ERR_OK;
    if (is_nomem()) return refuse(why, ERR_NOMEM, c->file, "no memory to use it");
    return refuse(why, ERR_RANGE, c->file, "OpenSSL refuses it: %s", openssl_text());
}

enum err tls_authorities_load(const char *file, SSL_CTX *ctx, STACK_OF(X509_NAME) * names, uint8_t digest[32],
                              struct errmsg *why)
{
    STACK_OF(X509) * list;
    enum err e = read_certificates(file, &list, digest, why);
    if (e) return e;
    for (int i = 0; !e && i < sk_X509_num(list); i++) {
        X509 *x = sk_X509_value(list, i);
        X509_NAME *name = names ? X509_NAME_dup(X509_get_subject_name(x)) : NULL;
        if (!X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), x) || (names && !name)) e = ERR_NOMEM;
        if (name && (e || sk_X509_NAME_push(names, name) <= 0)) {
            X509_NAME_free(name);
            e = ERR_NOMEM;
        }
    }
    sk_X509_pop_free(list, X509_free);
    return e ? refuse(why, e, file, "no memory to read it") : ERR_OK;
}
