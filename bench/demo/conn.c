#include "demo/conn.h"

#include "demo/routes.h"
#include "demo/ws.h"
#include "http/body.h"
#include "http/reply.h"
#include "http/scan.h"
#include "http/ws.h"
#include "net/stream.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    LINGER_MS = 5000,
    RETRY_MS = 100, /* an event that met the middle of an echoed frame */
};

enum demo_state {
    DEMO_HEAD = 0, /* `input` holds the part of a head that came; no request */
    DEMO_BODY,     /* `head` and `reader` are set */
    DEMO_ANSWER,   /* `answer` is going out; `input` holds what came early; reading is paused */
    DEMO_WS,       /* `ws` is set */
    DEMO_LINGER,   /* FIN sent; what comes is dropped */
};

struct demo_conn {
    struct stream stream;
    struct demo_worker *worker;
    struct wheel_entry timer; /* the next piece of a slow answer, the next event, the end of lingering */
    enum demo_state state;
    struct head_scan scan; /* of `input` */
    char *input;           /* owned; NULL when empty */
    size_t ninput;
    char *head; /* owned; of the request whose body is being read */
    size_t nhead;
    struct body_reader reader;
    EVP_MD_CTX *digest; /* owned; of a body on its way to /widget/echo, else NULL */
    char *body;         /* owned; its first bytes */
    size_t nbody;
    bool head_sent; /* of `answer` */
    struct demo_answer answer;
    struct demo_ws ws;
};

static const struct head_limits head_limits = {
    .fields_max = HTTP_FIELDS_MAX,
    .target_bytes_max = DEMO_READ_BYTES,
    .alias = ALIAS_ALLOW, /* whatever the gateway lets through is shown */
};

static const struct body_limits body_limits = {
    .body_bytes_max = UINT64_MAX,
    .chunk_ext_bytes_max = 4096,
    .trailer_bytes_max = 4096,
};

static const uint8_t empty_sha256[DEMO_SHA256_LEN] = {
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
    0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
};

static void conn_close(struct demo_conn *c)
{
    loop_deadline_clear(&c->worker->loop, &c->timer);
    stream_close(&c->stream, STREAM_END_CLOSE);
}

static bool is_open(const struct demo_conn *c)
{
    return c->stream.state == STREAM_OPEN;
}

static void conn_write(struct demo_conn *c, const struct outbuf *o)
{
    struct iovec iov = {o->p, o->n};
    if (o->overflow || stream_write(&c->stream, &iov, 1)) conn_close(c);
}

static void set_timer(struct demo_conn *c, uint32_t ms)
{
    loop_deadline(&c->worker->loop, &c->timer, ms);
}

static void linger(struct demo_conn *c)
{
    c->state = DEMO_LINGER;
    stream_read_resume(&c->stream);
    stream_shutdown(&c->stream);
    set_timer(c, LINGER_MS);
}

static void write_head(struct demo_conn *c, struct outbuf *o)
{
    const struct demo_answer *a = &c->answer;
    if (a->early_hints) outbuf_str(o, "HTTP/1.1 103 Early Hints\r\nLink: </widget.css>; rel=preload\r\n\r\n");
    outbuf_str(o, "HTTP/1.1 ");
    outbuf_u64(o, a->status);
    outbuf_char(o, ' ');
    outbuf_str(o, status_phrase(a->status));
    outbuf_str(o, "\r\nDate: ");
    http_date_write(o, c->worker->loop.wall_ms);
    outbuf_str(o, a->json.p ? "\r\nContent-Type: application/json" : "\r\nContent-Type: text/plain");
    if (a->framing == DEMO_CHUNKED) {
        outbuf_str(o, "\r\nTransfer-Encoding: chunked");
    } else if (a->framing == DEMO_LENGTH && a->status != 204) {
        outbuf_str(o, "\r\nContent-Length: ");
        outbuf_u64(o, a->bytes);
    }
    outbuf_str(o, a->close ? "\r\nConnection: close\r\n\r\n" : "\r\n\r\n");
}

