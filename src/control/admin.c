#include "control/admin.h"

#include "base/container.h"
#include "base/fd.h"
#include "http/reply.h"
#include "http/scan.h"
#include "net/stream.h"

#include <stdlib.h>
#include <unistd.h>

enum { ANSWER_HEAD_MAX = 512 };

struct admin_conn {
    struct stream stream; /* first */
    struct admin *admin;
    struct list_link link; /* admin->conns */
    struct wheel_entry timer;
    struct head_scan scan;
    struct admin_call *call; /* waits for its answer; or NULL */
    size_t head_bytes;       /* of the head, once it is complete */
    size_t whole_bytes;      /* of head and body */
    size_t n;                /* received */
    bool answered;
    char bytes[ADMIN_REQUEST_BYTES];
};

static struct admin_conn *conn_of(struct stream *s)
{
    return (struct admin_conn *)s;
}

/* A call that is not answered yet outlives the connection. */
static void close_conn(struct admin_conn *c)
{
    if (c->stream.state != STREAM_OPEN) return;
    if (c->call) c->call->conn = NULL;
    c->call = NULL;
    c->admin->nconns--;
    loop_deadline_clear(c->admin->loop, &c->timer);
    stream_close(&c->stream, STREAM_END_CLOSE);
}

static void write_head(struct outbuf *o, unsigned status, const char *content_type, size_t length)
{
    outbuf_fmt(o, "HTTP/1.1 %u %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nCache-Control: no-store\r\n",
               status, status_phrase(status), content_type, length);
    if (status == 405) outbuf_str(o, "Allow: GET, HEAD, POST\r\n");
    outbuf_str(o, "Connection: close\r\n\r\n");
}

static void send_answer(struct admin_conn *c, unsigned status, const char *content_type, struct span body)
{
    char head[ANSWER_HEAD_MAX];
    struct outbuf o = outbuf_of(head, sizeof head);
    bool head_only = span_starts(span_of(c->bytes, c->n), SPAN("HEAD "));
    write_head(&o, status, content_type, body.n);
    struct iovec iov[2] = {{.iov_base = o.p, .iov_len = o.n},
                           {.iov_base = (void *)(uintptr_t)body.p, .iov_len = body.n}};
    c->answered = true;
    loop_deadline(c->admin->loop, &c->timer, ADMIN_DEADLINE_MS);
    bool is_lost = stream_write(&c->stream, iov, head_only ? 1 : 2) != ERR_OK;
    if (!is_lost) stream_shutdown(&c->stream); /* then its FIN, or the deadline, ends the connection */
    if (is_lost || (c->stream.eof && !stream_is_blocked(&c->stream))) close_conn(c);
}

static void send_text(struct admin_conn *c, unsigned status, const char *text)
{
    send_answer(c, status, "text/plain", span_str(text));
}

static void send_error(struct admin_conn *c, unsigned status, const char *json)
{
    send_answer(c, status, "application/json", span_str(json));
}

/* --- calls ----------------------------------------------------------------------------------------- */

static struct admin_call *create_call(struct admin_conn *c, const struct admin_route *route)
{
    struct admin_call *call = malloc(sizeof *call + route->body_bytes_max);
    if (!call) return NULL;
    *call = (struct admin_call){.admin = c->admin, .conn = c, .route = route};
    call->out = outbuf_of((char *)(call + 1), route->body_bytes_max);
    return call;
}

static void finish_call(struct admin_call *call, unsigned status)
{
    struct outbuf *o = &call->out;
    if (o->overflow) { /* a page that is cut must not look whole */
        o->n = 0;
        status = 500;
    }
    if (call->conn) {
        call->conn->call = NULL;
        send_answer(call->conn, status, call->route->content_type, span_of(o->p, o->n));
    }
    free(call);
}

static void link_call(struct admin_call *call)
{
    struct admin *a = call->admin;
    call->conn->call = call;
    loop_deadline(a->loop, &call->conn->timer,
                  call->route->wait_ms); /* it is not the client that we wait for */
    a->ncalls++;
    call->query = call->body = span_of(NULL, 0);
    list_prepend(&a->calls, &call->link);
}

