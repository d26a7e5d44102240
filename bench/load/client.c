#include "load/client.h"

#include "load/wording.h"

#include "base/outbuf.h"
#include "http/body.h"
#include "http/scan.h"
#include "http/ws.h"
#include "net/stream.h"

#include <stdio.h>
#include <stdlib.h>

enum { ERRORS_SHOWN = 5 };

enum client_state {
    CLIENT_CLOSED = 0, /* no stream */
    CLIENT_CONNECTING,
    CLIENT_HANDSHAKE, /* of TLS */
    CLIENT_HEAD,      /* a request is under way: `input` and `scan` collect the head of its answer */
    CLIENT_BODY,      /* `reader` is set */
    CLIENT_ECHO,      /* a message is under way; the echo is right up to `echo_at` */
    CLIENT_IDLE,      /* open, nothing under way */
    CLIENT_CLOSING,   /* waits for on_closed; `after` says what then */
    CLIENT_OUT,       /* closing or closed for good */
};

enum client_after { AFTER_NOTHING = 0, AFTER_IDLE, AFTER_CONNECT };

struct load_client {
    struct stream stream;
    struct secure secure;
    struct load *load;
    enum client_state state;
    enum client_after after;
    bool was_idle;
    bool tunnel;     /* a WebSocket is open */
    bool busy;       /* a counted operation is under way, due since due_us */
    bool keep_alive; /* of the answer being read */
    uint64_t due_us;
    struct head_scan scan;
    char *input; /* owned: part of a head; NULL when empty */
    size_t ninput;
    struct body_reader reader;
    uint64_t messages;
    char echo_head[LOAD_FRAME_HEAD_MAX + LOAD_MESSAGE_MIN]; /* how the echo begins; the filler follows */
    uint32_t necho_head, necho, echo_at;
};

static const struct head_limits head_limits = {
    .fields_max = HTTP_FIELDS_MAX, .target_bytes_max = LOAD_REQUEST_MAX, .alias = ALIAS_ALLOW};
static const struct body_limits body_limits = {
    .body_bytes_max = UINT64_MAX, .chunk_ext_bytes_max = 4096, .trailer_bytes_max = 4096};
static const struct stream_events events;

static void close_stream(struct load_client *c, enum client_state state, enum client_after after)
{
    c->state = state;
    c->after = after;
    c->tunnel = false;
    secure_close(&c->secure);
    stream_close(&c->stream, STREAM_END_CLOSE);
}

static bool is_in_use(const struct load_client *c)
{
    return c->state != CLIENT_CLOSED && c->state != CLIENT_CLOSING && c->state != CLIENT_OUT;
}

/* The client does nothing any more. */
static void give_up(struct load_client *c, const char *what)
{
    struct load *l = c->load;
    if (l->errors++ < ERRORS_SHOWN)
        (void)fprintf(stderr, "connection %zu: %s\n", (size_t)(c - l->clients), what);
    close_stream(c, CLIENT_OUT, AFTER_NOTHING);
    load_out(l, c);
}

/* The connection ended, or said something wrong, when it should not have. */
static void lose(struct load_client *c, const char *what)
{
    struct load *l = c->load;
    bool was_idle = c->state == CLIENT_IDLE, was_busy = c->busy;
    if (!is_in_use(c)) return;
    c->busy = false;
    if (was_busy) l->active--;
    if (l->phase == LOAD_RESTING || l->phase == LOAD_OVER) { /* the result is known */
        close_stream(c, CLIENT_OUT, AFTER_NOTHING);
    } else if (l->plan->tolerant) {
        if (was_idle)
            l->dropped++;
        else
            l->failed++;
        close_stream(c, CLIENT_CLOSING, was_idle ? AFTER_NOTHING : AFTER_IDLE);
    } else {
        give_up(c, what);
    }
}

/* Sends what TLS has for the server. */
static bool flush(struct load_client *c)
{
    struct iovec iov;
    char *p;
    iov.iov_len = secure_outgoing(&c->secure, &p);
    if (iov.iov_len == 0) return true;
    iov.iov_base = p;
    enum err e = stream_write(&c->stream, &iov, 1);
    if (e) {
        lose(c, err_text(e));
        return false;
    }
    secure_sent(&c->secure);
    return true;
}