/* Writes up to `step_bytes` of the body, framed. */
static void write_body_step(const struct demo_worker *w, struct demo_answer *a, struct outbuf *o)
{
    if (a->json.p) {
        outbuf_span(o, a->json);
        a->left = 0;
        return;
    }
    uint64_t step = a->left < a->step_bytes ? a->left : a->step_bytes;
    while (step) {
        size_t n = a->framing == DEMO_CHUNKED && step > a->chunk_bytes ? a->chunk_bytes : (size_t)step;
        if (a->framing == DEMO_CHUNKED) outbuf_fmt(o, "%zx\r\n", n);
        outbuf_bytes(o, w->alphabets + (a->bytes - a->left) % 26, n);
        if (a->framing == DEMO_CHUNKED) outbuf_str(o, "\r\n");
        a->left -= n;
        step -= n;
        if (o->n > DEMO_OUT_BYTES / 2) return; /* tiny chunks: the rest in the next write */
    }
}

static void finish_answer(struct demo_conn *c)
{
    if (c->answer.close) {
        linger(c);
        return;
    }
    c->state = DEMO_HEAD;
    head_scan_init(&c->scan);
}

/* Sends as much of the answer as may go now; ends in DEMO_HEAD or DEMO_LINGER when it was all. */
static void send_answer(struct demo_conn *c)
{
    struct demo_answer *a = &c->answer;
    while (c->state == DEMO_ANSWER && is_open(c) && !stream_is_blocked(&c->stream)) {
        struct outbuf o = outbuf_of(c->worker->out, sizeof c->worker->out);
        bool waits = !c->head_sent && a->body_ms;
        uint32_t wait_ms = waits ? a->body_ms : a->gap_ms;
        if (!c->head_sent) write_head(c, &o);
        c->head_sent = true;
        if (a->no_body) a->left = 0;
        bool has_body = a->left > 0;
        if (!waits && has_body) write_body_step(c->worker, a, &o);
        bool done = !waits && a->left == 0;
        if (done && a->framing == DEMO_CHUNKED && !a->no_body) outbuf_str(&o, "0\r\n\r\n");
        conn_write(c, &o);
        if (!is_open(c)) return;
        if (done) {
            finish_answer(c);
        } else if (wait_ms) {
            set_timer(c, wait_ms);
            return;
        }
    }
}

/* Writes what is in `o` and the event that is due. */
static void write_event(struct demo_conn *c, struct outbuf *o)
{
    bool pushed = demo_ws_push(&c->ws, o);
    if (o->n) conn_write(c, o);
    if (!is_open(c)) return;
    uint32_t wait_ms = pushed ? demo_ws_wait_ms(&c->ws) : RETRY_MS;
    if (wait_ms) set_timer(c, wait_ms);
    if (c->ws.ended) linger(c);
}

static void start_ws(struct demo_conn *c, const struct demo_request *r, struct span key)
{
    struct outbuf o = outbuf_of(c->worker->out, sizeof c->worker->out);
    if (demo_ws_open(&c->ws, r, key, c->worker->update_interval_ms, &o)) {
        conn_close(c);
        return;
    }
    c->state = DEMO_WS;
    write_event(c, &o); /* the first one comes with the 101 */
}

/* The request is complete: `c->worker->head` and the first bytes of its body. */
static void answer_request(struct demo_conn *c, struct span body)
{
    struct demo_worker *w = c->worker;
    struct span key;
    struct demo_request r = {.head = &w->head, .body = body, .body_bytes = c->reader.total};
    memcpy(r.body_sha256, empty_sha256, sizeof empty_sha256);
    if (c->digest)
        (void)EVP_DigestFinal_ex(c->digest, r.body_sha256, NULL); /* cannot fail for SHA-256 in memory */
    demo_split_target(&w->head, &r);
    if (span_eq(r.path, SPAN("/ws")) && ws_is_upgrade_request(&w->head, &key)) {
        start_ws(c, &r, key);
        return;
    }
    demo_route(w, &r, &c->answer);
    c->state = DEMO_ANSWER;
    c->head_sent = false;
    if (c->answer.first_byte_ms)
        set_timer(c, c->answer.first_byte_ms);
    else
        send_answer(c);
}

static void refuse(struct demo_conn *c, enum head_refusal why)
{
    struct outbuf o = outbuf_of(c->worker->out, sizeof c->worker->out);
    const char *reason = head_refusal_text(why);
    outbuf_fmt(&o,
               "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n"
               "Connection: close\r\n\r\n%s\n",
               strlen(reason) + 1, reason);
    conn_write(c, &o);
    if (is_open(c)) linger(c);
}

static void drop_request(struct demo_conn *c)
{
    free(c->head);
    free(c->body);
    EVP_MD_CTX_free(c->digest);
    c->head = c->body = NULL;
    c->digest = NULL;
    c->nbody = 0;
}

static bool is_digested(const struct req_head *head)
{
    return span_starts(head->target, SPAN("/widget/echo"));
}

