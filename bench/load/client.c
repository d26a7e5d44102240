#include "load/client.h"

#include "base/outbuf.h"
#include "http/scan.h"
#include "http/ws.h"

#include <stdio.h>
#include <stdlib.h>

enum client_state {
    CLIENT_CLOSED = 0, /* no stream */
    CLIENT_CONNECTING,
    CLIENT_HEAD,    /* a request is under way: `input` and `scan` collect the head of its answer */
    CLIENT_BODY,    /* `reader` is set */
    CLIENT_ECHO,    /* tunnel: a message is under way; `expected` bytes of its echo are missing */
    CLIENT_HOLDING, /* open and idle until the end */
    CLIENT_DONE,    /* finished, closing */
};

struct load_client {
    struct stream stream;
    struct load *load;
    enum client_state state;
    bool was_ready;
    bool reconnect;  /* once it is closed */
    bool keep_alive; /* of the answer being read */
    struct head_scan scan;
    char *input; /* owned: part of a head; NULL when empty */
    size_t ninput;
    struct body_reader reader;
    uint64_t sent; /* messages */
    char expected[32];
    uint8_t nexpected, expected_at;
};

static const struct head_limits head_limits = {
    .fields_max = HTTP_FIELDS_MAX, .target_bytes_max = LOAD_REQUEST_MAX, .alias = ALIAS_ALLOW};
static const struct body_limits body_limits = {
    .body_bytes_max = UINT64_MAX, .chunk_ext_bytes_max = 4096, .trailer_bytes_max = 4096};
static const struct stream_events events;

/* Every upgrade may use the same key: nothing between us and the server caches a 101. */
static const char ws_key[] = "dGhlIHNhbXBsZSBub25jZQ==";

static bool counts(const struct load_client *c)
{
    return !c->load->over && c->state != CLIENT_DONE;
}

/* The connection has nothing left to do. */
static void finish(struct load_client *c)
{
    struct load *l = c->load;
    if (c->state == CLIENT_DONE) return;
    if (c->state == CLIENT_HOLDING) l->held--;
    c->state = CLIENT_DONE;
    stream_close(&c->stream, STREAM_END_CLOSE);
    l->finished++;
    if (l->finished == l->plan->connections && !l->over) l->on_finished(l);
}

static void count_error(struct load_client *c, const char *what)
{
    struct load *l = c->load;
    if (!counts(c)) return;
    if (l->errors++ < LOAD_ERRORS_SHOWN)
        (void)fprintf(stderr, "connection %zu: %s\n", (size_t)(c - l->clients), what);
    finish(c);
}

static bool client_write(struct load_client *c, const char *p, size_t n)
{
    struct iovec iov = {(char *)(uintptr_t)p, n};
    enum err e = stream_write(&c->stream, &iov, 1);
    if (e) count_error(c, err_text(e));
    return e == ERR_OK;
}

static void send_request(struct load_client *c)
{
    const struct load_plan *plan = c->load->plan;
    struct outbuf o = outbuf_of(c->load->out, sizeof c->load->out);
    outbuf_fmt(&o, "%s %s HTTP/1.1\r\nHost: %s\r\n", plan->body ? "POST" : "GET", plan->path, plan->host);
    outbuf_str(&o, plan->headers);
    if (plan->nown) outbuf_fmt(&o, "%s\r\n", plan->own[(size_t)(c - c->load->clients) % plan->nown]);
    if (plan->websocket)
        outbuf_fmt(&o,
                   "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: "
                   "13\r\nSec-WebSocket-Key: %s\r\n",
                   ws_key);
    if (plan->body)
        outbuf_fmt(&o, "Content-Type: application/json\r\nContent-Length: %zu\r\n", strlen(plan->body));
    outbuf_str(&o, "\r\n");
    if (plan->body) outbuf_str(&o, plan->body);
    c->state = CLIENT_HEAD;
    head_scan_init(&c->scan);
    if (o.overflow)
        count_error(c, "the request is too long");
    else
        (void)client_write(c, o.p, o.n); /* a failure was counted */
}

