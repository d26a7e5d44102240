/* A stream with TLS inside, the server's side, against OpenSSL: handshake in any pieces, bytes both ways,
 * pauses, ends, and clients that do what they should not. */
#include "helper_peer.h"

#include "net/tls.h"

#include <openssl/err.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* One connection of each test. */
struct link {
    struct net_test *t;
    struct tls_server *server;
    struct user *u;
    struct peer *p;
};

static struct link link_new(void **state, const struct tls_server_settings *o, SSL_CTX *ctx)
{
    struct link l = {.t = *state, .server = test_server(o)};
    int fd;
    l.u = user_serve(l.t, l.server, &fd);
    l.p = peer_create(ctx ? ctx : peer_client_ctx(), fd, "api.example");
    return l;
}

static struct link link_open(void **state)
{
    struct link l = link_new(state, NULL, NULL);
    assert_true(peer_shake(l.t, l.p));
    RUN_UNTIL(l.t, l.u->connected);
    return l;
}

static void link_free(struct link *l)
{
    user_destroy(l->t, l->u);
    peer_destroy(l->p);
    tls_server_unref(l->server);
}

/* --- handshake ------------------------------------------------------------------------------------- */

static void check_exchange(struct link *l)
{
    char got[16] = {0};
    peer_write(l->t, l->p, "question", 8);
    RUN_UNTIL(l->t, l->u->ngot == 8);
    assert_string_equal(l->u->got, "question");
    assert_int_equal(user_write(l->u, "answer", 6), ERR_OK);
    assert_int_equal(peer_read(l->t, l->p, got, sizeof got), 6);
    assert_string_equal(got, "answer");
}

static void both_versions_shake_hands_and_talk(void **state)
{
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        struct tls_info info;
        SSL_CTX *ctx = peer_client_ctx();
        SSL_CTX_set_max_proto_version(ctx, version);
        struct link l = link_new(state, NULL, ctx);
        assert_int_equal(l.u->stream.state, STREAM_HANDSHAKE);
        assert_false(stream_tls_info(&l.u->stream, &info));
        assert_true(peer_shake(l.t, l.p));
        RUN_UNTIL(l.t, l.u->connected);
        assert_true(stream_tls_info(&l.u->stream, &info));
        assert_string_equal(info.version, version == TLS1_2_VERSION ? "TLSv1.2" : "TLSv1.3");
        assert_string_equal(info.server_name, "api.example");
        assert_non_null(info.cipher);
        assert_false(info.resumed || info.has_certificate);
        assert_null(stream_tls_reason(&l.u->stream));
        check_exchange(&l);
        link_free(&l);
    }
}

static void a_handshake_may_come_byte_by_byte(void **state)
{
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        SSL_CTX *ctx = peer_client_ctx();
        SSL_CTX_set_max_proto_version(ctx, version);
        struct link l = link_new(state, NULL, ctx);
        l.p->piece = 1;
        assert_true(peer_shake(l.t, l.p));
        check_exchange(&l);
        assert_int_equal(l.u->connected, 1);
        link_free(&l);
    }
}

static void a_handshake_may_be_cut_anywhere(void **state)
{
    for (size_t first = 1; first < 600; first += 7) {
        struct link l = link_new(state, NULL, NULL);
        l.p->first = first;
        assert_true(peer_shake(l.t, l.p));
        check_exchange(&l);
        link_free(&l);
    }
}

/* The request comes in the same segment as the end of the handshake. */
static void data_right_behind_the_handshake_is_not_lost(void **state)
{
    for (int paused = 0; paused < 2; paused++) {
        struct link l = link_new(state, NULL, NULL);
        if (paused) stream_read_pause(&l.u->stream);
        net_test_watch(l.t);
        while (SSL_do_handshake(l.p->ssl) != 1)
            peer_carry(l.t, l.p);
        peer_write(l.t, l.p, "early", 5);
        RUN_UNTIL(l.t, l.u->connected);
        net_test_settle(l.t);
        assert_int_equal(l.u->ngot, paused ? 0 : 5);
        assert_int_equal(stream_is_quiet(&l.u->stream), !paused);
        if (paused) {
            unsigned before = l.t->turns;
            net_test_settle(l.t); /* and waiting for the user costs nothing */
            assert_int_equal(l.t->turns, before);
            stream_read_resume(&l.u->stream);
            assert_int_equal(l.u->ngot, 0); /* not inside the call */
            RUN_UNTIL(l.t, l.u->ngot == 5);
        }
        assert_string_equal(l.u->got, "early");
        link_free(&l);
    }
}