static void unlink_call(struct admin_call *call)
{
    list_remove(&call->link);
    call->admin->ncalls--;
}

/* The call goes on without its client. */
static void give_up(struct admin_conn *c)
{
    c->call->conn = NULL;
    c->call = NULL;
    send_error(
        c, 504,
        "{\"error\":\"there was no answer in time: a worker is busy, or hangs; it may still be done\"}\n");
}

void admin_answer(struct admin_call *call, unsigned status)
{
    unlink_call(call);
    finish_call(call, status);
}

static void run_route(struct admin_conn *c, const struct admin_route *route, struct span query)
{
    if (route->wait_ms && c->admin->ncalls == ADMIN_CALLS_MAX) {
        send_error(c, 503, "{\"error\":\"too many calls wait for an answer already: a worker may hang\"}\n");
        return;
    }
    struct admin_call *call = create_call(c, route);
    if (!call) {
        send_text(c, 503, "out of memory\n");
        return;
    }
    call->query = query;
    call->body = span_of(c->bytes + c->head_bytes, c->whole_bytes - c->head_bytes);
    unsigned status = route->answer(c->admin->arg, call);
    if (status == ADMIN_LATER)
        link_call(call);
    else
        finish_call(call, status);
}

struct span admin_parameter(struct span query, const char *name)
{
    struct span wanted = span_str(name);
    while (query.n) {
        const char *end = memchr(query.p, '&', query.n);
        struct span part = span_of(query.p, end ? (size_t)(end - query.p) : query.n);
        query = end ? span_of(end + 1, query.n - part.n - 1) : span_of(NULL, 0);
        if (part.n > wanted.n && span_starts(part, wanted) && part.p[wanted.n] == '=')
            return span_of(part.p + wanted.n + 1, part.n - wanted.n - 1);
    }
    return span_of(NULL, 0);
}

/* --- requests -------------------------------------------------------------------------------------- */

static enum head_refusal parse(struct admin_conn *c)
{
    static const struct head_limits limits = {
        .fields_max = HTTP_FIELDS_MAX, .target_bytes_max = 1024, .alias = ALIAS_ALLOW};
    return http_parse_request(c->admin->parser, c->bytes, c->head_bytes, &limits, c->admin->req);
}

/* The guard against DNS rebinding, see the header. Without a Host it is HTTP/1.0, which no browser sends. */
static bool is_host_allowed(const struct admin *a)
{
    struct span host = a->req->host;
    struct addr address;
    if (!a->is_tcp || host.n == 0 || span_ieq(host, SPAN("localhost"))) return true;
    if (host.p[0] == '[') host = span_of(host.p + 1, host.n - 2);
    return addr_parse(host, &address) == ERR_OK;
}

static void answer(struct admin_conn *c)
{
    struct admin *a = c->admin;
    (void)parse(c); /* again: another connection may have used the scratch since */
    if (!is_host_allowed(a)) {
        send_text(c, 421, "ask by address, or as localhost\n");
        return;
    }
    enum http_method method = a->req->method == METHOD_HEAD ? METHOD_GET : a->req->method;
    const struct target *target = &a->req->parts;
    bool is_known = false;
    for (const struct admin_route *r = a->routes; r->path; r++) {
        if (!span_eq(target->path, span_str(r->path))) continue;
        is_known = true;
        if (r->method != method) continue;
        run_route(c, r, target->query);
        return;
    }
    if (is_known)
        send_text(c, 405, "another method is wanted here\n");
    else
        send_text(c, 404, "not found: try /healthz, /readyz or /metrics\n");
}

/* The head is complete: finds out how long the whole request is, or refuses it. */
static void measure(struct admin_conn *c)
{
    c->head_bytes = c->scan.end;
    enum head_refusal refusal = parse(c);
    const struct req_head *req = c->admin->req;
    uint64_t length = req->body == BODY_LENGTH ? req->content_length : 0;
    if (refusal)
        send_text(c, 400, "bad request\n");
    else if (req->body == BODY_CHUNKED)
        send_text(c, 411, "give the length of the body\n");
    else if (length > sizeof c->bytes - c->head_bytes)
        send_text(c, 413, "request too large\n");
    else
        c->whole_bytes = c->head_bytes + (size_t)length;
}