/* A short text message, masked with zeros (a mask all the same), and the echo to expect. */
static void send_message(struct load_client *c)
{
    char text[16], frame[6 + sizeof text] = {(char)0x81, (char)(0x80 | sizeof text)};
    struct outbuf o = outbuf_of(text, sizeof text);
    outbuf_fmt(&o, "message %08u", (unsigned)(c->sent % 100000000));
    memcpy(frame + 6, text, sizeof text);
    c->expected[0] = (char)0x81;
    c->expected[1] = (char)sizeof text;
    memcpy(c->expected + 2, text, sizeof text);
    c->nexpected = 2 + sizeof text;
    c->expected_at = 0;
    c->state = CLIENT_ECHO;
    c->sent++;
    c->load->started++;
    (void)client_write(c, frame, sizeof frame); /* a failure was counted */
}

static void hold(struct load_client *c)
{
    c->state = CLIENT_HOLDING;
    c->load->held++;
    if (c->load->held == c->load->plan->connections) c->load->on_holding(c->load);
}

/* An answer is complete: the next request, if any is left. */
static void next_request(struct load_client *c)
{
    struct load *l = c->load;
    if (l->plan->hold) {
        hold(c);
    } else if (l->started == l->plan->requests) {
        finish(c);
    } else {
        l->started++;
        if (c->keep_alive) {
            send_request(c);
        } else {
            l->reconnects++;
            c->reconnect = true;
            stream_close(&c->stream, STREAM_END_CLOSE);
        }
    }
}

static void next_message(struct load_client *c)
{
    if (c->load->plan->hold)
        hold(c);
    else if (c->sent == c->load->plan->requests)
        finish(c);
    else
        send_message(c);
}

static void became_ready(struct load_client *c)
{
    if (c->was_ready) return;
    c->was_ready = true;
    c->load->ready++;
    load_open_more(c->load);
}

static void finish_answer(struct load_client *c)
{
    c->load->answered++;
    became_ready(c);
    next_request(c);
}

/* A whole head: p[0..n). */
static void take_head(struct load_client *c, const char *p, size_t n)
{
    struct load *l = c->load;
    struct res_head *head = &l->head;
    enum head_refusal why =
        http_parse_response(l->parser, p, n, &head_limits, l->plan->body ? METHOD_POST : METHOD_GET, head);
    if (why != HEAD_REFUSAL_NONE) {
        count_error(c, head_refusal_text(why));
        return;
    }
    if (head->status < 200 && head->status != 101) { /* an interim answer: the real one follows */
        head_scan_init(&c->scan);
        return;
    }
    if (l->plan->websocket) {
        if (!ws_is_accepting_response(head, span_str(ws_key))) {
            l->not_2xx++;
            count_error(c, "the upgrade was refused");
            return;
        }
        became_ready(c);
        next_message(c);
        return;
    }
    if (head->status > 299) l->not_2xx++;
    c->keep_alive = head->keep_alive;
    body_reader_init(&c->reader, head->body, head->content_length, &body_limits);
    c->state = CLIENT_BODY;
    if (head->body == BODY_NONE) finish_answer(c);
}

/* Returns the bytes used; 0 when more are needed or the connection failed. */
static size_t take_head_bytes(struct load_client *c, const char *p, size_t n)
{
    switch (head_scan(&c->scan, p, n)) {
    case SCAN_MORE: return 0;
    case SCAN_REFUSE: count_error(c, "the answer's head is malformed"); return 0;
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
        count_error(c, "the answer's body is malformed");
        return 0;
    }
    if (body_is_done(&c->reader)) finish_answer(c);
    return used;
}

static size_t take_echo_bytes(struct load_client *c, const char *p, size_t n)
{
    size_t missing = (size_t)(c->nexpected - c->expected_at);
    size_t used = n < missing ? n : missing;
    if (memcmp(p, c->expected + c->expected_at, used) != 0) {
        count_error(c, "the echo differs");
        return 0;
    }
    c->expected_at = (uint8_t)(c->expected_at + used);
    if (c->expected_at == c->nexpected) {
        c->load->answered++;
        next_message(c);
    }
    return used;
}