/* The same with close_notify and FIN right behind it: no event of the socket is left to come. */
static void an_end_that_came_while_paused_is_told_on_resume(void **state)
{
    struct link l = link_new(state, NULL, NULL);
    stream_read_pause(&l.u->stream);
    net_test_watch(l.t);
    while (SSL_do_handshake(l.p->ssl) != 1)
        peer_carry(l.t, l.p);
    assert_int_equal(SSL_write(l.p->ssl, "last", 4), 4);
    SSL_shutdown(l.p->ssl);
    while (BIO_pending(SSL_get_wbio(l.p->ssl)))
        peer_carry(l.t, l.p);
    net_test_settle(l.t);
    assert_int_equal(l.u->ngot + l.u->eofs, 0);
    stream_read_resume(&l.u->stream);
    RUN_UNTIL(l.t, l.u->eofs);
    assert_string_equal(l.u->got, "last");
    assert_int_equal(l.u->failures, 0);
    link_free(&l);
}

static void what_is_written_early_waits_for_the_handshake(void **state)
{
    char got[16] = {0};
    struct link l = link_new(state, NULL, NULL);
    assert_int_equal(user_write(l.u, "service ", 8), ERR_OK);
    assert_int_equal(user_write(l.u, "busy", 4), ERR_OK);
    assert_true(stream_is_blocked(&l.u->stream));
    stream_shutdown(&l.u->stream);
    assert_true(peer_shake(l.t, l.p));
    RUN_UNTIL(l.t, l.u->drains);
    assert_int_equal(peer_read(l.t, l.p, got, sizeof got), 12);
    assert_string_equal(got, "service busy");
    assert_int_equal(peer_read(l.t, l.p, got, sizeof got), 0);
    net_test_watch(l.t);
    while (!l.p->fin)
        peer_carry(l.t, l.p);
    assert_int_equal(l.u->drains, 1);
    link_free(&l);
}

static void the_idle_loop_is_quiet(void **state)
{
    struct link l = link_open(state);
    net_test_settle(l.t);
    unsigned before = l.t->turns;
    net_test_settle(l.t);
    assert_int_equal(l.t->turns, before);
    assert_true(stream_is_quiet(&l.u->stream));
    assert_int_equal(l.u->reads + l.u->drains, 0);
    link_free(&l);
}

/* --- bytes ----------------------------------------------------------------------------------------- */