static void on_read(struct stream *s, const char *p, size_t n)
{
    struct admin_conn *c = conn_of(s);
    if (c->answered || c->call) return; /* bytes behind the request are dropped */
    if (n > sizeof c->bytes - c->n) {
        send_text(c, 431, "request too large\n");
        return;
    }
    memcpy(c->bytes + c->n, p, n);
    c->n += n;
    if (c->head_bytes == 0) {
        enum scan_result r = head_scan(&c->scan, c->bytes, c->n);
        if (r == SCAN_REFUSE) send_text(c, 400, "bad request\n");
        if (r == SCAN_DONE) measure(c);
    }
    if (c->whole_bytes && c->n >= c->whole_bytes && !c->answered) answer(c);
}

/* --- connections ----------------------------------------------------------------------------------- */

/* A client may send its FIN as soon as it has asked: it is answered all the same. */
static void on_eof(struct stream *s)
{
    if (!stream_is_blocked(s) && !conn_of(s)->call) close_conn(conn_of(s)); /* else on_drained does */
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
    list_remove(&c->link);
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
    struct admin_conn *c = CONTAINER_OF(e, struct admin_conn, timer);
    if (c->call)
        give_up(c);
    else
        close_conn(c);
}

/* Checks the user at the other end as well, because the mode of the socket protects no better than that of
 * its folder. */
static bool may_ask(const struct admin *a, int fd)
{
    uid_t uid;
    return !a->is_private || (socket_peer_user(fd, &uid) == ERR_OK && (uid == 0 || uid == geteuid()));
}

/* The connection that has been open for longest, of those that no worker owes an answer; or NULL. */
static struct admin_conn *slowest(const struct admin *a)
{
    struct admin_conn *found = NULL;
    LIST_EACH(link, &a->conns) {
        struct admin_conn *c = CONTAINER_OF(link, struct admin_conn, link);
        if (c->stream.state == STREAM_OPEN && !c->call) found = c;
    }
    return found;
}

/* Place for one more: an answer takes no time, so whoever has been here for longest is slow, and must not
 * keep others out. */
static void make_room(struct admin *a, uint32_t most)
{
    for (struct admin_conn *c; a->nconns >= most && (c = slowest(a));)
        close_conn(c);
}

static void on_accept(struct listener *l, int fd, const struct sockaddr *from)
{
    struct admin *a = l->user;
    struct admin_conn *c = may_ask(a, fd) ? calloc(1, sizeof *c) : NULL;
    (void)from;
    if (!c) {
        (void)close(fd);
        return;
    }
    if (stream_open(&c->stream, a->loop, fd, &events)) {
        free(c);
        return;
    }
    c->stream.is_unix = !a->is_tcp;
    make_room(a, fd_is_reserved(fd) ? ADMIN_RESERVED_MAX : ADMIN_CONNECTIONS_MAX);
    c->admin = a;
    list_prepend(&a->conns, &c->link);
    a->nconns++;
    wheel_entry_init(&c->timer, on_timer);
    loop_deadline(a->loop, &c->timer, ADMIN_DEADLINE_MS);
}

enum err admin_open(struct admin *a, struct loop *loop, int fd, const struct admin_route *routes, void *arg)
{
    struct socket_address bound;
    *a = (struct admin){.loop = loop, .routes = routes, .arg = arg};
    list_init(&a->conns);
    list_init(&a->calls);
    a->is_tcp = socket_local(fd, &bound) != ERR_OK || bound.any.sa_family != AF_UNIX;
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
    LIST_EACH(link, &a->conns)
        close_conn(CONTAINER_OF(link, struct admin_conn, link));
}

void admin_deinit(struct admin *a)
{
    if (!a->loop) return; /* it was never opened */
    while (!list_is_empty(&a->calls)) {
        struct admin_call *call = CONTAINER_OF(a->calls.next, struct admin_call, link);
        list_remove(&call->link);
        free(call);
    }
    http_parser_destroy(a->parser);
    free(a->req);
    a->parser = NULL;
    a->req = NULL;
}
