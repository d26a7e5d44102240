/* What the server's side of TLS decides: protocol, certificate, whose certificate it asks for, and which
 * sessions resume. */
#include "helper_link.h"

#include "net/tls.h"

#include <openssl/err.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void alpn_must_offer_what_we_speak(void **state)
{
    static const struct {
        const char *offer, *chosen; /* NULL: refused */
    } cases[] = {
        {"\x08http/1.1", "http/1.1"},
        {"\x02h2\x08http/1.1", "http/1.1"},
        {"\x08http/1.0", "http/1.0"},
        {"\x08http/1.0\x08http/1.1", "http/1.1"},
        {"\x02h2", NULL},
        {"\x08http/0.9", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const unsigned char *chosen;
        unsigned n;
        struct link l = link_new(state, NULL, NULL);
        SSL_set_alpn_protos(l.p->ssl, (const unsigned char *)cases[i].offer,
                            (unsigned)strlen(cases[i].offer));
        assert_int_equal(peer_shake(l.t, l.p), cases[i].chosen != NULL);
        if (cases[i].chosen) {
            SSL_get0_alpn_selected(l.p->ssl, &chosen, &n);
            assert_int_equal(n, strlen(cases[i].chosen));
            assert_memory_equal(chosen, cases[i].chosen, n);
        } else {
            link_refused(&l, ERR_TLS);
            assert_int_equal(ERR_GET_REASON(ERR_peek_last_error()),
                             SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL);
        }
        link_free(&l);
    }
}

/* The common name of the certificate that a client with this SNI gets; "" when it is refused. `rsa`: it knows
 * RSA only. */
static void check_served(void **state, const struct tls_server_settings *o, const char *host, bool rsa,
                         const struct pair *expected)
{
    struct link l = {.t = *state, .server = test_server(o)};
    int fd;
    l.u = user_serve(l.t, l.server, &fd);
    l.p = peer_create(peer_client_ctx(), fd, host);
    if (rsa) assert_int_equal(SSL_set1_sigalgs_list(l.p->ssl, "rsa_pss_rsae_sha256"), 1);
    assert_int_equal(peer_shake(l.t, l.p), expected != NULL);
    if (expected) assert_int_equal(X509_cmp(SSL_get0_peer_certificate(l.p->ssl), expected->x), 0);
    if (!expected && !rsa)
        assert_int_equal(ERR_GET_REASON(ERR_peek_last_error()), SSL_R_TLSV1_UNRECOGNIZED_NAME);
    link_free(&l);
}

static void the_certificate_is_chosen_by_name_and_key_type(void **state)
{
    const struct pair *ca = certs_authority();
    struct pair a = certs_make(&(struct leaf){.names = "DNS:a.example,DNS:www.a.example", .by = ca});
    struct pair a_rsa = certs_make(&(struct leaf){.names = "DNS:a.example", .by = ca, .rsa_bits = 2048});
    struct pair wild = certs_make(&(struct leaf){.names = "DNS:*.b.example", .by = ca});
    struct pair exact = certs_make(&(struct leaf){.names = "DNS:x.b.example", .by = ca});
    char paths[8][PATH_BYTES];
    struct tls_certificate_files files[4];
    const struct pair *pairs[] = {&a, &a_rsa, &wild, &exact};
    static const char *const names[] = {"a", "a_rsa", "wild", "exact"};
    for (size_t i = 0; i < 4; i++) {
        files[i] = certs_write(names[i], pairs[i], NULL);
        memcpy(paths[2 * i], files[i].certificate, PATH_BYTES);
        memcpy(paths[2 * i + 1], files[i].key, PATH_BYTES);
        files[i] = (struct tls_certificate_files){.certificate = paths[2 * i], .key = paths[2 * i + 1]};
    }
    struct tls_server_settings o = {.certificates = files, .ncertificates = 4};
    check_served(state, &o, "a.example", false, &a);
    check_served(state, &o, "A.Example", false, &a);
    check_served(state, &o, "a.example", true, &a_rsa);
    check_served(state, &o, "www.a.example", false, &a);
    check_served(state, &o, "www.a.example", true, NULL); /* only the other certificate has that name */
    check_served(state, &o, "y.b.example", false, &wild);
    check_served(state, &o, "x.b.example", false, &exact);
    check_served(state, &o, "z.y.b.example", false, &a); /* a wildcard is one label */
    check_served(state, &o, "b.example", false, &a);
    check_served(state, &o, NULL, false, &a);
    check_served(state, &o, NULL, true, &a_rsa);
    o.refuse_unknown_names = true;
    check_served(state, &o, "b.example", false, NULL);
    check_served(state, &o, "nobody", false, NULL);
    check_served(state, &o, "x.b.example", false, &exact);
    check_served(state, &o, NULL, false, &a);
    for (size_t i = 0; i < 4; i++)
        pair_free((struct pair *)(uintptr_t)pairs[i]);
}

static void client_certificates_are_asked_for_and_checked(void **state)
{
    struct pair good = certs_make(&(struct leaf){.names = "DNS:partner", .by = certs_authority()});
    struct pair bad = certs_make(&(struct leaf){.names = "DNS:partner"});
    static const enum tls_client_certificates modes[] = {TLS_CLIENTS_OFF, TLS_CLIENTS_OPTIONAL,
                                                         TLS_CLIENTS_REQUIRED};
    for (size_t m = 0; m < 3; m++)
        for (int shown = 0; shown < 3; shown++) {
            const struct pair *pair = shown == 1 ? &good : shown == 2 ? &bad : NULL;
            bool expected = m == 0 || shown == 1 || (m == 1 && shown == 0);
            struct tls_server_settings o = {.client_certificates = modes[m],
                                            .client_authorities = certs_authority_file()};
            struct link l = link_new(state, &o, NULL);
            struct tls_info info;
            if (pair) assert_int_equal(SSL_use_cert_and_key(l.p->ssl, pair->x, pair->key, NULL, 1), 1);
            (void)peer_shake(l.t, l.p); /* in TLS 1.3 the client is done before the server judges */
            RUN_UNTIL(l.t, l.u->connected || l.u->failures);
            assert_int_equal(l.u->connected, expected);
            if (expected) {
                uint8_t print[32], shown_print[32];
                assert_true(stream_tls_info(&l.u->stream, &info));
                assert_int_equal(info.has_certificate, m > 0 && shown == 1);
                assert_int_equal(X509_digest(good.x, EVP_sha256(), print, NULL), 1);
                assert_int_equal(stream_tls_fingerprint(&l.u->stream, shown_print), info.has_certificate);
                if (info.has_certificate) assert_memory_equal(shown_print, print, 32);
            } else {
                assert_int_equal(l.u->failure, ERR_TLS);
            }
            link_free(&l);
        }
    pair_free(&good);
    pair_free(&bad);
}

/* --- tickets --------------------------------------------------------------------------------------- */

/* Connects with the session of before, if any, shows `shown`, if any, and takes the new session. */
static struct tls_info reconnect(void **state, const struct tls_server_settings *o, int version,
                                 const struct pair *shown, SSL_SESSION **session)
{
    struct tls_info info;
    char got[4];
    SSL_CTX *ctx = peer_client_ctx();
    SSL_CTX_set_max_proto_version(ctx, version);
    struct link l = link_new(state, o, ctx); /* a new context each time, as after a reload */
    if (shown) assert_int_equal(SSL_use_cert_and_key(l.p->ssl, shown->x, shown->key, NULL, 1), 1);
    if (*session) assert_int_equal(SSL_set_session(l.p->ssl, *session), 1);
    assert_true(peer_shake(l.t, l.p));
    RUN_UNTIL(l.t, l.u->connected);
    assert_true(stream_tls_info(&l.u->stream, &info));
    assert_int_equal(info.resumed, SSL_session_reused(l.p->ssl));
    assert_int_equal(user_write(l.u, "hi", 2), ERR_OK);
    assert_int_equal(peer_read(l.t, l.p, got, 2), 2);
    if (version == TLS1_3_VERSION)
        assert_int_equal(l.p->nsessions, 1); /* one ticket, with a resumed session too */
    SSL_SESSION_free(*session);
    *session = SSL_get1_session(l.p->ssl);
    SSL_shutdown(l.p->ssl);
    RUN_UNTIL(l.t, (peer_carry(l.t, l.p), l.u->eofs));
    link_free(&l);
    return info;
}

static bool connect_resumes(void **state, struct tls_tickets *tickets, int version, SSL_SESSION **session)
{
    return reconnect(state, &(struct tls_server_settings){.tickets = tickets}, version, NULL, session)
        .resumed;
}

static void sessions_resume_across_one_rotation(void **state)
{
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        struct tls_tickets *tickets;
        struct errmsg why;
        bool changed;
        SSL_SESSION *session = NULL, *old;
        assert_int_equal(tls_tickets_create(NULL, ROTATE_MS, 1000, &why, &tickets), ERR_OK);
        assert_false(connect_resumes(state, tickets, version, &session));
        assert_true(connect_resumes(state, tickets, version, &session));
        old = session;
        SSL_SESSION_up_ref(old);
        assert_int_equal(tls_tickets_refresh(tickets, 1000 + ROTATE_MS, &changed, &why), ERR_OK);
        assert_true(changed);
        assert_true(connect_resumes(state, tickets, version, &session));
        assert_int_equal(tls_tickets_refresh(tickets, 1000 + 2ULL * ROTATE_MS, &changed, &why), ERR_OK);
        assert_true(changed);
        assert_true(
            connect_resumes(state, tickets, version, &session)); /* the ticket was renewed in between */
        assert_false(connect_resumes(state, tickets, version, &old));
        SSL_SESSION_free(session);
        SSL_SESSION_free(old);
        tls_tickets_unref(tickets);
    }
}

