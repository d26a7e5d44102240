/* A stream with TLS inside, the server's side, against clients that do what they should not. */
#include "helper_link.h"

#include "net/tls.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

static void what_is_no_tls_is_refused(void **state)
{
    static const char *const inputs[] = {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\x16\x03\x01\xff\xff garbage",
                                         "PROXY TCP4 ", "\x80\x2e\x01\x00\x02\x00\x15",
                                         "\x15\x03\x01\x00\x02\x02\x28"};
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++) {
        struct link l = link_new(state, NULL, NULL);
        test_send(l.p->fd, inputs[i]);
        size_t n = strlen(inputs[i]);
        assert_int_equal(send(l.p->fd, inputs[i] + n, 1, 0), 1); /* the NULs within */
        char more[64] = {0};
        assert_int_equal(send(l.p->fd, more, sizeof more, 0), sizeof more);
        link_refused(&l, ERR_TLS);
        link_free(&l);
    }
}

static void an_endless_handshake_is_cut_off(void **state)
{
    struct link l = link_new(state, NULL, NULL);
    /* A ClientHello that says it is 131071 bytes long, in records of 16 KiB. */
    static char record[5 + 16384] = "\x16\x03\x01\x40\x00";
    memcpy(record + 5, "\x01\x01\xff\xff\x03\x03", 6);
    net_test_watch(l.t);
    for (int i = 0; i < 8 && !l.u->failures; i++) {
        for (size_t at = 0; at < sizeof record && !l.u->failures;) {
            ssize_t n = send(l.p->fd, record + at, sizeof record - at, MSG_NOSIGNAL);
            if (n > 0) at += (size_t)n;
            RUN_READY(l.t);
        }
        memset(record + 5, 0, 6);
    }
    link_refused(&l, ERR_LIMIT);
    assert_true(l.u->stream.bytes_in <= 64 * 1024 + TEST_READ_BUFFER);
    link_free(&l);
}

static void old_versions_are_refused(void **state)
{
    SSL_CTX *ctx = peer_client_ctx();
    SSL_CTX_set_security_level(ctx, 0);
    SSL_CTX_set_min_proto_version(ctx, TLS1_VERSION);
    SSL_CTX_set_max_proto_version(ctx, TLS1_1_VERSION);
    struct link l = link_new(state, NULL, ctx);
    assert_false(peer_shake(l.t, l.p));
    link_refused(&l, ERR_TLS);
    link_free(&l);
    ctx = peer_client_ctx();
    SSL_CTX_set_max_proto_version(ctx, TLS1_2_VERSION);
    l = link_new(state, &(struct tls_server_settings){.only_1_3 = true}, ctx);
    assert_false(peer_shake(l.t, l.p));
    link_refused(&l, ERR_TLS);
    link_free(&l);
}

static void weak_ciphers_are_refused(void **state)
{
    SSL_CTX *ctx = peer_client_ctx();
    SSL_CTX_set_max_proto_version(ctx, TLS1_2_VERSION);
    assert_int_equal(
        SSL_CTX_set_cipher_list(ctx, "ECDHE-ECDSA-AES128-SHA256:AES128-GCM-SHA256:DHE-RSA-AES128-GCM-SHA256"),
        1);
    struct link l = link_new(state, NULL, ctx);
    assert_false(peer_shake(l.t, l.p));
    link_refused(&l, ERR_TLS);
    link_free(&l);
}

/* A record whose bytes were changed on the way: what came before it counts, then it is over. */
static void a_changed_record_is_refused(void **state)
{
    char *bytes;
    struct link l = link_open(state);
    assert_int_equal(SSL_write(l.p->ssl, "good", 4), 4);
    long good = BIO_get_mem_data(SSL_get_wbio(l.p->ssl), &bytes);
    assert_int_equal(SSL_write(l.p->ssl, "evil", 4), 4);
    long n = BIO_get_mem_data(SSL_get_wbio(l.p->ssl), &bytes);
    bytes[good + 7] ^= 1;
    assert_int_equal(send(l.p->fd, bytes, (size_t)n, 0), n);
    RUN_UNTIL(l.t, l.u->failures);
    assert_int_equal(l.u->failure, ERR_TLS);
    assert_string_equal(l.u->got, "good");
    assert_int_equal(user_write(l.u, "x", 1), ERR_RESET);
    link_free(&l);
}

