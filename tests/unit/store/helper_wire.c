#include "helper_wire.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { READ_BUFFER = 64 * 1024, PATIENCE_MS = 10000, SETTLE_RUNS = 50, ARGS_MAX = 16 };

/* --- the loop --------------------------------------------------------------------------------------- */

static void on_expired(uv_timer_t *timer)
{
    ((struct wire *)timer->data)->is_expired = true;
}

int wire_setup(void **state)
{
    struct wire *w = calloc(1, sizeof *w);
    assert_non_null(w);
    assert_int_equal(loop_init(&w->loop, READ_BUFFER, NULL), ERR_OK);
    assert_int_equal(uv_timer_init(&w->loop.uv, &w->watchdog), 0);
    uv_unref((uv_handle_t *)&w->watchdog);
    w->watchdog.data = w;
    *state = w;
    return 0;
}

int wire_teardown(void **state)
{
    struct wire *w = *state;
    uv_close((uv_handle_t *)&w->watchdog, NULL);
    assert_int_equal(w->loop.wheel.count, 0);
    loop_close(&w->loop);
    loop_run(&w->loop);
    loop_deinit(&w->loop);
    free(w);
    return 0;
}

void wire_watch(struct wire *w)
{
    w->is_expired = false;
    uv_update_time(&w->loop.uv);
    assert_int_equal(uv_timer_start(&w->watchdog, on_expired, PATIENCE_MS, 0), 0);
}

void wire_run(struct wire *w, const char *waits_for, const char *file, int line)
{
    if (w->is_expired) {
        print_error("waited in vain for: %s\n", waits_for);
        _fail(file, line);
    }
    (void)uv_run(&w->loop.uv, UV_RUN_NOWAIT); /* a peer's socket is no handle: do not sleep in the loop */
}

void wire_settle(struct wire *w)
{
    for (int i = 0; i < SETTLE_RUNS; i++)
        (void)uv_run(&w->loop.uv, UV_RUN_NOWAIT);
}

/* --- peers ------------------------------------------------------------------------------------------ */

void peer_listen(struct peer *p)
{
    const struct addr a = {.family = ADDR_V4, .v4 = 0x7f000001};
    struct socket_address any = socket_address_ip(&a, 0);
    int sys;
    p->fd = -1;
    assert_int_equal(socket_listen(&any, 16, false, false, &p->listening, &sys), ERR_OK);
    assert_int_equal(socket_local(p->listening, &p->address), ERR_OK);
}

void peer_listen_unix(struct peer *p, const char *path)
{
    int sys;
    p->fd = -1;
    assert_int_equal(socket_address_unix(path, &p->address), ERR_OK);
    assert_int_equal(socket_listen(&p->address, 16, false, false, &p->listening, &sys), ERR_OK);
}

void peer_stop(struct peer *p)
{
    if (p->listening >= 0) close(p->listening);
    p->listening = -1;
}

