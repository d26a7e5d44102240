/* The server's side of TLS is fed anything: mutated handshakes, garbage, records after the handshake. It must
 * neither crash, nor leave bytes untaken, nor speak before it was spoken to; and how the bytes are cut must
 * not matter for whether it ends in a failure.
 *
 * Input: mode, seed for the cuts (a byte each), then bytes. Mode & 1: a real client shakes hands first, and
 * the bytes come as records after it. Mode & 2: the bytes are xored over the client's first flight instead of
 * replacing it. */
#include "net/loop.h"
#include "net/tls.h"
#include "net/tls_server.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static struct loop loop;
static struct tls_server *server;
static SSL_CTX *client_ctx;

static void write_pair(const char *certificate, const char *key)
{
    EVP_PKEY *pkey = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    BUG_IF(!pkey || !x, "no certificate");
    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    X509_gmtime_adj(X509_getm_notBefore(x), -3600);
    X509_gmtime_adj(X509_getm_notAfter(x), 360000);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC, (const unsigned char *)"fuzz",
                               -1, -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(x));
    X509_set_pubkey(x, pkey);
    BUG_IF(!X509_sign(x, pkey, EVP_sha256()), "no signature");
    FILE *f = fopen(certificate, "w");
    BUG_IF(!f || !PEM_write_X509(f, x) || fclose(f), "no file");
    f = fopen(key, "w");
    BUG_IF(!f || !PEM_write_PrivateKey(f, pkey, NULL, NULL, 0, NULL, NULL) || fclose(f) || chmod(key, 0600),
           "no file");
    X509_free(x);
    EVP_PKEY_free(pkey);
}

static void prepare(void)
{
    char folder[] = "/tmp/fuzz-tls-XXXXXX", certificate[64], key[64];
    struct errmsg why;
    BUG_IF(!mkdtemp(folder) || loop_init(&loop, 65536, NULL), "no folder, no loop");
    snprintf(certificate, sizeof certificate, "%s/c.pem", folder);
    snprintf(key, sizeof key, "%s/k.pem", folder);
    write_pair(certificate, key);
    const struct tls_certificate_files files = {.certificate = certificate, .key = key};
    const struct tls_server_settings o = {.certificates = &files,
                                          .ncertificates = 1,
                                          .client_certificates = TLS_CLIENTS_OPTIONAL,
                                          .client_authorities = certificate};
    BUG_IF(tls_server_create(&o, NULL, &why, &server), "no server");
    unlink(certificate);
    unlink(key);
    rmdir(folder);
    client_ctx = SSL_CTX_new(TLS_client_method());
    BUG_IF(!client_ctx, "no client");
}

/* Feeds in pieces chosen by `seed`; what the server says goes to `to` (or nowhere). Returns how it ended. */
static enum err feed(struct tls *t, const char *p, size_t n, unsigned seed, BIO *to)
{
    struct tls_result r = {.end = ERR_OK};
    while (n && !r.end) {
        seed = seed * 1103515245 + 12345;
        size_t piece = 1 + (seed >> 16) % (seed & 0x8000 ? 7 : 4096);
        if (piece > n) piece = n;
        tls_feed(t, p, piece, &r);
        BUG_IF(r.secured && !tls_describe(t, &(struct tls_info){0}), "secured, but nothing to tell");
        BUG_IF(r.end && r.end != ERR_EOF && !tls_reason(t), "a failure without a reason");
        if (to && r.out.n) BIO_write(to, r.out.p, (int)r.out.n);
        p += piece;
        n -= piece;
    }
    return r.end;
}

static SSL *new_client(void)
{
    SSL *ssl = SSL_new(client_ctx);
    BUG_IF(!ssl, "no client");
    SSL_set_bio(ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_connect_state(ssl);
    (void)SSL_do_handshake(ssl);
    return ssl;
}

/* Carries the client's bytes over, with `mask` xored on. */
static enum err carry(struct tls *t, SSL *client, const uint8_t *mask, size_t n, unsigned seed)
{
    char *bytes;
    long got = BIO_get_mem_data(SSL_get_wbio(client), &bytes);
    for (long i = 0; i < got && (size_t)i < n; i++)
        bytes[i] = (char)(bytes[i] ^ (char)mask[i]);
    enum err e = feed(t, bytes, (size_t)got, seed, SSL_get_rbio(client));
    (void)BIO_reset(SSL_get_wbio(client));
    return e;
}

static void answer(struct tls *t)
{
    char text[] = "HTTP/1.1 200 OK\r\n\r\n";
    struct iovec iov = {text, sizeof text - 1};
    struct tls_source from = {&iov, 1};
    struct span out;
    BUG_IF(tls_seal(t, &from, &out) == ERR_OK && out.n <= sizeof text, "sealed to nothing");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tls *t;
    struct tls_info info;
    if (!server) prepare();
    if (size < 2) return 0;
    unsigned mode = data[0], seed = data[1] + 1U;
    const uint8_t *p = data + 2;
    size_t n = size - 2;
    if (tls_accept(&loop, server, &t)) return 0;
    SSL *client = mode & 3 ? new_client() : NULL;
    enum err e = client ? carry(t, client, p, mode & 2 ? n : 0, seed) : ERR_OK;
    if (!e && client && !(mode & 2)) {
        if (SSL_do_handshake(client) == 1) e = carry(t, client, NULL, 0, seed);
        BUG_IF(e || !tls_describe(t, &info), "an honest client is refused");
        answer(t);
    }
    if (!e && !(mode & 2)) (void)feed(t, (const char *)p, n, seed, NULL);
    (void)tls_finish(t);
    SSL_free(client);
    tls_destroy(t);
    return 0;
}