static void keys_may_be_updated(void **state)
{
    struct link l = link_open(state);
    link_exchange(&l);
    for (int i = 0; i < 5; i++) {
        l.u->ngot = 0;
        assert_int_equal(SSL_key_update(l.p->ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        link_exchange(&l);
    }
    link_free(&l);
}

static void a_flood_of_key_updates_is_refused(void **state)
{
    struct link l = link_open(state);
    for (int i = 0; i < 200; i++) {
        assert_int_equal(SSL_key_update(l.p->ssl, SSL_KEY_UPDATE_NOT_REQUESTED), 1);
        assert_int_equal(SSL_do_handshake(l.p->ssl), 1);
    }
    /* OpenSSL does not even get to see what is behind them: it would say so. */
    assert_int_equal(BIO_write(SSL_get_wbio(l.p->ssl), "\x17\x03\x03\x00\x05wrong", 10), 10);
    while (BIO_pending(SSL_get_wbio(l.p->ssl)))
        peer_carry(l.t, l.p);
    link_refused(&l, ERR_LIMIT);
    peer_carry(l.t, l.p);
    assert_int_equal(BIO_pending(SSL_get_rbio(l.p->ssl)), 0);
    link_free(&l);
}

/* Each request for our new key brings an answer. Whoever never reads them would have them pile up here. */
static void answers_that_nobody_reads_are_bounded(void **state)
{
    struct link l = link_open(state);
    static char large[MUCH];
    while (!stream_is_blocked(&l.u->stream))
        assert_int_equal(user_write(l.u, large, sizeof large), ERR_OK);
    size_t before = l.u->stream.pending->n;
    net_test_watch(l.t);
    for (int i = 0; i < 2000 && !l.u->failures; i++) {
        uint64_t in = l.u->stream.bytes_in;
        char bytes[64];
        assert_int_equal(SSL_key_update(l.p->ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        assert_int_equal(SSL_do_handshake(l.p->ssl), 1);
        int n = BIO_read(SSL_get_wbio(l.p->ssl), bytes, sizeof bytes);
        assert_int_equal(send(l.p->fd, bytes, (size_t)n, 0), n);
        RUN_UNTIL(l.t, l.u->stream.bytes_in > in);
    }
    assert_in_range(l.u->stream.pending->n, before, before + 4096);
    assert_int_equal(l.u->failure, ERR_LIMIT);
    link_free(&l);
}

static void renegotiation_is_refused(void **state)
{
    SSL_CTX *ctx = peer_client_ctx();
    SSL_CTX_set_max_proto_version(ctx, TLS1_2_VERSION);
    struct link l = link_new(state, NULL, ctx);
    assert_true(peer_shake(l.t, l.p));
    link_exchange(&l);
    uint64_t before = l.u->stream.bytes_in;
    assert_int_equal(SSL_renegotiate(l.p->ssl), 1);
    assert_false(peer_shake(l.t, l.p)); /* the alert ends it at the client's side */
    assert_true(l.u->stream.bytes_in > before);
    assert_int_equal(l.u->connected, 1);
    link_free(&l);
}

#define TLS_TEST(name) cmocka_unit_test_setup_teardown(name, net_test_setup, net_test_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TLS_TEST(what_is_no_tls_is_refused),         TLS_TEST(an_endless_handshake_is_cut_off),
        TLS_TEST(old_versions_are_refused),          TLS_TEST(weak_ciphers_are_refused),
        TLS_TEST(a_changed_record_is_refused),       TLS_TEST(keys_may_be_updated),
        TLS_TEST(a_flood_of_key_updates_is_refused), TLS_TEST(answers_that_nobody_reads_are_bounded),
        TLS_TEST(renegotiation_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