static void shrink_buffers(struct link *l)
{
    int small = 65536; /* less, and the loopback device waits for its delayed acknowledgements */
    assert_int_equal(setsockopt(l->u->stream.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
    assert_int_equal(setsockopt(l->p->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small), 0);
}

static void a_large_body_passes_small_buffers_out(void **state)
{
    struct link l = link_open(state);
    shrink_buffers(&l);
    char *sent = test_pattern(MUCH), *got = malloc(MUCH);
    struct iovec iov[] = {
        {sent, 100}, {NULL, 0}, {sent + 100, 30000}, {sent + 30100, 5}, {sent + 30105, MUCH - 30105}};
    assert_int_equal(stream_write(&l.u->stream, iov, 5), ERR_OK);
    assert_true(stream_is_blocked(&l.u->stream));
    stream_shutdown(&l.u->stream);
    size_t n = 0;
    for (int r = 1; r > 0; n += (size_t)r)
        r = peer_read(l.t, l.p, got + n, (int)(MUCH - n) + 1);
    assert_int_equal(n, MUCH);
    assert_memory_equal(got, sent, MUCH);
    assert_int_equal(l.u->drains, 1);
    free(sent);
    free(got);
    link_free(&l);
}

static void a_large_body_passes_small_buffers_in(void **state)
{
    struct link l = link_open(state);
    shrink_buffers(&l);
    char *sent = test_pattern(MUCH);
    peer_write(l.t, l.p, sent, MUCH);
    SSL_shutdown(l.p->ssl);
    net_test_watch(l.t);
    while (!l.u->eofs) {
        peer_carry(l.t, l.p);
        if (l.u->reads % 3 == 1) stream_read_pause(&l.u->stream); /* now and then */
        net_test_run(l.t, UV_RUN_NOWAIT, "the end", __FILE__, __LINE__);
        stream_read_resume(&l.u->stream);
    }
    assert_int_equal(l.u->ngot, MUCH);
    assert_memory_equal(l.u->got, sent, MUCH);
    free(sent);
    link_free(&l);
}

/* All records of an answer in one send: they are there at once. */
static void small_slices_share_a_record(void **state)
{
    char head[64], body[64], got[4096];
    struct link l = link_open(state);
    memset(head, 'h', sizeof head);
    memset(body, 'b', sizeof body);
    while (test_recv(l.p->fd, got, sizeof got) > 0)
        ; /* the ticket, which the peer may do without */
    struct iovec iov[] = {{head, sizeof head}, {body, sizeof body}};
    uint64_t before = l.u->stream.bytes_out;
    assert_int_equal(stream_write(&l.u->stream, iov, 2), ERR_OK);
    assert_int_equal(l.u->stream.bytes_out - before, sizeof head + sizeof body + 22);
    link_free(&l);
}

static void nothing_is_kept_in_an_idle_stream(void **state)
{
    struct link l = link_open(state);
    check_exchange(&l);
    assert_null(l.u->stream.pending);
    assert_int_equal(SSL_has_pending(l.p->ssl), 0);
    struct iovec none = {NULL, 0};
    assert_int_equal(stream_write(&l.u->stream, &none, 1), ERR_OK);
    assert_int_equal(stream_write(&l.u->stream, &none, 0), ERR_OK);
    link_free(&l);
}

/* --- ends ------------------------------------------------------------------------------------------ */

static void close_notify_is_the_end(void **state)
{
    struct link l = link_open(state);
    char got[8];
    assert_int_equal(SSL_write(l.p->ssl, "bye", 3), 3);
    SSL_shutdown(l.p->ssl);
    RUN_UNTIL(l.t, (peer_carry(l.t, l.p), l.u->eofs));
    assert_string_equal(l.u->got, "bye");
    assert_true(l.u->stream.eof);
    assert_int_equal(user_write(l.u, "answer", 6), ERR_OK); /* the other direction is still open */
    assert_int_equal(peer_read(l.t, l.p, got, sizeof got), 6);
    shutdown(l.p->fd, SHUT_WR);
    net_test_settle(l.t);
    assert_int_equal(l.u->eofs, 1);
    assert_int_equal(l.u->failures, 0);
    link_free(&l);
}

static void a_fin_without_close_notify_is_a_truncation(void **state)
{
    struct link l = link_open(state);
    peer_write(l.t, l.p, "half a bo", 9);
    shutdown(l.p->fd, SHUT_WR);
    RUN_UNTIL(l.t, l.u->failures);
    assert_int_equal(l.u->failure, ERR_TRUNCATED);
    assert_string_equal(l.u->got, "half a bo");
    net_test_settle(l.t);
    assert_int_equal(l.u->failures, 1);
    assert_int_equal(l.u->eofs, 0);
    link_free(&l);
}

static void an_ordinary_close_says_goodbye(void **state)
{
    char got[8];
    struct link l = link_open(state);
    stream_close(&l.u->stream, STREAM_END_CLOSE);
    assert_int_equal(peer_read(l.t, l.p, got, sizeof got), 0);
    RUN_UNTIL(l.t, l.u->closed);
    link_free(&l);
}

static void a_reset_does_not(void **state)
{
    char got[8];
    struct link l = link_open(state);
    peer_carry(l.t, l.p);
    stream_close(&l.u->stream, STREAM_END_RESET);
    assert_int_equal(peer_read(l.t, l.p, got, sizeof got), -1);
    RUN_UNTIL(l.t, l.u->closed);
    link_free(&l);
}

static void a_close_with_bytes_pending_does_not(void **state)
{
    struct link l = link_open(state);
    char *sent = test_pattern(MUCH), *got = malloc(MUCH);
    while (!stream_is_blocked(&l.u->stream))
        assert_int_equal(user_write(l.u, sent, MUCH), ERR_OK);
    stream_close(&l.u->stream, STREAM_END_CLOSE);
    int r;
    while ((r = peer_read(l.t, l.p, got, MUCH)) > 0)
        ;
    assert_int_equal(r, -1);
    free(sent);
    free(got);
    RUN_UNTIL(l.t, l.u->closed);
    link_free(&l);
}

static void a_reset_by_the_client_is_one(void **state)
{
    struct link l = link_open(state);
    test_reset(l.p->fd);
    l.p->fd = -1;
    RUN_UNTIL(l.t, l.u->failures);
    assert_int_equal(l.u->failure, ERR_RESET);
    link_free(&l);
}

/* After 0, 1, 2, ... bytes of the client's: whatever the state, it ends once, and with an error. */
static void a_client_may_vanish_at_any_byte(void **state)
{
    for (int with_reset = 0; with_reset < 2; with_reset++)
        for (size_t at = 0; at < 420; at += 13) {
            struct link l = link_new(state, NULL, NULL);
            l.u->close_on = ON_FAILED;
            l.p->piece = 13;
            for (size_t sent = 0; sent < at; sent += 13) {
                (void)SSL_do_handshake(l.p->ssl);
                peer_carry(l.t, l.p);
            }
            if (with_reset) {
                test_reset(l.p->fd);
                l.p->fd = -1;
            } else {
                shutdown(l.p->fd, SHUT_WR);
            }
            RUN_UNTIL(l.t, l.u->closed);
            assert_int_equal(l.u->failures, 1);
            assert_true(l.u->failure == ERR_RESET || l.u->failure == ERR_TRUNCATED);
            link_free(&l);
        }
}

/* --- bad clients ----------------------------------------------------------------------------------- */

static void check_refused(struct link *l, enum err e)
{
    RUN_UNTIL(l->t, l->u->failures);
    assert_int_equal(l->u->failure, e);
    assert_non_null(stream_tls_reason(&l->u->stream));
    net_test_settle(l->t);
    assert_int_equal(l->u->failures, 1);
    assert_int_equal(l->u->reads, 0);
}

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
        check_refused(&l, ERR_TLS);
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
    check_refused(&l, ERR_LIMIT);
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
    check_refused(&l, ERR_TLS);
    link_free(&l);
    ctx = peer_client_ctx();
    SSL_CTX_set_max_proto_version(ctx, TLS1_2_VERSION);
    l = link_new(state, &(struct tls_server_settings){.only_1_3 = true}, ctx);
    assert_false(peer_shake(l.t, l.p));
    check_refused(&l, ERR_TLS);
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
    check_refused(&l, ERR_TLS);
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
    check_exchange(&l);
    for (int i = 0; i < 5; i++) {
        l.u->ngot = 0;
        assert_int_equal(SSL_key_update(l.p->ssl, SSL_KEY_UPDATE_REQUESTED), 1);
        check_exchange(&l);
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
    while (BIO_pending(SSL_get_wbio(l.p->ssl)))
        peer_carry(l.t, l.p);
    check_refused(&l, ERR_LIMIT);
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
    check_exchange(&l);
    uint64_t before = l.u->stream.bytes_in;
    assert_int_equal(SSL_renegotiate(l.p->ssl), 1);
    assert_false(peer_shake(l.t, l.p)); /* the alert ends it at the client's side */
    assert_true(l.u->stream.bytes_in > before);
    assert_int_equal(l.u->connected, 1);
    link_free(&l);
}

/* --- names, protocols, certificates ---------------------------------------------------------------- */

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
            check_refused(&l, ERR_TLS);
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
        files[i] = (struct tls_certificate_files){paths[2 * i], paths[2 * i + 1]};
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

/* Connects with the session of before, if any, and takes the new one. */
static bool connect_resumes(void **state, struct tls_tickets *tickets, int version, SSL_SESSION **session)
{
    struct tls_server_settings o = {.tickets = tickets};
    struct tls_info info;
    char got[4];
    SSL_CTX *ctx = peer_client_ctx();
    SSL_CTX_set_max_proto_version(ctx, version);
    struct link l = link_new(state, &o, ctx); /* a new context each time, as after a reload */
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
    return info.resumed;
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

/* Connects with this certificate, or with the session of before, and takes the new one. */
static bool shows_or_resumes(void **state, struct tls_tickets *tickets, int version, const struct pair *shown,
                             SSL_SESSION **session)
{
    struct tls_server_settings o = {.tickets = tickets,
                                    .client_certificates = TLS_CLIENTS_OPTIONAL,
                                    .client_authorities = certs_authority_file()};
    struct tls_info info;
    char got[4];
    SSL_CTX *ctx = peer_client_ctx();
    SSL_CTX_set_max_proto_version(ctx, version);
    struct link l = link_new(state, &o, ctx);
    if (shown) assert_int_equal(SSL_use_cert_and_key(l.p->ssl, shown->x, shown->key, NULL, 1), 1);
    if (*session) assert_int_equal(SSL_set_session(l.p->ssl, *session), 1);
    assert_true(peer_shake(l.t, l.p));
    RUN_UNTIL(l.t, l.u->connected);
    assert_true(stream_tls_info(&l.u->stream, &info));
    assert_int_equal(user_write(l.u, "hi", 2), ERR_OK);
    assert_int_equal(peer_read(l.t, l.p, got, 2), 2);
    SSL_SESSION_free(*session);
    *session = SSL_get1_session(l.p->ssl);
    SSL_shutdown(l.p->ssl);
    RUN_UNTIL(l.t, (peer_carry(l.t, l.p), l.u->eofs));
    link_free(&l);
    return info.has_certificate;
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

static void without_ticket_keys_nothing_resumes(void **state)
{
    struct link l = link_open(state);
    check_exchange(&l);
    assert_int_equal(l.p->nsessions, 0);
    link_free(&l);
}

#define TLS_TEST(name) cmocka_unit_test_setup_teardown(name, net_test_setup, net_test_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TLS_TEST(both_versions_shake_hands_and_talk),
        TLS_TEST(a_handshake_may_come_byte_by_byte),
        TLS_TEST(a_handshake_may_be_cut_anywhere),
        TLS_TEST(data_right_behind_the_handshake_is_not_lost),
        TLS_TEST(an_end_that_came_while_paused_is_told_on_resume),
        TLS_TEST(what_is_written_early_waits_for_the_handshake),
        TLS_TEST(the_idle_loop_is_quiet),
        TLS_TEST(a_large_body_passes_small_buffers_out),
        TLS_TEST(a_large_body_passes_small_buffers_in),
        TLS_TEST(small_slices_share_a_record),
        TLS_TEST(nothing_is_kept_in_an_idle_stream),
        TLS_TEST(close_notify_is_the_end),
        TLS_TEST(a_fin_without_close_notify_is_a_truncation),
        TLS_TEST(an_ordinary_close_says_goodbye),
        TLS_TEST(a_reset_does_not),
        TLS_TEST(a_close_with_bytes_pending_does_not),
        TLS_TEST(a_reset_by_the_client_is_one),
        TLS_TEST(a_client_may_vanish_at_any_byte),
        TLS_TEST(what_is_no_tls_is_refused),
        TLS_TEST(an_endless_handshake_is_cut_off),
        TLS_TEST(old_versions_are_refused),
        TLS_TEST(weak_ciphers_are_refused),
        TLS_TEST(a_changed_record_is_refused),
        TLS_TEST(keys_may_be_updated),
        TLS_TEST(a_flood_of_key_updates_is_refused),
        TLS_TEST(answers_that_nobody_reads_are_bounded),
        TLS_TEST(renegotiation_is_refused),
        TLS_TEST(alpn_must_offer_what_we_speak),
        TLS_TEST(the_certificate_is_chosen_by_name_and_key_type),
        TLS_TEST(client_certificates_are_asked_for_and_checked),
        TLS_TEST(sessions_resume_across_one_rotation),
        TLS_TEST(a_session_does_not_outlive_its_client_certificate),
        TLS_TEST(without_ticket_keys_nothing_resumes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
