/* A stream with TLS inside, the client's side: whom it trusts, sessions, and both sides being ours. */
#include "helper_peer.h"

#include "net/tls.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* A client's stream that asks for `host`, and OpenSSL as the server, which shows `pair` (NULL:
 * certs_files()). */
struct link {
    struct net_test *t;
    struct tls_client *client;
    struct tls_target to;
    struct user *u;
    struct peer *p;
};

static struct link dial(void **state, struct tls_client *client, const char *host, const struct pair *pair,
                        struct tls_sessions *sessions, SSL_CTX *ctx)
{
    struct link l = {
        .t = *state, .client = client ? tls_client_ref(client) : test_client(), .u = user_create()};
    struct socket_address at;
    int listening = test_listen(&at);
    l.to = (struct tls_target){.client = l.client, .host = host, .sessions = sessions};
    if (!ctx) ctx = peer_server_ctx();
    if (pair) assert_int_equal(SSL_CTX_use_cert_and_key(ctx, pair->x, pair->key, NULL, 1), 1);
    SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"t", 1);
    assert_int_equal(stream_connect_tls(&l.u->stream, &l.t->loop, &at, &l.to, &user_events), ERR_OK);
    assert_int_equal(l.u->stream.state, STREAM_CONNECTING);
    int fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK);
    assert_true(fd >= 0);
    close(listening);
    l.p = peer_create(ctx, fd, NULL);
    return l;
}

static void link_free(struct link *l)
{
    user_destroy(l->t, l->u);
    peer_destroy(l->p);
    tls_client_unref(l->client);
}

static void a_client_connects_and_talks(void **state)
{
    char got[32] = {0};
    struct tls_info info;
    struct link l = dial(state, NULL, "api.example", NULL, NULL, NULL);
    assert_int_equal(user_write(l.u, "que", 3), ERR_OK);
    assert_int_equal(user_write(l.u, "ued", 3), ERR_OK);
    assert_true(stream_is_blocked(&l.u->stream));
    assert_true(peer_shake(l.t, l.p));
    assert_int_equal(peer_read(l.t, l.p, got, sizeof got), 6);
    assert_string_equal(got, "queued");
    assert_int_equal(l.u->connected, 1);
    assert_int_equal(l.u->drains, 1);
    assert_string_equal(SSL_get_servername(l.p->ssl, TLSEXT_NAMETYPE_host_name), "api.example");
    assert_true(stream_tls_info(&l.u->stream, &info));
    assert_true(info.has_certificate);
    peer_write(l.t, l.p, "back", 4);
    RUN_UNTIL(l.t, l.u->ngot == 4);
    assert_int_equal(l.u->reads, 1); /* tickets are no data */
    stream_shutdown(&l.u->stream);
    assert_int_equal(peer_read(l.t, l.p, got, sizeof got), 0);
    SSL_shutdown(l.p->ssl);
    RUN_UNTIL(l.t, (peer_carry(l.t, l.p), l.u->eofs));
    link_free(&l);
}

static void the_server_may_answer_byte_by_byte(void **state)
{
    struct link l = dial(state, NULL, "127.0.0.1", NULL, NULL, NULL);
    l.p->piece = 1;
    assert_true(peer_shake(l.t, l.p));
    assert_null(SSL_get_servername(l.p->ssl, TLSEXT_NAMETYPE_host_name)); /* an address is no SNI */
    peer_write(l.t, l.p, "x", 1);
    RUN_UNTIL(l.t, l.u->ngot == 1);
    link_free(&l);
}

static void check_distrusted(void **state, const char *host, const struct pair *pair, const char *says)
{
    struct link l = dial(state, NULL, host, pair, NULL, NULL);
    (void)peer_shake(l.t, l.p);
    RUN_UNTIL(l.t, l.u->failures);
    assert_int_equal(l.u->failure, ERR_TLS);
    assert_string_equal(stream_tls_reason(&l.u->stream), says);
    assert_int_equal(l.u->connected + l.u->reads, 0);
    link_free(&l);
}