static struct tls_server_settings asking_for_certificates(struct tls_tickets *tickets,
                                                          enum tls_client_certificates mode)
{
    return (struct tls_server_settings){
        .tickets = tickets, .client_certificates = mode, .client_authorities = certs_authority_file()};
}

static bool shows_or_resumes(void **state, struct tls_tickets *tickets, int version, const struct pair *shown,
                             SSL_SESSION **session)
{
    struct tls_server_settings o = asking_for_certificates(tickets, TLS_CLIENTS_OPTIONAL);
    return reconnect(state, &o, version, shown, session).has_certificate;
}

/* A session stands for a certificate that was checked; it must not stand for it longer than that is valid. */
static void a_session_does_not_outlive_its_client_certificate(void **state)
{
    struct pair brief = certs_make(
        &(struct leaf){.names = "DNS:partner", .by = certs_authority(), .from_s = -DAY_S, .to_s = 2});
    SSL_SESSION *sessions[2] = {NULL, NULL};
    struct tls_tickets *tickets;
    struct errmsg why;
    assert_int_equal(tls_tickets_create(NULL, ROTATE_MS, 1000, &why, &tickets), ERR_OK);
    for (int i = 0; i < 2; i++) {
        assert_true(shows_or_resumes(state, tickets, TLS1_2_VERSION + i, &brief, &sessions[i]));
        assert_true(shows_or_resumes(state, tickets, TLS1_2_VERSION + i, NULL, &sessions[i]));
    }
    while (X509_cmp_current_time(X509_get0_notAfter(brief.x)) > 0)
        (void)poll(NULL, 0, 10);
    for (int i = 0; i < 2; i++) {
        assert_false(shows_or_resumes(state, tickets, TLS1_2_VERSION + i, NULL, &sessions[i]));
        SSL_SESSION_free(sessions[i]);
    }
    tls_tickets_unref(tickets);
    pair_free(&brief);
}