/* The body p[0..n) came with its head, as small ones do: answers without keeping either. Returns the bytes
 * used; 0 when the body is not all there, or has to be kept. */
static size_t take_small_body(struct demo_conn *c, const char *p, size_t n)
{
    const struct req_head *head = &c->worker->head;
    size_t used;
    struct span body;
    if (head->body != BODY_LENGTH || head->content_length > n || head->content_length > DEMO_BODY_KEPT_MAX ||
        is_digested(head) || body_read(&c->reader, p, n, &used, &body) != BODY_OK)
        return 0;
    answer_request(c, body);
    return used;
}

/* A head with a body: keeps the head for the answer. False when memory is out. */
static bool start_body(struct demo_conn *c, const char *p, size_t n)
{
    c->head = malloc(n);
    c->body = malloc(DEMO_BODY_KEPT_MAX);
    if (!c->head || !c->body) return false;
    memcpy(c->head, p, n);
    c->nhead = n;
    if (is_digested(&c->worker->head)) {
        c->digest = EVP_MD_CTX_new();
        if (!c->digest || !EVP_DigestInit_ex(c->digest, EVP_sha256(), NULL)) return false;
    }
    c->state = DEMO_BODY;
    return true;
}

/* Takes one whole head from p[0..n). Returns the bytes used; 0 when it is not complete or was refused. */
static size_t take_head(struct demo_conn *c, const char *p, size_t n)
{
    struct req_head *head = &c->worker->head;
    if (c->scan.at == 0) {
        size_t blank = head_skip_crlf(p, n, 4);
        if (blank) return blank;
    }
    enum scan_result scanned = head_scan(&c->scan, p, n);
    if (scanned == SCAN_MORE && n < DEMO_READ_BYTES) return 0;
    enum head_refusal why = scanned == SCAN_REFUSE ? HEAD_REFUSAL_CONTROL_BYTES : HEAD_REFUSAL_HEAD_TOO_LARGE;
    if (scanned == SCAN_DONE) why = http_parse_request(c->worker->parser, p, c->scan.end, &head_limits, head);
    if (why != HEAD_REFUSAL_NONE) {
        refuse(c, why);
        return 0;
    }
    size_t used = c->scan.end;
    body_reader_init(&c->reader, head->body, head->content_length, &body_limits);
    if (head->body == BODY_NONE) {
        answer_request(c, span_of(NULL, 0));
        return used;
    }
    size_t body = n > used ? take_small_body(c, p + used, n - used) : 0;
    if (body) return used + body;
    if (!start_body(c, p, used)) {
        conn_close(c);
    } else if (head->expect_continue && used == n) {
        struct outbuf o = outbuf_of(c->worker->out, sizeof c->worker->out);
        outbuf_str(&o, "HTTP/1.1 100 Continue\r\n\r\n");
        conn_write(c, &o);
    }
    return used;
}

/* Takes one run of the body. Returns the bytes used, 0 when the framing is broken. */
static size_t take_body(struct demo_conn *c, const char *p, size_t n)
{
    size_t used;
    struct span data;
    if (body_read(&c->reader, p, n, &used, &data) != BODY_OK) {
        conn_close(c);
        return 0;
    }
    if (c->digest) (void)EVP_DigestUpdate(c->digest, data.p, data.n); /* cannot fail for SHA-256 in memory */
    size_t room = DEMO_BODY_KEPT_MAX - c->nbody;
    size_t kept = data.n < room ? data.n : room;
    if (kept) memcpy(c->body + c->nbody, data.p, kept);
    c->nbody += kept;
    if (body_is_done(&c->reader)) {
        /* It was accepted before; parsing again is simpler than keeping spans alive. */
        (void)http_parse_request(c->worker->parser, c->head, c->nhead, &head_limits, &c->worker->head);
        answer_request(c, span_of(c->body, c->nbody));
        drop_request(c);
    }
    return used;
}

static void take_frames(struct demo_conn *c, const char *p, size_t n)
{
    struct outbuf o = outbuf_of(c->worker->out, sizeof c->worker->out);
    demo_ws_read(&c->ws, p, n, &o);
    if (o.n) conn_write(c, &o);
    if (!is_open(c)) return;
    if (c->ws.ended)
        linger(c);
    else if (stream_is_blocked(&c->stream))
        stream_read_pause(&c->stream);
}

/* Request bytes can be worked on: an answer always starts with nothing in front of it. */
static bool may_take(const struct demo_conn *c)
{
    return is_open(c) && (c->state == DEMO_HEAD || c->state == DEMO_BODY) && !stream_is_blocked(&c->stream);
}