static void only_the_right_server_is_trusted(void **state)
{
    const struct pair *ca = certs_authority();
    const char *names = "DNS:api.example,DNS:*.w.example,IP:10.0.0.1";
    struct pair old =
        certs_make(&(struct leaf){.names = names, .by = ca, .from_s = -9 * DAY_S, .to_s = -DAY_S});
    struct pair stranger = certs_make(&(struct leaf){.names = names});
    struct pair good = certs_make(&(struct leaf){.names = names, .by = ca});
    check_distrusted(state, "other.example", &good, "hostname mismatch");
    check_distrusted(state, "a.b.w.example", &good, "hostname mismatch");
    check_distrusted(state, "w.example", &good, "hostname mismatch");
    check_distrusted(state, "10.0.0.2", &good, "IP address mismatch");
    check_distrusted(state, "api.example", &old, "certificate has expired");
    check_distrusted(state, "api.example", &stranger, "self-signed certificate");
    static const char *const right[] = {"api.example", "API.example", "x.w.example", "10.0.0.1"};
    for (size_t i = 0; i < 4; i++) {
        struct link l = dial(state, NULL, right[i], &good, NULL, NULL);
        assert_true(peer_shake(l.t, l.p));
        link_free(&l);
    }
    pair_free(&old);
    pair_free(&stranger);
    pair_free(&good);
}

static void a_certificate_is_shown_when_asked(void **state)
{
    struct tls_client *c;
    struct errmsg why;
    struct tls_certificate_files f = certs_files();
    const struct tls_client_settings o = {.authorities = certs_authority_file(), .certificate = &f};
    assert_int_equal(tls_client_create(&o, NULL, &why, &c), ERR_OK);
    SSL_CTX *ctx = peer_server_ctx();
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    struct link l = dial(state, c, "api.example", NULL, NULL, ctx);
    assert_true(peer_shake(l.t, l.p));
    assert_non_null(SSL_get0_peer_certificate(l.p->ssl));
    link_free(&l);
    tls_client_unref(c);
}

/* Connects once more to a server with the same ticket keys. */
static bool resumes(void **state, struct tls_client *c, struct tls_sessions *s, int version)
{
    struct tls_info info;
    unsigned char keys[80];
    memset(keys, 7, sizeof keys);
    SSL_CTX *ctx = peer_server_ctx();
    SSL_CTX_set_max_proto_version(ctx, version);
    assert_int_equal(SSL_CTX_set_tlsext_ticket_keys(ctx, keys, sizeof keys), 1);
    struct link l = dial(state, c, "api.example", NULL, s, ctx);
    assert_true(peer_shake(l.t, l.p));
    peer_write(l.t, l.p, "x", 1);
    RUN_UNTIL(l.t, l.u->ngot);
    assert_true(stream_tls_info(&l.u->stream, &info));
    assert_true(info.has_certificate);
    stream_close(&l.u->stream, STREAM_END_CLOSE);
    link_free(&l);
    return info.resumed;
}

static void sessions_are_used_again(void **state)
{
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        struct tls_sessions s = {0};
        struct tls_client *c = test_client(), *other = test_client();
        assert_false(resumes(state, c, &s, version));
        unsigned first = s.n;
        assert_true(first > 0);
        for (int i = 0; i < 12; i++)
            assert_true(resumes(state, c, &s, version));
        assert_true(s.n <= TLS_SESSIONS_MAX);
        assert_false(resumes(state, other, &s, version)); /* not those of other rules */
        assert_int_equal(s.n, first);                     /* nor are they kept beside its own */
        assert_false(resumes(state, c, &s, version));
        tls_sessions_clear(&s);
        assert_false(resumes(state, c, &s, version));
        tls_sessions_clear(&s);
        tls_client_unref(c);
        tls_client_unref(other);
    }
}

static void a_session_of_tls_1_3_is_offered_once(void **state)
{
    struct tls_sessions s = {0};
    struct tls_client *c = test_client();
    assert_false(resumes(state, c, &s, TLS1_3_VERSION));
    for (unsigned n = s.n; n > 0; n--) {
        struct link l = dial(state, c, "api.example", NULL, &s, NULL);
        assert_int_equal(s.n, n - 1);
        link_free(&l);
    }
    tls_sessions_clear(&s);
    tls_client_unref(c);
}

