/* What makes a certificate, a key or a list of authorities bad, and that it is said with the file's name. */
#include "helper_certs.h"
#include "net/tls_client.h"
#include "net/tls_file.h"
#include "net/tls_server.h"

#include <openssl/pem.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct heard {
    unsigned n;
    char text[256];
};

static void on_warning(const char *text, void *arg)
{
    struct heard *h = arg;
    h->n++;
    snprintf(h->text, sizeof h->text, "%s", text);
}

static enum err create(const struct tls_certificate_files *f, struct heard *heard, struct errmsg *why)
{
    struct tls_server *s = NULL;
    const struct tls_warnings warnings = {on_warning, heard};
    const struct tls_server_settings o = {.certificates = f, .ncertificates = 1};
    *heard = (struct heard){0};
    *why = (struct errmsg){0};
    enum err e = tls_server_create(&o, &warnings, why, &s);
    assert_int_equal(e == ERR_OK, s != NULL);
    tls_server_unref(s);
    return e;
}

static void check_bad(const struct tls_certificate_files *f, enum err e, const char *file, const char *says)
{
    struct heard heard;
    struct errmsg why;
    assert_int_equal(create(f, &heard, &why), e);
    if (!strstr(why.text, file) || !strstr(why.text, says)) print_error("%s\n", why.text);
    assert_non_null(strstr(why.text, file));
    assert_non_null(strstr(why.text, says));
}

static void a_good_one_is_described(void **state)
{
    (void)state;
    struct tls_certificate_files f = certs_files();
    struct errmsg why;
    struct tls_server *s;
    const struct tls_server_settings o = {.certificates = &f, .ncertificates = 1};
    assert_int_equal(tls_server_create(&o, NULL, &why, &s), ERR_OK);
    assert_int_equal(tls_server_ncertificates(s), 1);
    const struct tls_certificate *c = tls_server_certificate(s, 0);
    assert_string_equal(c->file, f.certificate);
    assert_string_equal(c->names, "api.example, localhost");
    uint64_t tomorrow = ((uint64_t)time(NULL) + DAY_S) * 1000;
    assert_in_range(c->not_after_ms, tomorrow - 60000, tomorrow);
    tls_server_unref(tls_server_ref(s));
    tls_server_unref(s);
    tls_server_unref(NULL);
}

static void files_that_cannot_be_read(void **state)
{
    (void)state;
    struct tls_certificate_files good = certs_files(), f = good;
    f.certificate = certs_path("missing.pem");
    check_bad(&f, ERR_NOT_FOUND, "missing.pem", "No such file");
    f.certificate = "/tmp";
    check_bad(&f, ERR_IO, "/tmp", "no regular file");
    f.certificate = certs_path("empty.pem");
    certs_write_text(f.certificate, "", 0600);
    check_bad(&f, ERR_PARSE, "empty.pem", "holds no certificate");
    certs_write_text(f.certificate, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 0600);
    check_bad(&f, ERR_PARSE, "empty.pem", "certificate 1 cannot be read");
    assert_int_equal(truncate(f.certificate, TLS_FILE_BYTES_MAX + 1), 0);
    check_bad(&f, ERR_LIMIT, "empty.pem", "larger than 1 MiB");
    assert_int_equal(truncate(f.certificate, TLS_FILE_BYTES_MAX), 0);
    check_bad(&f, ERR_PARSE, "empty.pem", "certificate 1 cannot be read");
    f = good;
    f.key = certs_path("missing.key");
    check_bad(&f, ERR_NOT_FOUND, "missing.key", "No such file");
    f.key = good.certificate;
    certs_write_text(certs_path("no.key"), "nothing\n", 0600);
    f.key = certs_path("no.key");
    check_bad(&f, ERR_PARSE, "no.key", "no private key");
}

static void bad_keys(void **state)
{
    (void)state;
    struct pair a = certs_make(&(struct leaf){.names = "DNS:a"}),
                b = certs_make(&(struct leaf){.names = "DNS:b"});
    struct pair weak = certs_make(&(struct leaf){.names = "DNS:c", .rsa_bits = 1024});
    struct tls_certificate_files fa = certs_write("ka", &a, NULL), fb = certs_write("kb", &b, NULL), f;
    f = (struct tls_certificate_files){.certificate = fa.certificate, .key = fb.key};
    check_bad(&f, ERR_CONFLICT, "kb.key", "ka.pem");
    assert_int_equal(chmod(fa.key, 0644), 0);
    check_bad(&fa, ERR_REFUSED, "ka.key", "chmod 640");
    FILE *out = fopen(fa.key, "w");
    assert_int_equal(PEM_write_PKCS8PrivateKey(out, a.key, EVP_aes_256_cbc(), "pw", 2, NULL, NULL), 1);
    fclose(out);
    assert_int_equal(chmod(fa.key, 0600), 0);
    check_bad(&fa, ERR_PARSE, "ka.key", "encrypted");
    f = certs_write("weak", &weak, NULL);
    check_bad(&f, ERR_RANGE, "weak.key", "1024 bits");
    pair_free(&a);
    pair_free(&b);
    pair_free(&weak);
}

