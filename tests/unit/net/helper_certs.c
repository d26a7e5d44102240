#include "helper_certs.h"

#include <dirent.h>
#include <fcntl.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/proofgw-certs-XXXXXX";
static struct pair authority, leaf;
static pid_t owner;

static void remove_folder(void)
{
    DIR *d = getpid() == owner ? opendir(folder) : NULL;
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.') (void)unlinkat(dirfd(d), e->d_name, 0);
    if (d) (void)closedir(d);
    if (d) (void)rmdir(folder);
    pair_free(&authority);
    pair_free(&leaf);
}

const char *certs_path(const char *name)
{
    static char paths[4][PATH_BYTES];
    static unsigned next;
    if (!owner) {
        assert_non_null(mkdtemp(folder));
        owner = getpid();
        assert_int_equal(atexit(remove_folder), 0);
    }
    char *path = paths[next++ % 4];
    assert_true(snprintf(path, PATH_BYTES, "%s/%s", folder, name) < PATH_BYTES);
    return path;
}

static void add_extension(X509 *x, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
    X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    assert_non_null(ext);
    assert_int_equal(X509_add_ext(x, ext, -1), 1);
    X509_EXTENSION_free(ext);
}

struct pair certs_make(const struct leaf *l)
{
    static long serial;
    char common_name[32];
    struct pair p = {.x = X509_new()};
    p.key = l->rsa_bits ? EVP_RSA_gen(l->rsa_bits) : EVP_EC_gen(l->curve ? l->curve : "P-256");
    assert_non_null(p.key);
    const struct pair *by = l->by ? l->by : &p;
    bool has_times = l->from_s || l->to_s;
    snprintf(common_name, sizeof common_name, "test %ld", ++serial);
    assert_int_equal(X509_set_version(p.x, 2), 1);
    assert_int_equal(ASN1_INTEGER_set(X509_get_serialNumber(p.x), serial), 1);
    assert_non_null(X509_gmtime_adj(X509_getm_notBefore(p.x), has_times ? l->from_s : -DAY_S));
    assert_non_null(X509_gmtime_adj(X509_getm_notAfter(p.x), has_times ? l->to_s : DAY_S));
    assert_int_equal(X509_set_pubkey(p.x, p.key), 1);
    assert_int_equal(X509_NAME_add_entry_by_txt(X509_get_subject_name(p.x), "CN", MBSTRING_ASC,
                                                (const unsigned char *)common_name, -1, -1, 0),
                     1);
    assert_int_equal(X509_set_issuer_name(p.x, X509_get_subject_name(by->x)), 1);
    add_extension(p.x, by->x, NID_subject_key_identifier, "hash");
    if (by != &p) add_extension(p.x, by->x, NID_authority_key_identifier, "keyid");
    if (l->names && l->names[0]) add_extension(p.x, by->x, NID_subject_alt_name, l->names);
    add_extension(p.x, by->x, NID_basic_constraints, l->names ? "CA:FALSE" : "critical,CA:TRUE");
    assert_true(X509_sign(p.x, by->key, EVP_sha256()) > 0);
    return p;
}

void pair_free(struct pair *p)
{
    X509_free(p->x);
    EVP_PKEY_free(p->key);
    *p = (struct pair){0};
}

struct tls_certificate_files certs_write(const char *name, const struct pair *first,
                                         const struct pair *second)
{
    char file[64];
    snprintf(file, sizeof file, "%s.pem", name);
    struct tls_certificate_files f = {.certificate = certs_path(file)};
    FILE *out = fopen(f.certificate, "w");
    assert_non_null(out);
    assert_int_equal(PEM_write_X509(out, first->x), 1);
    if (second) assert_int_equal(PEM_write_X509(out, second->x), 1);
    fclose(out);
    snprintf(file, sizeof file, "%s.key", name);
    f.key = certs_path(file);
    out = fopen(f.key, "w");
    assert_non_null(out);
    assert_int_equal(PEM_write_PrivateKey(out, first->key, NULL, NULL, 0, NULL, NULL), 1);
    fclose(out);
    assert_int_equal(chmod(f.key, 0600), 0);
    return f;
}

void certs_write_text(const char *path, const char *text, unsigned mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

const struct pair *certs_authority(void)
{
    if (!authority.x) authority = certs_make(&(struct leaf){0});
    return &authority;
}

const char *certs_authority_file(void)
{
    static char path[PATH_BYTES];
    if (!path[0]) memcpy(path, certs_write("authority", certs_authority(), NULL).certificate, PATH_BYTES);
    return path;
}

struct tls_certificate_files certs_files(void)
{
    static char paths[2][PATH_BYTES];
    if (!leaf.x) {
        leaf = certs_make(
            &(struct leaf){.names = "DNS:api.example,DNS:localhost,IP:127.0.0.1", .by = certs_authority()});
        struct tls_certificate_files f = certs_write("leaf", &leaf, certs_authority());
        memcpy(paths[0], f.certificate, PATH_BYTES);
        memcpy(paths[1], f.key, PATH_BYTES);
    }
    return (struct tls_certificate_files){.certificate = paths[0], .key = paths[1]};
}
