#include "control/certificates.h"

#include "base/clock.h"
#include "net/tls_file.h"

#include <openssl/evp.h>

#include <stdio.h>

enum { DAY_MS = 24 * 60 * 60 * 1000 };

/* --- digests --------------------------------------------------------------------------------------- */

/* SHA-256 over parts, each behind its length. A failure shows at the end. */
struct sum {
    EVP_MD_CTX *md;
    bool failed;
};

static struct sum sum_begin(void)
{
    struct sum s = {.md = EVP_MD_CTX_new()};
    s.failed = !s.md || !EVP_DigestInit_ex(s.md, EVP_sha256(), NULL);
    return s;
}

static void sum_add(struct sum *s, const void *p, size_t n)
{
    uint64_t length = n;
    if (s->failed) return;
    s->failed = !EVP_DigestUpdate(s->md, &length, sizeof length) || !EVP_DigestUpdate(s->md, p, n);
}

static enum err sum_end(struct sum *s, uint8_t digest[static TLS_DIGEST_BYTES])
{
    bool ok = !s->failed && EVP_DigestFinal_ex(s->md, digest, NULL);
    EVP_MD_CTX_free(s->md);
    return ok ? ERR_OK : ERR_NOMEM;
}

/* Adds the name of a file and its content, or why it cannot be read (a secret that everybody may read
 * cannot). */
static void sum_add_file(struct sum *s, const char *file, bool is_secret)
{
    struct tls_file f = {0};
    struct errmsg why = {0};
    sum_add(s, file ? file : "", file ? strlen(file) : 0);
    if (!file) return;
    enum err e = tls_file_read(file, is_secret, &f, &why);
    sum_add(s, &e, sizeof e);
    sum_add(s, e ? why.text : f.p, e ? strlen(why.text) : f.n);
    tls_file_free(&f);
}

static enum err digest_listener(const struct config *c, const struct config_listener *l,
                                const struct tls_tickets *tickets, uint8_t digest[static TLS_DIGEST_BYTES])
{
    struct sum s = sum_begin();
    sum_add(&s, &tickets, sizeof tickets);
    sum_add(&s, &c->tls.minimum, sizeof c->tls.minimum);
    sum_add(&s, &c->tls.unknown_names, sizeof c->tls.unknown_names);
    sum_add(&s, &l->client_certificates, sizeof l->client_certificates);
    if (l->client_certificates != CLIENT_CERTIFICATES_OFF) sum_add_file(&s, l->client_ca_file, false);
    for (uint32_t i = 0; i < c->tls.ncertificates; i++) {
        sum_add_file(&s, c->tls.certificates[i].chain_file, false);
        sum_add_file(&s, c->tls.certificates[i].key_file, true);
    }
    return sum_end(&s, digest);
}

static void write_host(const struct config_environment *env, char out[static ENDPOINT_HOST_BYTES])
{
    const char *name = env->upstream.kind == ENDPOINT_NAME ? env->upstream.host : NULL;
    config_tls_host(&env->upstream_tls, name, &env->upstream.addr, out);
}

/* Includes the host: a session that was made for one host must not be resumed for another. */
static enum err digest_backend(const struct config_environment *env, uint8_t digest[static TLS_DIGEST_BYTES])
{
    const struct config_tls_client *t = &env->upstream_tls;
    char host[ENDPOINT_HOST_BYTES];
    struct sum s = sum_begin();
    write_host(env, host);
    sum_add(&s, host, strlen(host));
    sum_add_file(&s, t->ca_file, false);
    sum_add_file(&s, t->certificate_file, false);
    sum_add_file(&s, t->key_file, true);
    return sum_end(&s, digest);
}

enum err certificates_digest_present(const struct tls_contexts *t, uint8_t digest[static TLS_DIGEST_BYTES])
{
    struct sum s = sum_begin();
    for (uint32_t i = 0; i < CONFIG_LISTENERS_MAX; i++)
        if (t->listeners[i].server) sum_add(&s, t->listeners[i].digest, TLS_DIGEST_BYTES);
    for (unsigned e = 0; e < ENV_COUNT; e++)
        if (t->backends[e].client) sum_add(&s, t->backends[e].digest, TLS_DIGEST_BYTES);
    return sum_end(&s, digest);
}