/* No client that we would agree with on anything else could use them. */
static void keys_that_nobody_can_use(void **state)
{
    static const struct {
        const char *curve;
        bool good;
    } cases[] = {{"P-256", true},  {"P-384", true},      {"P-521", true},
                 {"P-224", false}, {"secp256k1", false}, {"brainpoolP256r1", false}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct heard heard;
        struct errmsg why;
        struct pair p = certs_make(&(struct leaf){.names = "DNS:a", .curve = cases[i].curve});
        struct tls_certificate_files f = certs_write("kind", &p, NULL);
        if (cases[i].good)
            assert_int_equal(create(&f, &heard, &why), ERR_OK);
        else
            check_bad(&f, ERR_RANGE, "kind.key", "no client can use a key of this kind");
        pair_free(&p);
    }
}

static void bad_times(void **state)
{
    (void)state;
    struct pair old = certs_make(&(struct leaf){.names = "DNS:a", .from_s = -9 * DAY_S, .to_s = -DAY_S});
    struct pair young = certs_make(&(struct leaf){.names = "DNS:a", .from_s = DAY_S, .to_s = 9 * DAY_S});
    struct tls_certificate_files f = certs_write("old", &old, NULL);
    check_bad(&f, ERR_RANGE, "old.pem", "expired on 20");
    f = certs_write("young", &young, NULL);
    check_bad(&f, ERR_RANGE, "young.pem", "not valid before 20");
    pair_free(&old);
    pair_free(&young);
}

static void chains(void **state)
{
    (void)state;
    struct heard heard;
    struct errmsg why;
    struct pair leaf = certs_make(&(struct leaf){.names = "DNS:a", .by = certs_authority()});
    struct pair other = certs_make(&(struct leaf){0}), self = certs_make(&(struct leaf){.names = "DNS:a"});
    struct pair late = certs_make(&(struct leaf){.from_s = -9 * DAY_S, .to_s = -DAY_S});
    struct pair under = certs_make(&(struct leaf){.names = "DNS:a", .by = &late});
    struct tls_certificate_files f = certs_write("whole", &leaf, certs_authority());
    assert_int_equal(create(&f, &heard, &why), ERR_OK);
    assert_int_equal(heard.n, 0);
    f = certs_write("self", &self, NULL);
    assert_int_equal(create(&f, &heard, &why), ERR_OK);
    assert_int_equal(heard.n, 0);
    f = certs_write("alone", &leaf, NULL);
    assert_int_equal(create(&f, &heard, &why), ERR_OK);
    assert_int_equal(heard.n, 1);
    assert_non_null(strstr(heard.text, "alone.pem: it holds the leaf only"));
    f = certs_write("late", &under, &late);
    assert_int_equal(create(&f, &heard, &why), ERR_OK);
    assert_non_null(strstr(heard.text, "late.pem: an issuer in it has expired"));
    f = certs_write("mixed", &leaf, &other);
    check_bad(&f, ERR_PARSE, "mixed.pem", "certificate 2 did not issue certificate 1");
    struct pair *all[] = {&leaf, &other, &self, &late, &under};
    for (size_t i = 0; i < 5; i++)
        pair_free(all[i]);
}

static void names_cover_one_label(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        unsigned covers;
    } cases[] = {{"a.example", 2},  {"x.b.example", 1}, {"xx.b.example", 1},
                 {"b.example", 0},  {".b.example", 0},  {"y.x.b.example", 0},
                 {"", 0},           {"example", 0},     {"a.example.", 0},
                 {"*.b.example", 2}};
    char names[] = "a.example, *.b.example, *";
    const struct tls_certificate c = {.names = names};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(tls_certificate_covers(&c, span_str(cases[i].name)), cases[i].covers);
}

static void authorities(void **state)
{
    (void)state;
    struct tls_certificate_files f = certs_files();
    struct errmsg why = {0};
    struct tls_server *s;
    struct tls_client *c;
    struct tls_server_settings o = {.certificates = &f,
                                    .ncertificates = 1,
                                    .client_certificates = TLS_CLIENTS_REQUIRED,
                                    .client_authorities = certs_path("none.pem")};
    assert_int_equal(tls_server_create(&o, NULL, &why, &s), ERR_NOT_FOUND);
    assert_non_null(strstr(why.text, "none.pem"));
    struct tls_client_settings co = {.authorities = f.key};
    assert_int_equal(tls_client_create(&co, NULL, &why, &c), ERR_PARSE);
    assert_non_null(strstr(why.text, "holds no certificate"));
    co = (struct tls_client_settings){.certificate = &f, .only_1_3 = true};
    assert_int_equal(tls_client_create(&co, NULL, &why, &c), ERR_OK); /* the system's */
    assert_string_equal(tls_client_certificate(c)->names, "api.example, localhost");
    tls_client_unref(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_one_is_described),
        cmocka_unit_test(files_that_cannot_be_read),
        cmocka_unit_test(bad_keys),
        cmocka_unit_test(keys_that_nobody_can_use),
        cmocka_unit_test(bad_times),
        cmocka_unit_test(chains),
        cmocka_unit_test(names_cover_one_label),
        cmocka_unit_test(authorities),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
