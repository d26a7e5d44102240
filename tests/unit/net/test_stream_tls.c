/* A stream with TLS inside, the server's side, against OpenSSL: handshake in any pieces, bytes both ways,
 * pauses, ends. */
#include "helper_link.h"

#include "net/tls.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

/* --- handshake ------------------------------------------------------------------------------------- */

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
        link_exchange(&l);
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
        link_exchange(&l);
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
        link_exchange(&l);
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
    link_exchange(&l);
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

/* Part of a record, of which nothing can be handed over yet, and close_notify. */
static void a_read_knows_what_else_has_come(void **state)
{
    char *bytes;
    struct link l = link_open(state);
    link_exchange(&l);
    assert_false(l.u->had_more);
    l.u->ngot = 0;
    assert_int_equal(SSL_write(l.p->ssl, "whole", 5), 5);
    assert_int_equal(SSL_write(l.p->ssl, "rest", 4), 4);
    long n = BIO_get_mem_data(SSL_get_wbio(l.p->ssl), &bytes);
    assert_int_equal(send(l.p->fd, bytes, (size_t)n - 1, 0), n - 1);
    RUN_UNTIL(l.t, l.u->ngot == 5);
    assert_true(l.u->had_more);
    assert_int_equal(send(l.p->fd, bytes + n - 1, 1, 0), 1);
    RUN_UNTIL(l.t, l.u->ngot == 9);
    assert_false(l.u->had_more);
    assert_int_equal(BIO_reset(SSL_get_wbio(l.p->ssl)), 1);
    assert_int_equal(SSL_write(l.p->ssl, "bye", 3), 3);
    (void)SSL_shutdown(l.p->ssl);
    peer_carry(l.t, l.p);
    RUN_UNTIL(l.t, l.u->eofs);
    assert_string_equal(l.u->got, "wholerestbye");
    assert_true(l.u->had_more);
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

/* Many clients close so. Nobody would read the goodbye, and it would be answered with a reset. */
static void whoever_was_cut_off_says_none(void **state)
{
    char got[8];
    struct link l = link_open(state);
    shutdown(l.p->fd, SHUT_WR);
    RUN_UNTIL(l.t, l.u->failures);
    stream_close(&l.u->stream, STREAM_END_CLOSE);
    assert_int_equal(peer_read(l.t, l.p, got, sizeof got), -1);
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
        TLS_TEST(a_read_knows_what_else_has_come),
        TLS_TEST(an_ordinary_close_says_goodbye),
        TLS_TEST(whoever_was_cut_off_says_none),
        TLS_TEST(a_reset_does_not),
        TLS_TEST(a_close_with_bytes_pending_does_not),
        TLS_TEST(a_reset_by_the_client_is_one),
        TLS_TEST(a_client_may_vanish_at_any_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
