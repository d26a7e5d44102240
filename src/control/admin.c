#include "control/admin.h"

#include "base/container.h"
#include "http/head.h"
#include "http/reply.h"
#include "http/scan.h"
#include "net/stream.h"

#include <stdlib.h>
#include <unistd.h>

enum { ANSWER_HEAD_MAX = 512 };

struct admin_conn {
    struct stream stream; /* first */
    struct admin *admin;
    struct admin_conn *prev, *next;
    struct wheel_entry timer;
    struct head_scan scan;
    size_t n;
    bool answered;
    char head[ADMIN_HEAD_BYTES];
};

static struct admin_conn *conn_of(struct stream *s)
{
    return (struct admin_conn *)s;
}

static void close_conn(struct admin_conn *c)
{
    if (c->stream.state != STREAM_OPEN) return;
    loop_deadline_clear(c->admin->loop, &c->timer);
    stream_close(&c->stream, STREAM_END_CLOSE);
}

static void write_head(struct outbuf *o, unsigned status, const char *content_type, size_t length)
{
    outbuf_fmt(o, "HTTP/1.1 %u %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nCache-Control: no-store\r\n",
               status, status_phrase(status), content_type, length);
    if (status == 405) outbuf_str(o, "Allow: GET, HEAD\r\n");
    outbuf_str(o, "Connection: close\r\n\r\n");
}

static void send_answer(struct admin_conn *c, unsigned status, const char *content_type, struct span body,
                        bool head_only)
{
    char head[ANSWER_HEAD_MAX];
    struct outbuf o = outbuf_of(head, sizeof head);
    write_head(&o, status, content_type, body.n);
    struct iovec iov[2] = {{.iov_base = o.p, .iov_len = o.n},
                           {.iov_base = (void *)(uintptr_t)body.p, .iov_len = body.n}};
    c->answered = true;
    if (stream_write(&c->stream, iov, head_only ? 1 : 2))
        close_conn(c);
    else
        stream_shutdown(&c->stream); /* then its FIN, or the deadline, ends the connection */
}

static void run_route(struct admin_conn *c, const struct admin_route *route, bool head_only)
{
    char *memory = malloc(route->body_bytes_max);
    struct outbuf body = outbuf_of(memory, memory ? route->body_bytes_max : 0);
    unsigned status = memory ? route->answer(c->admin->arg, &body) : 503;
    if (body.overflow) { /* a page that is cut must not look whole */
        body.n = 0;
        status = 500;
    }
    send_answer(c, status, route->content_type, span_of(body.p, body.n), head_only);
    free(memory);
}

static void answer(struct admin_conn *c, size_t head_bytes)
{
    static const struct head_limits limits = {
        .fields_max = HTTP_FIELDS_MAX, .target_bytes_max = 1024, .alias = ALIAS_ALLOW};
    struct admin *a = c->admin;
    enum head_refusal refusal = http_parse_request(a->parser, c->head, head_bytes, &limits, a->req);
    bool head_only = a->req->method == METHOD_HEAD;
    if (refusal) {
        send_answer(c, 400, "text/plain", SPAN("bad request\n"), false);
        return;
    }
    if (a->req->method != METHOD_GET && !head_only) {
        send_answer(c, 405, "text/plain", SPAN("GET or HEAD only\n"), false);
        return;
    }
    struct span path = a->req->target;
    const char *query = memchr(path.p, '?', path.n);
    if (query) path.n = (size_t)(query - path.p);
    for (const struct admin_route *r = a->routes; r->path; r++) {
        if (!span_eq(path, span_str(r->path))) continue;
        run_route(c, r, head_only);
        return;
    }
    send_answer(c, 404, "text/plain", SPAN("not found: try /healthz, /readyz or /metrics\n"), head_only);
}

static void on_read(struct stream *s, const char *p, size_t n)
{
    struct admin_conn *c = conn_of(s);
    if (c->answered) return; /* dropped */
    if (n > sizeof c->head - c->n) {
        send_answer(c, 431, "text/plain", SPAN("request too large\n"), false);
        return;
    }
    memcpy(c->head + c->n, p, n);
    c->n += n;
    switch (head_scan(&c->scan, c->head, c->n)) {
    case SCAN_MORE: return;
    case SCAN_REFUSE: send_answer(c, 400, "text/plain", SPAN("bad request\n"), false); return;
    case SCAN_DONE: answer(c, c->scan.end); return;
    }
}

static void on_eof(struct stream *s)
{
    if (!stream_is_blocked(s)) close_conn(conn_of(s)); /* else on_drained does */
}

static void on_drained(struct stream *s)
{
    if (s->eof || s->write_failed) close_conn(conn_of(s));
}

static void on_failed(struct stream *s, enum err e)
{
    (void)e;
    close_conn(conn_of(s));
}

static void on_closed(struct stream *s)
{
    struct admin_conn *c = conn_of(s);
    if (c->prev)
        c->prev->next = c->next;
    else
        c->admin->conns = c->next;
    if (c->next) c->next->prev = c->prev;
    c->admin->nconns--;
    free(c);
}

static const struct stream_events events = {
    .on_read = on_read,
    .on_eof = on_eof,
    .on_drained = on_drained,
    .on_failed = on_failed,
    .on_closed = on_closed,
};

static void on_timer(struct wheel_entry *e)
{
    close_conn(CONTAINER_OF(e, struct admin_conn, timer));
}

static void on_accept(struct listener *l, int fd, const struct sockaddr *from)
{
    struct admin *a = l->user;
    struct admin_conn *c = a->nconns < ADMIN_CONNECTIONS_MAX ? calloc(1, sizeof *c) : NULL;
    (void)from;
    if (!c) {
        (void)close(fd);
        return;
    }
    if (stream_open(&c->stream, a->loop, fd, &events)) {
        free(c);
        return;
    }
    c->admin = a;
    c->next = a->conns;
    if (c->next) c->next->prev = c;
    a->conns = c;
    a->nconns++;
    wheel_entry_init(&c->timer, on_timer);
    loop_deadline(a->loop, &c->timer, ADMIN_DEADLINE_MS);
}

enum err admin_open(struct admin *a, struct loop *loop, int fd, const struct admin_route *routes, void *arg)
{
    *a = (struct admin){.loop = loop, .routes = routes, .arg = arg};
    a->parser = http_parser_create();
    a->req = malloc(sizeof *a->req);
    if (!a->parser || !a->req) {
        (void)close(fd);
        return ERR_NOMEM;
    }
    enum err e = listener_open(&a->listener, loop, fd, on_accept, a);
    a->open = e == ERR_OK;
    return e;
}

void admin_close(struct admin *a)
{
    if (!a->open) return;
    a->open = false;
    listener_close(&a->listener, NULL);
    for (struct admin_conn *c = a->conns; c; c = c->next)
        close_conn(c);
}

void admin_deinit(struct admin *a)
{
    http_parser_destroy(a->parser);
    free(a->req);
    a->parser = NULL;
    a->req = NULL;
}