static void write_all(struct load_client *c, struct iovec *iov, unsigned n)
{
    if (!c->load->tls) {
        enum err e = stream_write(&c->stream, iov, n);
        if (e) lose(c, err_text(e));
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        if (!secure_write(&c->secure, iov[i].iov_base, iov[i].iov_len)) {
            lose(c, "TLS: cannot write");
            return;
        }
    }
    (void)flush(c); /* a failure was counted */
}

static const char *own_header(struct load_client *c)
{
    struct load *l = c->load;
    uint64_t n = l->plan->rotate ? l->requests : (uint64_t)(c - l->clients);
    return l->plan->own[n % l->plan->nown];
}

/* What was prepared, with the header line of its own before the empty line. */
static void send_request(struct load_client *c)
{
    struct load *l = c->load;
    struct outbuf o = outbuf_of(l->out_bytes, sizeof l->out_bytes);
    outbuf_bytes(&o, l->request_bytes, l->nfields);
    if (l->plan->nown) {
        outbuf_str(&o, own_header(c));
        outbuf_str(&o, "\r\n");
    }
    outbuf_bytes(&o, l->request_bytes + l->nfields, l->nrequest - l->nfields);
    l->requests++;
    c->state = CLIENT_HEAD;
    head_scan_init(&c->scan);
    if (o.overflow)
        lose(c, "the request is too long");
    else
        write_all(c, &(struct iovec){o.p, o.n}, 1);
}

/* A text message that begins with its number, masked with zeros (a mask all the same), and the echo to
 * expect. */
static void send_message(struct load_client *c)
{
    uint32_t n = c->load->plan->message_bytes;
    char head[LOAD_FRAME_HEAD_MAX + LOAD_MESSAGE_MIN] = {0}, text[LOAD_MESSAGE_MIN];
    load_message_text(text, c->messages++);
    uint32_t at = load_frame_head((uint8_t *)head, n, true) + 4;
    memcpy(head + at, text, LOAD_MESSAGE_MIN);
    c->necho_head = load_frame_head((uint8_t *)c->echo_head, n, false);
    c->necho = c->necho_head + n;
    memcpy(c->echo_head + c->necho_head, text, LOAD_MESSAGE_MIN);
    c->necho_head += LOAD_MESSAGE_MIN;
    c->echo_at = 0;
    c->state = CLIENT_ECHO;
    struct iovec iov[2] = {{head, at + LOAD_MESSAGE_MIN}, {c->load->filler, n - LOAD_MESSAGE_MIN}};
    write_all(c, iov, n > LOAD_MESSAGE_MIN ? 2 : 1);
}

static void become_idle(struct load_client *c)
{
    c->state = CLIENT_IDLE;
    load_idle(c->load, c);
}

/* What was under way is complete. */
static void finish_operation(struct load_client *c)
{
    struct load *l = c->load;
    if (c->busy) {
        c->busy = false;
        load_count(l, c->due_us);
    }
    if (c->keep_alive && !l->plan->renew) {
        become_idle(c);
        return;
    }
    if (!c->keep_alive) l->reconnects++;
    close_stream(c, CLIENT_CLOSING, AFTER_IDLE);
}

static void take_upgrade(struct load_client *c, const struct res_head *head)
{
    if (!ws_is_accepting_response(head, span_str(load_ws_key))) {
        c->load->wrong_status++;
        lose(c, "the upgrade was refused");
        return;
    }
    c->tunnel = c->keep_alive = true;
    if (c->busy)
        send_message(c);
    else
        become_idle(c);
}

static bool is_right(const struct load_plan *plan, uint16_t status)
{
    return plan->status ? status == plan->status : status >= 200 && status <= 299;
}