/* Works through p[0..n) until it is used up, or the connection has to wait; what is left is kept. */
static void consume(struct demo_conn *c, const char *p, size_t n)
{
    while (n && may_take(c)) {
        size_t used = c->state == DEMO_HEAD ? take_head(c, p, n) : take_body(c, p, n);
        if (used == 0) break;
        p += used;
        n -= used;
    }
    if (!is_open(c) || c->state == DEMO_LINGER) return;
    if (c->state == DEMO_WS) {
        if (n) take_frames(c, p, n);
        return;
    }
    if (!may_take(c)) stream_read_pause(&c->stream);
    if (n == 0) return;
    c->input = malloc(n);
    if (!c->input) {
        conn_close(c);
        return;
    }
    memcpy(c->input, p, n);
    c->ninput = n;
}

/* Works through what was kept. */
static void consume_input(struct demo_conn *c)
{
    char *kept = c->input;
    if (!kept) return;
    c->input = NULL;
    consume(c, kept, c->ninput);
    free(kept);
}

static void on_read(struct stream *s, const char *p, size_t n)
{
    struct demo_conn *c = (struct demo_conn *)s;
    if (c->state == DEMO_LINGER) return;
    if (c->state == DEMO_WS) {
        take_frames(c, p, n);
    } else if (!c->input) {
        consume(c, p, n);
    } else {
        char *grown = realloc(c->input, c->ninput + n);
        if (!grown) {
            conn_close(c);
            return;
        }
        memcpy(grown + c->ninput, p, n);
        c->input = grown;
        c->ninput += n;
        consume_input(c);
    }
}

static void resume_reading(struct demo_conn *c)
{
    if (!may_take(c)) return;
    stream_read_resume(&c->stream);
    consume_input(c);
}

/* The answer may go on: by time, or because the client has taken what was sent. */
static void resume_answer(struct demo_conn *c)
{
    send_answer(c);
    resume_reading(c);
}

static void on_drained(struct stream *s)
{
    struct demo_conn *c = (struct demo_conn *)s;
    switch (c->state) {
    case DEMO_HEAD:
    case DEMO_BODY: resume_reading(c); break;
    case DEMO_ANSWER:
        if (!list_is_linked(&c->timer.link)) resume_answer(c); /* else only the time is waited for */
        break;
    case DEMO_WS: stream_read_resume(s); break;
    case DEMO_LINGER:
        if (s->eof) conn_close(c);
        break;
    }
}

static void push_event(struct demo_conn *c)
{
    struct outbuf o = outbuf_of(c->worker->out, sizeof c->worker->out);
    if (stream_is_blocked(&c->stream))
        set_timer(c, RETRY_MS);
    else
        write_event(c, &o);
}

static void on_due(struct wheel_entry *e)
{
    struct demo_conn *c = (struct demo_conn *)((char *)e - offsetof(struct demo_conn, timer));
    switch (c->state) {
    case DEMO_HEAD:
    case DEMO_BODY: break;
    case DEMO_ANSWER: resume_answer(c); break;
    case DEMO_WS: push_event(c); break;
    case DEMO_LINGER:
        if (stream_is_blocked(&c->stream))
            set_timer(c, LINGER_MS); /* a slow reader still gets everything */
        else
            conn_close(c);
        break;
    }
}

static void on_eof(struct stream *s)
{
    struct demo_conn *c = (struct demo_conn *)s;
    if (stream_is_blocked(s))
        linger(c); /* it may still read */
    else
        conn_close(c);
}

static void on_failed(struct stream *s, enum err e)
{
    (void)e; /* a client that went away is nothing to tell */
    conn_close((struct demo_conn *)s);
}

static void on_closed(struct stream *s)
{
    struct demo_conn *c = (struct demo_conn *)s;
    drop_request(c);
    free(c->input);
    free(c);
}

static const struct stream_events events = {
    .on_read = on_read,
    .on_eof = on_eof,
    .on_drained = on_drained,
    .on_failed = on_failed,
    .on_closed = on_closed,
};

void demo_conn_accept(struct demo_worker *w, int fd)
{
    struct demo_conn *c = calloc(1, sizeof *c);
    if (!c) {
        (void)close(fd);
        return;
    }
    c->worker = w;
    wheel_entry_init(&c->timer, on_due);
    if (stream_open(&c->stream, &w->loop, fd, &events)) free(c);
}