static void a_truncated_answer_is_an_error(void **state)
{
    struct link l = dial(state, NULL, "api.example", NULL, NULL, NULL);
    assert_true(peer_shake(l.t, l.p));
    peer_write(l.t, l.p, "HTTP/1.1 200 OK\r\n\r\nhalf", 23);
    shutdown(l.p->fd, SHUT_WR);
    RUN_UNTIL(l.t, l.u->failures);
    assert_int_equal(l.u->failure, ERR_TRUNCATED);
    assert_int_equal(l.u->ngot, 23);
    link_free(&l);
}

static void a_server_that_says_no_is_heard(void **state)
{
    SSL_CTX *ctx = peer_server_ctx();
    SSL_CTX_set_cipher_list(ctx, "AES128-SHA");
    SSL_CTX_set_max_proto_version(ctx, TLS1_2_VERSION);
    struct link l = dial(state, NULL, "api.example", NULL, NULL, ctx);
    assert_false(peer_shake(l.t, l.p));
    RUN_UNTIL(l.t, l.u->failures);
    assert_int_equal(l.u->failure, ERR_TLS);
    assert_non_null(strstr(stream_tls_reason(&l.u->stream), "handshake failure"));
    link_free(&l);
}

static void a_refused_connection_fails_as_without_tls(void **state)
{
    struct net_test *t = *state;
    struct socket_address at;
    struct tls_client *c = test_client();
    close(test_listen(&at));
    struct user *u = user_create();
    u->close_on = ON_FAILED;
    const struct tls_target to = {.client = c, .host = "api.example"};
    assert_int_equal(stream_connect_tls(&u->stream, &t->loop, &at, &to, &user_events), ERR_OK);
    assert_int_equal(user_write(u, "queued", 6), ERR_OK);
    RUN_UNTIL(t, u->closed);
    assert_int_equal(u->failure, ERR_REFUSED);
    user_destroy(t, u);
    assert_int_equal(socket_address_unix("/nonexistent/socket", &at), ERR_OK);
    u = user_create();
    assert_int_equal(stream_connect_tls(&u->stream, &t->loop, &at, &to, &user_events), ERR_NOT_FOUND);
    user_destroy(t, u);
    tls_client_unref(c);
}

/* --- both sides are ours: the shared buffers serve two connections in one loop ----------------------- */

static void both_sides_in_one_loop(void **state)
{
    struct net_test *t = *state;
    struct tls_server *server = test_server(NULL);
    struct tls_client *client = test_client();
    struct socket_address at;
    const struct tls_target to = {.client = client, .host = "localhost"};
    int listening = test_listen(&at);
    struct user *a = user_create(), *b = user_create();
    assert_int_equal(stream_connect_tls(&a->stream, &t->loop, &at, &to, &user_events), ERR_OK);
    int fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK);
    assert_int_equal(stream_open_tls(&b->stream, &t->loop, fd, server, &user_events), ERR_OK);
    RUN_UNTIL(t, a->connected && b->connected);
    char *sent = test_pattern(MUCH);
    assert_int_equal(user_write(a, sent, MUCH), ERR_OK);
    assert_int_equal(user_write(b, sent, MUCH), ERR_OK);
    stream_shutdown(&a->stream);
    stream_shutdown(&b->stream);
    RUN_UNTIL(t, a->eofs && b->eofs);
    assert_memory_equal(a->got, sent, MUCH);
    assert_memory_equal(b->got, sent, MUCH);
    assert_int_equal(a->failures + b->failures, 0);
    free(sent);
    close(listening);
    user_destroy(t, a);
    user_destroy(t, b);
    tls_server_unref(server);
    tls_client_unref(client);
}

#define TLS_TEST(name) cmocka_unit_test_setup_teardown(name, net_test_setup, net_test_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TLS_TEST(a_client_connects_and_talks),
        TLS_TEST(the_server_may_answer_byte_by_byte),
        TLS_TEST(only_the_right_server_is_trusted),
        TLS_TEST(a_certificate_is_shown_when_asked),
        TLS_TEST(sessions_are_used_again),
        TLS_TEST(a_session_of_tls_1_3_is_offered_once),
        TLS_TEST(a_truncated_answer_is_an_error),
        TLS_TEST(a_server_that_says_no_is_heard),
        TLS_TEST(a_refused_connection_fails_as_without_tls),
        TLS_TEST(both_sides_in_one_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
