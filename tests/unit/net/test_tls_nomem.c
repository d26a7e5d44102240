/* Memory runs out at one place or another while TLS contexts are built and connections are made: everything
 * ends with an error or goes on, and nothing leaks (ASan). Allocations of OpenSSL fail through its own hook,
 * ours in the two sources that are compiled in here. */
#include "helper_peer.h"
#include "net/stream_tls.h"
#include "net/tls.h"
#include "support/failing.h"

#include <openssl/err.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void *crypto_malloc(size_t n, const char *file, int line)
{
    (void)file, (void)line;
    return n ? failing_malloc(n) : NULL;
}

static void *crypto_realloc(void *p, size_t n, const char *file, int line)
{
    (void)file, (void)line;
    return failing_realloc(p, n);
}

static void crypto_free(void *p, const char *file, int line)
{
    (void)file, (void)line;
    free(p);
}

#undef fail /* cmocka's macro */
#define malloc failing_malloc
#define calloc failing_calloc
#include "net/stream_tls.c"
#include "net/tls.c"
#undef malloc
#undef calloc

/* --- building -------------------------------------------------------------------------------------- */

static bool build_all(void)
{
    struct errmsg why = {0};
    struct tls_tickets *tickets = NULL;
    struct tls_server *server = NULL;
    struct tls_client *client = NULL;
    struct tls_certificate_files files = certs_files();
    enum err e = tls_tickets_create(NULL, ROTATE_MS, 0, &why, &tickets);
    const struct tls_server_settings so = {.certificates = &files,
                                           .ncertificates = 1,
                                           .client_certificates = TLS_CLIENTS_REQUIRED,
                                           .client_authorities = certs_authority_file(),
                                           .tickets = tickets};
    const struct tls_client_settings co = {.authorities = certs_authority_file(), .certificate = &files};
    if (!e) e = tls_server_create(&so, NULL, &why, &server);
    if (!e) e = tls_client_create(&co, NULL, &why, &client);
    assert_true(!e || why.text[0]);
    tls_server_unref(server);
    tls_client_unref(client);
    tls_tickets_unref(tickets);
    return e == ERR_OK;
}

static void contexts_are_built_or_not(void **state)
{
    (void)state;
    assert_true(build_all()); /* what OpenSSL makes once for the process is made */
    for (long at = 0;; at += at < 50 ? 1 : 29) {
        failing_begin(at, false);
        bool done = build_all(), has_failed = failing_end();
        ERR_clear_error();
        if (!has_failed) {
            assert_true(done);
            return;
        }
    }
}

/* What all connections share is made for the first one. Where that fails, the next one tries again. */
static void the_first_connection_may_fail(void **state)
{
    (void)state;
    unsigned failures = 0;
    for (failing_begin(0, false); !bio_method(); failing_begin(++failures, false))
        assert_true(failing_end()); /* memory was out */
    (void)failing_end();
    assert_true(failures > 1);
    ERR_clear_error();
}

/* --- connections ----------------------------------------------------------------------------------- */

static unsigned out_of_memory; /* failures that were said to be for want of memory */

/* Whoever has no memory says so, and does not blame the other side. */
static void check_class(const struct user *u)
{
    const char *reason = stream_tls_reason(&u->stream);
    if (!reason) return;
    enum tls_failure class = stream_tls_failure(&u->stream, u->failure);
    if (strcmp(reason, "malloc failure") == 0) assert_int_equal(class, TLS_FAILURE_MEMORY);
    if (strcmp(reason, "internal error") == 0) assert_int_equal(class, TLS_FAILURE_PROTOCOL);
    out_of_memory += class == TLS_FAILURE_MEMORY;
}

/* True when both sides went well to the end. */
static bool talk(struct net_test *t, struct tls_server *server, struct tls_client *client, long at)
{
    struct tls_sessions sessions = {0};
    const struct tls_target to = {.client = client, .host = "localhost", .sessions = &sessions};
    struct socket_address address;
    int listening = test_listen(&address);
    struct user *a = user_create(), *b = user_create();
    failing_begin(at, false);
    enum err ea = stream_connect_tls(&a->stream, &t->loop, &address, &to, &user_events), eb = ERR_CLOSED;
    if (!ea)
        eb = stream_open_tls(&b->stream, &t->loop, accept4(listening, NULL, NULL, SOCK_NONBLOCK), server,
                             &user_events);
    bool is_alive = !ea && user_write(a, "question", 8) == ERR_OK && !eb;
    net_test_watch(t);
    while (is_alive && !(a->ngot && b->ngot) && !a->failures && !b->failures) {
        if (b->ngot && !a->ngot && !b->drains) is_alive = user_write(b, "answer", 6) == ERR_OK;
        RUN_READY(t);
    }
    bool done = is_alive && a->ngot && b->ngot && !a->failures && !b->failures;
    (void)failing_end(); /* the caller asks again */
    ERR_clear_error();
    close(listening);
    check_class(a);
    check_class(b);
    user_destroy(t, a);
    user_destroy(t, b);
    tls_sessions_clear(&sessions);
    return done;
}

static void connections_fail_or_go_on(void **state)
{
    struct net_test *t = *state;
    struct tls_tickets *tickets;
    struct errmsg why;
    assert_int_equal(tls_tickets_create(NULL, ROTATE_MS, 0, &why, &tickets), ERR_OK);
    struct tls_server *server = test_server(&(struct tls_server_settings){.tickets = tickets});
    struct tls_client *client = test_client();
    assert_true(talk(t, server, client, -1));
    unsigned failures = 0;
    for (long at = 0;; at += at < 30 ? 1 : 41) {
        bool done = talk(t, server, client, at);
        if (!failing_end()) {
            assert_true(done);
            break;
        }
        failures += !done;
    }
    assert_true(failures > 30);
    assert_true(out_of_memory > 10); /* the others saw the other side give up, or an error made of it */
    tls_server_unref(server);
    tls_client_unref(client);
    tls_tickets_unref(tickets);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(contexts_are_built_or_not),
        cmocka_unit_test(the_first_connection_may_fail),
        cmocka_unit_test_setup_teardown(connections_fail_or_go_on, net_test_setup, net_test_teardown),
    };
    if (CRYPTO_set_mem_functions(crypto_malloc, crypto_realloc, crypto_free) != 1) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