/* A whole head: p[0..n). */
static void take_head(struct load_client *c, const char *p, size_t n)
{
    struct load *l = c->load;
    struct res_head *head = &l->head;
    enum head_refusal why =
        http_parse_response(l->parser, p, n, &head_limits, l->plan->body ? METHOD_POST : METHOD_GET, head);
    if (why != HEAD_REFUSAL_NONE) {
        lose(c, head_refusal_text(why));
        return;
    }
    if (head->status < 200 && head->status != 101) { /* an interim answer: the real one follows */
        head_scan_init(&c->scan);
        return;
    }
    if (l->plan->websocket) {
        take_upgrade(c, head);
        return;
    }
    if (!is_right(l->plan, head->status)) l->wrong_status++;
    c->keep_alive = head->keep_alive;
    body_reader_init(&c->reader, head->body, head->content_length, &body_limits);
    c->state = CLIENT_BODY;
    if (head->body == BODY_NONE) finish_operation(c);
}

/* Returns the bytes used; 0 when more are needed or the connection failed. */
static size_t take_head_bytes(struct load_client *c, const char *p, size_t n)
{
    switch (head_scan(&c->scan, p, n)) {
    case SCAN_MORE: return 0;
    case SCAN_REFUSE: lose(c, "the answer's head is malformed"); return 0;
    case SCAN_DONE: break;
    }
    size_t used = c->scan.end;
    take_head(c, p, used);
    return used;
}

static size_t take_body_bytes(struct load_client *c, const char *p, size_t n)
{
    size_t used;
    struct span data;
    if (body_read(&c->reader, p, n, &used, &data) != BODY_OK) {
        lose(c, "the answer's body is malformed");
        return 0;
    }
    if (body_is_done(&c->reader)) finish_operation(c);
    return used;
}

static size_t take_echo_bytes(struct load_client *c, const char *p, size_t n)
{
    bool begins = c->echo_at < c->necho_head;
    size_t missing = (begins ? c->necho_head : c->necho) - c->echo_at;
    size_t used = n < missing ? n : missing;
    if (memcmp(p, begins ? c->echo_head + c->echo_at : c->load->filler, used) != 0) {
        lose(c, "the echo differs");
        return 0;
    }
    c->echo_at += (uint32_t)used;
    if (c->echo_at == c->necho) finish_operation(c);
    return used;
}

static void keep_input(struct load_client *c, const char *p, size_t n)
{
    c->input = malloc(n);
    if (!c->input) {
        lose(c, "out of memory");
        return;
    }
    memcpy(c->input, p, n);
    c->ninput = n;
}

static void consume(struct load_client *c, const char *p, size_t n)
{
    while (n && is_in_use(c)) {
        size_t used = 0;
        switch (c->state) {
        case CLIENT_HEAD: used = take_head_bytes(c, p, n); break;
        case CLIENT_BODY: used = take_body_bytes(c, p, n); break;
        case CLIENT_ECHO: used = take_echo_bytes(c, p, n); break;
        case CLIENT_IDLE: lose(c, "bytes on an idle connection"); break;
        case CLIENT_CLOSED:
        case CLIENT_CONNECTING:
        case CLIENT_HANDSHAKE:
        case CLIENT_CLOSING:
        case CLIENT_OUT: break;
        }
        if (used == 0) break;
        p += used;
        n -= used;
    }
    if (n && c->state == CLIENT_HEAD) keep_input(c, p, n);
}

/* Bytes of HTTP or WebSocket. */
static void take(struct load_client *c, const char *p, size_t n)
{
    char *all = c->input;
    if (!all) {
        consume(c, p, n);
        return;
    }
    c->input = NULL;
    char *grown = realloc(all, c->ninput + n);
    if (!grown) {
        free(all);
        lose(c, "out of memory");
        return;
    }
    memcpy(grown + c->ninput, p, n);
    consume(c, grown, c->ninput + n);
    free(grown);
}

static void shake_hands(struct load_client *c)
{
    bool done;
    if (!secure_handshake(&c->secure, &done)) {
        lose(c, "the TLS handshake failed");
        return;
    }
    if (done && secure_is_resumed(&c->secure)) c->load->resumed++;
    if (flush(c) && done) send_request(c);
}