static void consume(struct load_client *c, const char *p, size_t n)
{
    while (n && c->stream.state == STREAM_OPEN) {
        size_t used = 0;
        switch (c->state) {
        case CLIENT_HEAD: used = take_head_bytes(c, p, n); break;
        case CLIENT_BODY: used = take_body_bytes(c, p, n); break;
        case CLIENT_ECHO: used = take_echo_bytes(c, p, n); break;
        case CLIENT_HOLDING: count_error(c, "bytes on an idle connection"); break;
        case CLIENT_CLOSED:
        case CLIENT_CONNECTING:
        case CLIENT_DONE: break;
        }
        if (used == 0) break;
        p += used;
        n -= used;
    }
    if (n == 0 || c->state != CLIENT_HEAD || c->stream.state != STREAM_OPEN) return;
    c->input = malloc(n);
    if (!c->input) {
        count_error(c, "out of memory");
        return;
    }
    memcpy(c->input, p, n);
    c->ninput = n;
}

static void on_read(struct stream *s, const char *p, size_t n)
{
    struct load_client *c = (struct load_client *)s;
    char *all = c->input;
    if (!all) {
        consume(c, p, n);
        return;
    }
    c->input = NULL;
    char *grown = realloc(all, c->ninput + n);
    if (grown) {
        memcpy(grown + c->ninput, p, n);
        consume(c, grown, c->ninput + n);
        free(grown);
    } else {
        free(all);
        count_error(c, "out of memory");
    }
}

static void on_connected(struct stream *s)
{
    send_request((struct load_client *)s);
}

static void on_eof(struct stream *s)
{
    struct load_client *c = (struct load_client *)s;
    if (c->state == CLIENT_BODY && c->reader.kind == BODY_UNTIL_CLOSE) {
        c->keep_alive = false;
        finish_answer(c);
    } else {
        count_error(c, "closed by the other side");
    }
}

static void on_drained(struct stream *s)
{
    (void)s; /* one request at a time: it is small, and the answer says that it went out */
}

static void on_failed(struct stream *s, enum err e)
{
    count_error((struct load_client *)s, err_text(e));
}

static void start(struct load_client *c)
{
    c->state = CLIENT_CONNECTING;
    c->reconnect = false;
    enum err e = stream_connect(&c->stream, &c->load->loop, &c->load->plan->target, &events);
    if (e) count_error(c, err_text(e));
}

static void on_closed(struct stream *s)
{
    struct load_client *c = (struct load_client *)s;
    free(c->input);
    c->input = NULL;
    if (c->reconnect && !c->load->over) start(c);
}

static const struct stream_events events = {
    .on_connected = on_connected,
    .on_read = on_read,
    .on_eof = on_eof,
    .on_drained = on_drained,
    .on_failed = on_failed,
    .on_closed = on_closed,
};

struct load_client *load_clients_create(struct load *l)
{
    struct load_client *clients = calloc(l->plan->connections, sizeof *clients);
    for (uint32_t i = 0; clients && i < l->plan->connections; i++)
        clients[i].load = l;
    return clients;
}

void load_open_more(struct load *l)
{
    while (!l->over && l->opened < l->plan->connections && l->opened - l->ready < LOAD_OPENING_MAX) {
        struct load_client *c = &l->clients[l->opened++];
        if (!l->plan->websocket && !l->plan->hold) {
            if (l->started == l->plan->requests) { /* fewer requests than connections */
                l->ready++;
                finish(c);
                continue;
            }
            l->started++;
        }
        start(c);
    }
}

void load_close_all(struct load *l)
{
    l->over = true;
    for (uint32_t i = 0; i < l->opened; i++) {
        l->clients[i].state = CLIENT_DONE;
        stream_close(&l->clients[i].stream, STREAM_END_CLOSE);
    }
}