static bool try_accept(struct peer *p)
{
    p->fd = accept4(p->listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    return p->fd >= 0;
}

void peer_accept(struct wire *w, struct peer *p)
{
    WIRE_UNTIL(w, try_accept(p));
}

void peer_expect(struct wire *w, struct peer *p, const char *bytes, size_t n)
{
    char *got = malloc(n + 1);
    size_t ngot = 0;
    assert_non_null(got);
    wire_watch(w);
    while (ngot < n) {
        ssize_t r = recv(p->fd, got + ngot, n - ngot, MSG_DONTWAIT);
        if (r > 0) ngot += (size_t)r;
        if (r == 0 || (r < 0 && errno != EAGAIN))
            fail_msg("the client closed after %zu of %zu bytes", ngot, n);
        if (r < 0) wire_run(w, "bytes of the client", __FILE__, __LINE__);
    }
    assert_memory_equal(got, bytes, n);
    free(got);
}

static bool has_ended(struct peer *p)
{
    char byte;
    ssize_t r = recv(p->fd, &byte, 1, MSG_DONTWAIT);
    if (r > 0) fail_msg("the client says more: %c", byte);
    return r == 0 || errno != EAGAIN;
}

void peer_expect_end(struct wire *w, struct peer *p)
{
    WIRE_UNTIL(w, has_ended(p));
}

void peer_say(struct peer *p, const char *bytes, size_t n)
{
    assert_int_equal(send(p->fd, bytes, n, MSG_NOSIGNAL), n);
}

void peer_say_much(struct wire *w, struct peer *p, const char *bytes, size_t n)
{
    size_t sent = 0;
    wire_watch(w);
    while (sent < n) {
        ssize_t r = send(p->fd, bytes + sent, n - sent, MSG_NOSIGNAL);
        if (r < 0 && errno != EAGAIN) return;
        if (r > 0) sent += (size_t)r;
        wire_run(w, "room for more bytes", __FILE__, __LINE__);
    }
}

void peer_close(struct peer *p)
{
    if (p->fd >= 0) close(p->fd);
    p->fd = -1;
}

void peer_reset(struct peer *p)
{
    const struct linger hard = {.l_onoff = 1, .l_linger = 0};
    assert_int_equal(setsockopt(p->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard), 0);
    peer_close(p);
}

/* --- the user of a connection ----------------------------------------------------------------------- */

__attribute__((format(printf, 2, 3))) static void hear(struct heard *h, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    int n = vsnprintf(h->text + h->ntext, sizeof h->text - h->ntext, format, ap);
    va_end(ap);
    assert_true(n >= 0);
    h->ntext += (size_t)n;
    if (h->ntext >= sizeof h->text) h->ntext = sizeof h->text - 1; /* long replies are cut */
}

static void hear_reply(struct heard *h, const redisReply *r)
{
    switch (r->type) {
    case REDIS_REPLY_STATUS: hear(h, "+%s", r->str); return;
    case REDIS_REPLY_ERROR: hear(h, "-%s", r->str); return;
    case REDIS_REPLY_STRING: hear(h, "%s", r->str); return;
    case REDIS_REPLY_INTEGER: hear(h, "%lld", r->integer); return;
    case REDIS_REPLY_NIL: hear(h, "(nil)"); return;
    case REDIS_REPLY_ARRAY: break;
    default: fail_msg("a reply of type %d", r->type);
    }
    hear(h, "[");
    for (size_t i = 0; i < r->elements; i++) {
        if (i) hear(h, " ");
        hear_reply(h, r->element[i]);
    }
    hear(h, "]");
}

void heard_reply(struct redis_conn *c, const redisReply *reply, void *arg)
{
    struct heard *h = arg;
    assert_int_equal(h->closed, 0);
    assert_ptr_equal(h->conn, c);
    if (reply) {
        assert_int_equal(h->nulls, 0); /* no reply after the end */
        h->replies++;
        hear_reply(h, reply);
        hear(h, ";");
    } else {
        h->nulls++;
        hear(h, "NULL;");
    }
    if (h->closes_on_reply) redis_close(c);
}

static void on_ready(struct redis_conn *c, void *user)
{
    struct heard *h = user;
    assert_int_equal(h->closed, 0);
    h->ready++;
    if (h->closes_when_ready) redis_close(c);
}

static void on_closed(struct redis_conn *c, enum err e, const char *cause, void *user)
{
    struct heard *h = user;
    assert_ptr_equal(h->conn, c);
    h->closed++;
    h->error = e;
    (void)snprintf(h->cause, sizeof h->cause, "%s", cause);
    h->conn = NULL;
}

const struct redis_events heard_events = {.on_ready = on_ready, .on_closed = on_closed};

void heard_open(struct wire *w, struct heard *h, const struct redis_options *o)
{
    assert_int_equal(redis_open(&w->loop, o, &heard_events, h, &h->conn), ERR_OK);
    assert_int_equal(h->ready + h->closed, 0); /* never before it returns */
}

void heard_open_plain(struct wire *w, struct heard *h, struct peer *p)
{
    const struct redis_options o = {
        .address = &p->address, .connect_timeout_ms = 5000, .command_timeout_ms = 5000};
    heard_open(w, h, &o);
    peer_accept(w, p);
    WIRE_UNTIL(w, h->ready);
}

enum err heard_send(struct heard *h, const char *command)
{
    const char *argv[ARGS_MAX];
    size_t lengths[ARGS_MAX];
    int argc = 0;
    for (const char *at = command; *at;) {
        size_t n = strcspn(at, " ");
        assert_true(argc < ARGS_MAX);
        argv[argc] = at;
        lengths[argc++] = n;
        at += n + (at[n] == ' ');
    }
    unsigned before = h->replies + h->nulls;
    enum err e = redis_command(h->conn, 0, heard_reply, h, argc, argv, lengths);
    assert_int_equal(h->replies + h->nulls, before); /* never before it returns */
    return e;
}

void heard_close(struct wire *w, struct heard *h)
{
    if (!h->conn) return;
    redis_close(h->conn);
    WIRE_UNTIL(w, h->closed);
    assert_int_equal(h->closed, 1);
}

void heard_finish(struct wire *w, struct heard *h, struct peer *p)
{
    heard_close(w, h);
    peer_close(p);
    peer_stop(p);
}

/* --- both ------------------------------------------------------------------------------------------- */

int dialogue_setup(void **state)
{
    struct dialogue *d = calloc(1, sizeof *d);
    void *wire;
    assert_non_null(d);
    wire_setup(&wire);
    d->w = wire;
    peer_listen(&d->server);
    *state = d;
    return 0;
}

int dialogue_setup_ready(void **state)
{
    dialogue_setup(state);
    struct dialogue *d = *state;
    heard_open_plain(d->w, &d->user, &d->server);
    return 0;
}

int dialogue_teardown(void **state)
{
    struct dialogue *d = *state;
    void *wire = d->w;
    heard_finish(d->w, &d->user, &d->server);
    free(d);
    return wire_teardown(&wire);
}
