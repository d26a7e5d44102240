#include "store/redis_conn.h"

#include "net/stream.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if HIREDIS_MAJOR > 0
typedef long long command_length;
#else
typedef int command_length;
#endif

enum { OUT_BYTES = 16 * 1024 };

enum redis_state {
    REDIS_CONNECTING = 0, /* the stream connects; nothing was sent */
    REDIS_HANDSHAKE,      /* at most one command waits, ours; no user command is taken */
    REDIS_READY,          /* on_ready was given */
    REDIS_CLOSING,        /* error and cause set, no deadline armed; waits for the stream */
};

/* A command that waits for its reply. */
struct pending {
    struct pending *next;
    struct redis_conn *conn;
    struct wheel_entry deadline; /* not armed during the handshake, which has its own */
    redis_reply_fn fn;
    void *arg;
};

struct redis_conn {
    struct stream stream; /* first */
    enum redis_state state;
    struct loop *loop;                 /* borrowed */
    const struct redis_events *events; /* borrowed */
    void *user;
    struct redis_reader reader;
    struct wheel_entry handshake_deadline;
    uint64_t connect_timeout_ms, command_timeout_ms;
    char *auth; /* owned: the AUTH command, wiped and freed when it was sent */
    size_t auth_bytes;
    char *client_name; /* owned; NULL = none */
    bool must_be_master;
    struct pending *first, **last; /* in the order of sending */
    size_t npending;
    bool is_corked; /* commands are collected in `out` until the callback of the stream ends */
    size_t out_n;
    char out[OUT_BYTES];
    enum err error; /* why it was closed */
    char cause[REDIS_CAUSE_MAX];
};

static struct redis_conn *conn_of(struct stream *s)
{
    return (struct redis_conn *)s;
}

static void set_state(struct redis_conn *c, enum redis_state state)
{
    BUG_IF(state <= c->state, "a Redis connection goes backwards");
    c->state = state;
}

/* --- end -------------------------------------------------------------------------------------------- */

static void wipe_auth(struct redis_conn *c)
{
    if (!c->auth) return;
    explicit_bzero(c->auth, c->auth_bytes);
    redisFreeCommand(c->auth);
    c->auth = NULL;
}

static void conn_free(struct redis_conn *c)
{
    wipe_auth(c);
    redis_reader_deinit(&c->reader);
    free(c->client_name);
    free(c);
}

/* The first cause wins. */
__attribute__((format(printf, 3, 4))) static void fail(struct redis_conn *c, enum err e, const char *format,
                                                       ...)
{
    if (c->state == REDIS_CLOSING) return;
    set_state(c, REDIS_CLOSING);
    c->error = e;
    va_list ap;
    va_start(ap, format);
    (void)vsnprintf(c->cause, sizeof c->cause, format, ap); /* cutting is fine */
    va_end(ap);
    loop_deadline_clear(c->loop, &c->handshake_deadline);
    for (struct pending *p = c->first; p; p = p->next)
        loop_deadline_clear(c->loop, &p->deadline);
    stream_close(&c->stream, STREAM_END_CLOSE);
}

void redis_close(struct redis_conn *c)
{
    fail(c, ERR_CLOSED, "closed by the gateway");
}

/* --- commands --------------------------------------------------------------------------------------- */

/* Sends what was collected and then `p`. */
static void send_bytes(struct redis_conn *c, const char *p, size_t n)
{
    if (c->is_corked && n <= sizeof c->out - c->out_n) {
        memcpy(c->out + c->out_n, p, n);
        c->out_n += n;
        return;
    }
    struct iovec iov[] = {{c->out, c->out_n}, {(void *)(uintptr_t)p, n}}; /* the stream only reads it */
    c->out_n = 0;
    /* A write that fails is not the end: the server may have said why before it closed. Reading finds out. */
    if (stream_write(&c->stream, iov, 2) == ERR_NOMEM) fail(c, ERR_NOMEM, "no memory for sending");
}

static void uncork(struct redis_conn *c)
{
    c->is_corked = false;
    if (c->state != REDIS_CLOSING && c->out_n > 0) send_bytes(c, NULL, 0);
}

static void on_command_due(struct wheel_entry *e)
{
    struct pending *p = (struct pending *)((char *)e - offsetof(struct pending, deadline));
    fail(p->conn, ERR_TIMEOUT, "no reply in time; %zu commands wait", p->conn->npending);
}

static enum err pending_push(struct redis_conn *c, redis_reply_fn fn, void *arg)
{
    struct pending *p = calloc(1, sizeof *p);
    if (!p) return ERR_NOMEM;
    p->conn = c;
    p->fn = fn;
    p->arg = arg;
    wheel_entry_init(&p->deadline, on_command_due);
    *c->last = p;
    c->last = &p->next;
    c->npending++;
    return ERR_OK;
}