static void take_secure(struct load_client *c, const char *p, size_t n)
{
    struct load *l = c->load;
    if (!secure_feed(&c->secure, p, n)) {
        lose(c, "out of memory");
        return;
    }
    if (c->state == CLIENT_HANDSHAKE) shake_hands(c);
    while (is_in_use(c) && c->state != CLIENT_HANDSHAKE) {
        int got = secure_read(&c->secure, l->plain, sizeof l->plain);
        if (got == 0) break;
        if (got > 0)
            take(c, l->plain, (size_t)got);
        else
            lose(c, "TLS: closed or broken by the other side");
    }
}

static void on_read(struct stream *s, const char *p, size_t n)
{
    struct load_client *c = (struct load_client *)s;
    if (c->load->tls)
        take_secure(c, p, n);
    else
        take(c, p, n);
}

static void on_connected(struct stream *s)
{
    struct load_client *c = (struct load_client *)s;
    if (!c->load->tls) {
        send_request(c);
    } else if (secure_open(&c->secure, c->load->tls, c->load->plan->host)) {
        c->state = CLIENT_HANDSHAKE;
        shake_hands(c);
    } else {
        lose(c, "out of memory");
    }
}

static void on_eof(struct stream *s)
{
    struct load_client *c = (struct load_client *)s;
    if (c->state == CLIENT_BODY && c->reader.kind == BODY_UNTIL_CLOSE) {
        c->keep_alive = false;
        finish_operation(c);
    } else {
        lose(c, "closed by the other side");
    }
}

static void on_drained(struct stream *s)
{
    (void)s; /* one operation at a time: the answer says that it went out */
}

static void on_failed(struct stream *s, enum err e)
{
    lose((struct load_client *)s, err_text(e));
}

/* When nobody listens, trying again at once would be a busy loop: then the client gives up, tolerant or not.
 */
static void client_connect(struct load_client *c)
{
    c->state = CLIENT_CONNECTING;
    enum err e = stream_connect(&c->stream, &c->load->loop, &c->load->plan->target, &events);
    if (!e) return;
    if (c->busy) c->load->active--;
    c->busy = false;
    give_up(c, err_text(e));
}

static void on_closed(struct stream *s)
{
    struct load_client *c = (struct load_client *)s;
    enum client_after after = c->after;
    free(c->input);
    c->input = NULL;
    c->after = AFTER_NOTHING;
    if (c->state == CLIENT_OUT) return;
    c->state = CLIENT_CLOSED;
    switch (after) {
    case AFTER_NOTHING: break;
    case AFTER_IDLE: load_idle(c->load, c); break;
    case AFTER_CONNECT: client_connect(c); break;
    }
}

static const struct stream_events events = {
    .on_connected = on_connected,
    .on_read = on_read,
    .on_eof = on_eof,
    .on_drained = on_drained,
    .on_failed = on_failed,
    .on_closed = on_closed,
};

void client_greet(struct load_client *c)
{
    client_connect(c);
}

void client_start(struct load_client *c, uint64_t due_us)
{
    c->busy = true;
    c->due_us = due_us;
    if (c->state == CLIENT_CLOSED)
        client_connect(c);
    else if (c->state == CLIENT_CLOSING)
        c->after = AFTER_CONNECT;
    else if (c->tunnel)
        send_message(c);
    else
        send_request(c);
}

bool client_is_new(struct load_client *c)
{
    bool is_new = !c->was_idle;
    c->was_idle = true;
    return is_new;
}

void client_close(struct load_client *c)
{
    if (is_in_use(c))
        close_stream(c, CLIENT_OUT, AFTER_NOTHING);
    else
        c->state = CLIENT_OUT;
}

struct load_client *client_at(struct load_client *clients, uint32_t i)
{
    return &clients[i];
}

struct load_client *clients_create(struct load *l)
{
    struct load_client *clients = calloc(l->plan->connections, sizeof *clients);
    for (uint32_t i = 0; clients && i < l->plan->connections; i++)
        clients[i].load = l;
    return clients;
}

void clients_destroy(struct load_client *clients, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        secure_free(&clients[i].secure);
    free(clients);
}
