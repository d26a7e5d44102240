#include "helper_link.h"

#include "net/tls.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

struct link link_new(void **state, const struct tls_server_settings *o, SSL_CTX *ctx)
{
    struct link l = {.t = *state, .server = test_server(o)};
    int fd;
    l.u = user_serve(l.t, l.server, &fd);
    l.p = peer_create(ctx ? ctx : peer_client_ctx(), fd, "api.example");
    return l;
}

struct link link_open(void **state)
{
    struct link l = link_new(state, NULL, NULL);
    assert_true(peer_shake(l.t, l.p));
    RUN_UNTIL(l.t, l.u->connected);
    return l;
}

void link_free(struct link *l)
{
    user_destroy(l->t, l->u);
    peer_destroy(l->p);
    tls_server_unref(l->server);
}

void link_exchange(struct link *l)
{
    char got[16] = {0};
    peer_write(l->t, l->p, "question", 8);
    RUN_UNTIL(l->t, l->u->ngot == 8);
    assert_string_equal(l->u->got, "question");
    assert_int_equal(user_write(l->u, "answer", 6), ERR_OK);
    assert_int_equal(peer_read(l->t, l->p, got, sizeof got), 6);
    assert_string_equal(got, "answer");
}

void link_refused(struct link *l, enum err e)
{
    RUN_UNTIL(l->t, l->u->failures);
    assert_int_equal(l->u->failure, e);
    assert_non_null(stream_tls_reason(&l->u->stream));
    net_test_settle(l->t);
    assert_int_equal(l->u->failures, 1);
    assert_int_equal(l->u->reads, 0);
}