/* Takes the oldest pending command out and calls its callback. */
static void pending_answer(struct redis_conn *c, const redisReply *reply)
{
    struct pending *p = c->first;
    c->first = p->next;
    if (!c->first) c->last = &c->first;
    c->npending--;
    loop_deadline_clear(c->loop, &p->deadline);
    redis_reply_fn fn = p->fn;
    void *arg = p->arg;
    free(p);
    fn(c, reply, arg);
}

/* Errors: ERR_NOMEM. */
static enum err format_command(int argc, const char *const *argv, const size_t *lengths, char **out,
                               size_t *n)
{
    command_length length = redisFormatCommandArgv(out, argc, (const char **)(uintptr_t)argv, lengths);
    if (length < 0) return ERR_NOMEM;
    *n = (size_t)length;
    return ERR_OK;
}

/* Sends a command of the handshake, which has one deadline as a whole. */
static void handshake_command(struct redis_conn *c, redis_reply_fn fn, int argc, const char *const *argv)
{
    char *bytes;
    size_t n;
    enum err e = format_command(argc, argv, NULL, &bytes, &n);
    if (!e) {
        e = pending_push(c, fn, NULL);
        if (!e) send_bytes(c, bytes, n);
        redisFreeCommand(bytes);
    }
    if (e) fail(c, e, "no memory for the handshake");
}

enum err redis_command(struct redis_conn *c, uint64_t timeout_ms, redis_reply_fn fn, void *arg, int argc,
                       const char *const *argv, const size_t *lengths)
{
    if (c->state != REDIS_READY) return ERR_CLOSED;
    if (c->npending >= REDIS_PENDING_MAX) return ERR_LIMIT;
    char *bytes;
    size_t n;
    enum err e = format_command(argc, argv, lengths, &bytes, &n);
    if (e) return e;
    struct pending **at = c->last;
    e = pending_push(c, fn, arg);
    if (!e) {
        loop_deadline(c->loop, &(*at)->deadline, timeout_ms ? timeout_ms : c->command_timeout_ms);
        send_bytes(c, bytes, n);
    }
    redisFreeCommand(bytes);
    return e;
}

/* --- handshake -------------------------------------------------------------------------------------- */

static void become_ready(struct redis_conn *c)
{
    loop_deadline_clear(c->loop, &c->handshake_deadline);
    set_state(c, REDIS_READY);
    c->events->on_ready(c, c->user);
}

static void fail_by_reply(struct redis_conn *c, const char *doing, const redisReply *reply)
{
    char text[REDIS_CAUSE_MAX];
    enum err e = redis_error_explain(reply, text, sizeof text);
    fail(c, e, "%s: %s", doing, text);
}

static void on_role(struct redis_conn *c, const redisReply *reply, void *arg)
{
    (void)arg;
    if (!reply) return;
    if (reply->type == REDIS_REPLY_ERROR) {
        fail_by_reply(c, "ROLE", reply);
        return;
    }
    const redisReply *role =
        reply->type == REDIS_REPLY_ARRAY && reply->elements > 0 ? reply->element[0] : NULL;
    if (!role || role->type != REDIS_REPLY_STRING)
        fail(c, ERR_PARSE, "ROLE: the answer names no role");
    else if (!span_eq(span_of(role->str, role->len), SPAN("master")))
        fail(c, ERR_CONFLICT, "the server is not the master (ROLE)");
    else
        become_ready(c);
}

static void send_role(struct redis_conn *c)
{
    if (c->must_be_master)
        handshake_command(c, on_role, 1, (const char *[]){"ROLE"});
    else
        become_ready(c);
}

/* The name is only for people who look at CLIENT LIST: a user who may not set it, or a server that does not
 * know the command, is no reason to stay away. Without AUTH this is where the server says that it wants one.
 */
static void on_name(struct redis_conn *c, const redisReply *reply, void *arg)
{
    (void)arg;
    if (!reply) return;
    struct span code = redis_error_code(reply);
    bool may_go_on = span_eq(code, SPAN("NOPERM")) || span_eq(code, SPAN("ERR"));
    if (reply->type == REDIS_REPLY_ERROR && !may_go_on)
        fail_by_reply(c, "CLIENT SETNAME", reply);
    else
        send_role(c);
}

static void send_name(struct redis_conn *c)
{
    if (c->client_name)
        handshake_command(c, on_name, 3, (const char *[]){"CLIENT", "SETNAME", c->client_name});
    else
        send_role(c);
}

static void on_auth(struct redis_conn *c, const redisReply *reply, void *arg)
{
    (void)arg;
    if (!reply) return;
    if (reply->type != REDIS_REPLY_ERROR) {
        send_name(c);
        return;
    }
    char text[REDIS_CAUSE_MAX];
    enum err e = redis_error_explain_secret(reply, text, sizeof text);
    fail(c, e, "AUTH: %s", text);
}

static void send_auth(struct redis_conn *c)
{
    if (!c->auth) {
        send_name(c);
        return;
    }
    enum err e = pending_push(c, on_auth, NULL);
    if (e) {
        fail(c, e, "no memory for the handshake");
        return;
    }
    send_bytes(c, c->auth,
               c->auth_bytes); /* a new socket has room for it: no copy stays behind in the stream */
    wipe_auth(c);
}