/* A session without a certificate, of the time when none was needed, is no way around the need for one. */
static void a_session_does_not_outlive_the_rules_for_certificates(void **state)
{
    struct pair good = certs_make(&(struct leaf){.names = "DNS:partner", .by = certs_authority()});
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        struct tls_tickets *tickets;
        struct errmsg why;
        SSL_SESSION *session = NULL;
        assert_int_equal(tls_tickets_create(NULL, ROTATE_MS, 1000, &why, &tickets), ERR_OK);
        const struct tls_server_settings optional = asking_for_certificates(tickets, TLS_CLIENTS_OPTIONAL),
                                         required = asking_for_certificates(tickets, TLS_CLIENTS_REQUIRED);
        assert_false(reconnect(state, &optional, version, NULL, &session).resumed);
        assert_true(reconnect(state, &optional, version, NULL, &session).resumed);
        assert_false(reconnect(state, &required, version, &good, &session).resumed);
        assert_true(reconnect(state, &required, version, NULL, &session).has_certificate);
        SSL_SESSION_free(session);
        tls_tickets_unref(tickets);
    }
    pair_free(&good);
}

static void without_ticket_keys_nothing_resumes(void **state)
{
    struct link l = link_open(state);
    link_exchange(&l);
    assert_int_equal(l.p->nsessions, 0);
    link_free(&l);
}

#define TLS_TEST(name) cmocka_unit_test_setup_teardown(name, net_test_setup, net_test_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TLS_TEST(alpn_must_offer_what_we_speak),
        TLS_TEST(the_certificate_is_chosen_by_name_and_key_type),
        TLS_TEST(client_certificates_are_asked_for_and_checked),
        TLS_TEST(sessions_resume_across_one_rotation),
        TLS_TEST(a_session_does_not_outlive_its_client_certificate),
        TLS_TEST(a_session_does_not_outlive_the_rules_for_certificates),
        TLS_TEST(without_ticket_keys_nothing_resumes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