enum err certificates_digest_files(const struct config *c, const struct tls_contexts *present,
                                   uint8_t digest[static TLS_DIGEST_BYTES])
{
    struct sum s = sum_begin();
    uint8_t one[TLS_DIGEST_BYTES];
    for (uint32_t i = 0; i < c->nlisteners; i++) {
        if (!c->listeners[i].tls) continue;
        s.failed |= digest_listener(c, &c->listeners[i], present->tickets, one) != ERR_OK;
        sum_add(&s, one, sizeof one);
    }
    for (unsigned e = 0; e < ENV_COUNT; e++) {
        if (!c->environments[e].present || !c->environments[e].upstream_tls.enabled) continue;
        s.failed |= digest_backend(&c->environments[e], one) != ERR_OK;
        sum_add(&s, one, sizeof one);
    }
    return sum_end(&s, digest);
}

/* --- warnings -------------------------------------------------------------------------------------- */

static void warn_of_expiry(const struct tls_certificate *x, const struct tls_warnings *w)
{
    struct errmsg m;
    uint64_t now_ms = clock_wall_ms();
    if (!w->fn || x->not_after_ms >= now_ms + (uint64_t)CERTIFICATE_WARN_DAYS * DAY_MS) return;
    unsigned days = x->not_after_ms > now_ms ? (unsigned)((x->not_after_ms - now_ms) / DAY_MS) : 0;
    if (x->not_after_ms <= now_ms)
        errmsg_set(&m, 0, 0, "%s: the certificate has expired; renew it, and do not restart before", x->file);
    else
        errmsg_set(&m, 0, 0, "%s: the certificate expires in %u day%s; renew it", x->file, days,
                   days == 1 ? "" : "s");
    w->fn(m.text, w->arg);
}

/* --- building -------------------------------------------------------------------------------------- */

struct build {
    const struct config *config;
    const struct tls_contexts *present; /* may be NULL */
    const struct tls_warnings *warnings;
    struct tls_contexts *out;
    struct errmsg *why;
};

static enum err fail_nomem(struct errmsg *why)
{
    errmsg_set(why, 0, 0, "out of memory");
    return ERR_NOMEM;
}