static void on_handshake_due(struct wheel_entry *e)
{
    struct redis_conn *c = (struct redis_conn *)((char *)e - offsetof(struct redis_conn, handshake_deadline));
    const char *what = c->stream.state == STREAM_HANDSHAKE ? "connected, but no TLS handshake"
                       : c->state == REDIS_CONNECTING      ? "no connection"
                                                           : "connected, but no answer";
    fail(c, ERR_TIMEOUT, "%s within %" PRIu64 " ms", what, c->connect_timeout_ms);
}

/* --- events of the stream --------------------------------------------------------------------------- */

static void on_connected(struct stream *s)
{
    struct redis_conn *c = conn_of(s);
    set_state(c, REDIS_HANDSHAKE);
    send_auth(c);
}

static bool on_reply(const redisReply *reply, void *arg)
{
    struct redis_conn *c = arg;
    if (c->first)
        pending_answer(c, reply);
    else if (reply->type == REDIS_REPLY_ERROR) /* said before it closes, for example */
        fail_by_reply(c, "the server ended the connection", reply);
    else
        fail(c, ERR_PARSE, "a reply to no command");
    return c->state != REDIS_CLOSING;
}

static void on_read(struct stream *s, const char *p, size_t n)
{
    struct redis_conn *c = conn_of(s);
    c->is_corked = true;
    enum err e = redis_reader_take(&c->reader, p, n, on_reply, c);
    if (e) fail(c, e, "bad reply: %s", redis_reader_fault(&c->reader));
    uncork(c);
}

static void on_eof(struct stream *s)
{
    struct redis_conn *c = conn_of(s);
    const char *when = redis_reader_is_partial(&c->reader) ? " in the middle of a reply" : "";
    fail(c, ERR_EOF, "the server closed the connection%s; %zu commands waited", when, c->npending);
}

static void on_drained(struct stream *s)
{
    (void)s; /* REDIS_PENDING_MAX bounds what is written */
}

/* ERR_REFUSED says that the server refused the login, not the connection. */
static enum err unreachable(enum err e)
{
    return e == ERR_REFUSED ? ERR_UNREACHABLE : e;
}

static void on_failed(struct stream *s, enum err e)
{
    struct redis_conn *c = conn_of(s);
    const char *reason = stream_tls_reason(s);
    if (e == ERR_TLS)
        fail(c, e, "TLS: %s", reason ? reason : err_text(e));
    else if (c->state == REDIS_CONNECTING)
        fail(c, unreachable(e), "cannot connect: %s", err_text(e));
    else
        fail(c, e, "the connection broke: %s; %zu commands waited", err_text(e), c->npending);
}

static void on_closed(struct stream *s)
{
    struct redis_conn *c = conn_of(s);
    while (c->first)
        pending_answer(c, NULL);
    c->events->on_closed(c, c->error, c->cause, c->user);
    conn_free(c);
}

static const struct stream_events stream_events = {
    .on_connected = on_connected,
    .on_read = on_read,
    .on_eof = on_eof,
    .on_drained = on_drained,
    .on_failed = on_failed,
    .on_closed = on_closed,
};

/* --- open ------------------------------------------------------------------------------------------- */

static enum err keep_options(struct redis_conn *c, const struct redis_options *o)
{
    c->connect_timeout_ms = o->connect_timeout_ms;
    c->command_timeout_ms = o->command_timeout_ms;
    c->must_be_master = o->must_be_master;
    if (o->client_name) {
        c->client_name = strdup(o->client_name);
        if (!c->client_name) return ERR_NOMEM;
    }
    if (!o->password) return ERR_OK;
    const char *with_user[] = {"AUTH", o->user, o->password};
    const char *without[] = {"AUTH", o->password};
    return format_command(o->user ? 3 : 2, o->user ? with_user : without, NULL, &c->auth, &c->auth_bytes);
}

enum err redis_open(struct loop *l, const struct redis_options *o, const struct redis_events *events,
                    void *user, struct redis_conn **out)
{
    struct redis_conn *c = calloc(1, sizeof *c);
    if (!c) return ERR_NOMEM;
    c->loop = l;
    c->events = events;
    c->user = user;
    c->last = &c->first;
    wheel_entry_init(&c->handshake_deadline, on_handshake_due);
    enum err e = keep_options(c, o);
    if (!e) e = redis_reader_init(&c->reader);
    if (!e)
        e = o->tls ? stream_connect_tls(&c->stream, l, o->address, o->tls, &stream_events)
                   : stream_connect(&c->stream, l, o->address, &stream_events);
    if (e) {
        conn_free(c);
        return unreachable(e);
    }
    loop_deadline(l, &c->handshake_deadline, c->connect_timeout_ms);
    *out = c;
    return ERR_OK;
}