static bool is_same_file(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static enum err build_tickets(const struct build *b, uint64_t now_ms)
{
    const struct config_tls *tls = &b->config->tls;
    struct tls_tickets *present = b->present ? b->present->tickets : NULL;
    bool is_needed = false;
    for (uint32_t i = 0; i < b->config->nlisteners; i++)
        is_needed |= b->config->listeners[i].tls;
    if (!is_needed) return ERR_OK;
    if (present && tls_tickets_rotate_ms(present) == tls->ticket_rotation_ms &&
        is_same_file(tls_tickets_file(present), tls->ticket_keys_file)) {
        b->out->tickets = tls_tickets_ref(present);
        return ERR_OK;
    }
    return tls_tickets_create(tls->ticket_keys_file, tls->ticket_rotation_ms, now_ms, b->why,
                              &b->out->tickets);
}

/* All listeners have the same certificates: the warnings of the first one are enough. */
static bool is_first_server(const struct build *b)
{
    for (uint32_t i = 0; i < b->config->nlisteners; i++)
        if (b->out->listeners[i].server) return false;
    return true;
}

static const struct tls_certificate *certificate_at(const struct tls_contexts *t, unsigned context,
                                                    unsigned i)
{
    if (context < CONFIG_LISTENERS_MAX) {
        const struct tls_server *s = t->listeners[context].server;
        return s && i < tls_server_ncertificates(s) ? tls_server_certificate(s, i) : NULL;
    }
    const struct tls_client *client = t->backends[context - CONFIG_LISTENERS_MAX].client;
    return client && i == 0 ? tls_client_certificate(client) : NULL;
}

/* What the gateway shows so far from this file; NULL when it shows nothing. */
static const X509 *find_leaf(const struct build *b, const char *file)
{
    const struct tls_certificate *x;
    for (unsigned c = 0; b->present && file && c < CONFIG_LISTENERS_MAX + ENV_COUNT; c++)
        for (unsigned i = 0; (x = certificate_at(b->present, c, i)) != NULL; i++)
            if (strcmp(x->file, file) == 0) return x->leaf;
    return NULL;
}

static enum err create_server(const struct build *b, const struct config_listener *l, struct tls_server **out)
{
    static const enum tls_client_certificates modes[] = {
        [CLIENT_CERTIFICATES_OFF] = TLS_CLIENTS_OFF,
        [CLIENT_CERTIFICATES_OPTIONAL] = TLS_CLIENTS_OPTIONAL,
        [CLIENT_CERTIFICATES_REQUIRED] = TLS_CLIENTS_REQUIRED,
    };
    _Static_assert((int)CONFIG_CERTIFICATES_MAX <= (int)TLS_CERTIFICATES_MAX, "more than a server can have");
    const struct config_tls *tls = &b->config->tls;
    struct tls_certificate_files files[CONFIG_CERTIFICATES_MAX];
    for (uint32_t i = 0; i < tls->ncertificates; i++)
        files[i] = (struct tls_certificate_files){.certificate = tls->certificates[i].chain_file,
                                                  .key = tls->certificates[i].key_file,
                                                  .in_force = find_leaf(b, tls->certificates[i].chain_file)};
    const struct tls_server_settings settings = {
        .certificates = files,
        .ncertificates = tls->ncertificates,
        .only_1_3 = tls->minimum == TLS_MINIMUM_1_3,
        .refuse_unknown_names = tls->unknown_names == TLS_UNKNOWN_NAMES_REFUSE,
        .client_certificates = modes[l->client_certificates],
        .client_authorities = l->client_ca_file,
        .tickets = b->out->tickets,
    };
    static const struct tls_warnings none = {0};
    const struct tls_warnings *warnings = is_first_server(b) ? b->warnings : &none;
    enum err e = tls_server_create(&settings, warnings, b->why, out);
    for (unsigned i = 0; e == ERR_OK && i < tls_server_ncertificates(*out); i++)
        warn_of_expiry(tls_server_certificate(*out, i), warnings);
    return e;
}

/* The context with this digest; NULL when there is none. */
static struct tls_server *find_server(const struct tls_contexts *t, const uint8_t *digest)
{
    for (uint32_t i = 0; t && i < CONFIG_LISTENERS_MAX; i++)
        if (t->listeners[i].server && memcmp(t->listeners[i].digest, digest, TLS_DIGEST_BYTES) == 0)
            return t->listeners[i].server;
    return NULL;
}

static enum err build_listener(const struct build *b, uint32_t i)
{
    const struct config_listener *l = &b->config->listeners[i];
    struct tls_listener *to = &b->out->listeners[i];
    if (!l->tls) return ERR_OK;
    /* Digested before they are loaded: a file that changes in between will differ from its digest at the next
     * look. */
    if (digest_listener(b->config, l, b->out->tickets, to->digest)) return fail_nomem(b->why);
    struct tls_server *same = find_server(b->out, to->digest);
    if (!same) same = find_server(b->present, to->digest);
    if (!same) return create_server(b, l, &to->server);
    to->server = tls_server_ref(same);
    return ERR_OK;
}

static enum err build_backend(const struct build *b, unsigned e)
{
    const struct config_environment *env = &b->config->environments[e];
    const struct config_tls_client *tls = &env->upstream_tls;
    struct tls_backend *to = &b->out->backends[e];
    if (!env->present || !tls->enabled) return ERR_OK;
    write_host(env, to->host);
    if (digest_backend(env, to->digest)) return fail_nomem(b->why);
    const struct tls_backend *present = b->present ? &b->present->backends[e] : NULL;
    if (present && present->client && memcmp(present->digest, to->digest, TLS_DIGEST_BYTES) == 0) {
        to->client = tls_client_ref(present->client);
        return ERR_OK;
    }
    const struct tls_certificate_files files = {.certificate = tls->certificate_file,
                                                .key = tls->key_file,
                                                .in_force = find_leaf(b, tls->certificate_file)};
    const struct tls_client_settings settings = {.authorities = tls->ca_file,
                                                 .certificate = files.certificate ? &files : NULL};
    enum err r = tls_client_create(&settings, b->warnings, b->why, &to->client);
    if (r == ERR_OK && tls_client_certificate(to->client))
        warn_of_expiry(tls_client_certificate(to->client), b->warnings);
    return r;
}

enum err certificates_build(const struct config *c, const struct tls_contexts *present, uint64_t now_ms,
                            const struct tls_warnings *warnings, struct tls_contexts *out, struct errmsg *why)
{
    const struct build b = {c, present, warnings, out, why};
    *out = (struct tls_contexts){0};
    enum err e = build_tickets(&b, now_ms);
    for (uint32_t i = 0; e == ERR_OK && i < c->nlisteners; i++)
        e = build_listener(&b, i);
    for (unsigned i = 0; e == ERR_OK && i < ENV_COUNT; i++)
        e = build_backend(&b, i);
    if (e) tls_contexts_deinit(out);
    return e;
}

/* --- check ----------------------------------------------------------------------------------------- */

struct check {
    FILE *report;
    const char *path;
};

static void print_warning(const char *text, void *arg)
{
    const struct check *check = arg;
    (void)fprintf(check->report, "%s: warning: %s\n", check->path, text); /* nobody to tell when it fails */
}

enum err certificates_check(const struct config *c, FILE *report)
{
    struct check check = {report, c->path};
    const struct tls_warnings warnings = {print_warning, &check};
    struct tls_contexts contexts;
    struct errmsg why;
    enum err e = certificates_build(c, NULL, clock_mono_us() / 1000, &warnings, &contexts, &why);
    if (e)
        (void)fprintf(report, "%s: error: %s\n", c->path, why.text); /* as above */
    else
        tls_contexts_deinit(&contexts);
    return e;
}

/* --- lists ----------------------------------------------------------------------------------------- */

static bool is_listed_before(const struct tls_contexts *t, unsigned context, unsigned n, const char *file)
{
    const struct tls_certificate *x;
    for (unsigned c = 0; c <= context; c++)
        for (unsigned i = 0; (c < context || i < n) && (x = certificate_at(t, c, i)) != NULL; i++)
            if (strcmp(x->file, file) == 0) return true;
    return false;
}

void certificates_each(const struct tls_contexts *t,
                       void (*fn)(const struct tls_certificate *certificate, void *arg), void *arg)
{
    const struct tls_certificate *x;
    for (unsigned c = 0; c < CONFIG_LISTENERS_MAX + ENV_COUNT; c++)
        for (unsigned i = 0; (x = certificate_at(t, c, i)) != NULL; i++)
            if (!is_listed_before(t, c, i, x->file)) fn(x, arg);
}

void certificates_each_file(const struct config *c, void (*fn)(const char *file, void *arg), void *arg)
{
    bool has_listener = false;
    for (uint32_t i = 0; i < c->nlisteners; i++) {
        const struct config_listener *l = &c->listeners[i];
        has_listener |= l->tls;
        if (l->tls && l->client_ca_file) fn(l->client_ca_file, arg);
    }
    for (uint32_t i = 0; has_listener && i < c->tls.ncertificates; i++) {
        fn(c->tls.certificates[i].chain_file, arg);
        fn(c->tls.certificates[i].key_file, arg);
    }
    if (has_listener && c->tls.ticket_keys_file) fn(c->tls.ticket_keys_file, arg);
    for (unsigned e = 0; e < ENV_COUNT; e++) {
        const struct config_tls_client *t = &c->environments[e].upstream_tls;
        const char *const files[] = {t->ca_file, t->certificate_file, t->key_file};
        if (!c->environments[e].present || !t->enabled) continue;
        for (unsigned i = 0; i < sizeof files / sizeof files[0]; i++)
            if (files[i]) fn(files[i], arg);
    }
}
