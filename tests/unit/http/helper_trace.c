#include "helper_trace.h"

#include "base/err.h"
#include "http/ws.h"

#include <stdlib.h>

enum { SKIPPED_PAIRS_MAX = 4 };

struct trace_options trace_options_default(void)
{
    return (struct trace_options){
        .request_method = METHOD_GET,
        .head = {.fields_max = 100, .target_bytes_max = 8192, .alias = ALIAS_DROP},
        .body = {.body_bytes_max = 1 << 20, .chunk_ext_bytes_max = 4096, .trailer_bytes_max = 4096},
    };
}

/* ---- writing ---- */

static void escaped_write(struct outbuf *o, struct span s)
{
    static const char hex[] = "0123456789abcdef";
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c == '\r') {
            outbuf_str(o, "\\r");
        } else if (c == '\n') {
            outbuf_str(o, "\\n");
        } else if (c == '\t') {
            outbuf_str(o, "\\t");
        } else if (c == '\\') {
            outbuf_str(o, "\\\\");
        } else if (c >= 0x20 && c < 0x7f) {
            outbuf_char(o, (char)c);
        } else {
            outbuf_str(o, "\\x");
            outbuf_char(o, hex[c >> 4]);
            outbuf_char(o, hex[c & 15]);
        }
    }
}

static void run_end(struct tracer *t)
{
    if (t->run) outbuf_char(&t->out, '\n');
    t->run = NULL;
}

/* One line `key value`; no value when it is empty. */
static void fact(struct tracer *t, const char *key, struct span value)
{
    run_end(t);
    outbuf_str(&t->out, key);
    if (value.n) outbuf_char(&t->out, ' ');
    escaped_write(&t->out, value);
    outbuf_char(&t->out, '\n');
}

static void fact_str(struct tracer *t, const char *key, const char *value)
{
    fact(t, key, span_str(value));
}

static void fact_u64(struct tracer *t, const char *key, uint64_t value)
{
    char digits[20];
    struct outbuf o = outbuf_of(digits, sizeof digits);
    outbuf_u64(&o, value);
    fact(t, key, span_of(o.p, o.n));
}

/* Appends bytes to the line `key`, however they are cut. */
static void run_append(struct tracer *t, const char *key, struct span bytes)
{
    if (bytes.n == 0) return;
    if (t->run != key) {
        run_end(t);
        outbuf_str(&t->out, key);
        outbuf_char(&t->out, ' ');
        t->run = key;
    }
    escaped_write(&t->out, bytes);
}

static void fields_trace(struct tracer *t, const struct http_field *fields, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        outbuf_str(&t->out, fields[i].drop ? "drop " : "keep ");
        escaped_write(&t->out, fields[i].name);
        outbuf_char(&t->out, ':');
        if (fields[i].value.n) outbuf_char(&t->out, ' ');
        escaped_write(&t->out, fields[i].value);
        outbuf_char(&t->out, '\n');
    }
}

static void body_trace(struct tracer *t, enum body_kind kind, uint64_t length, bool has_length)
{
    switch (kind) {
    case BODY_NONE:
        fact_str(t, "body", "none");
        if (has_length) fact_u64(t, "content-length", length);
        break;
    case BODY_LENGTH: fact_u64(t, "body length", length); break;
    case BODY_CHUNKED: fact_str(t, "body", "chunked"); break;
    case BODY_UNTIL_CLOSE: fact_str(t, "body", "until close"); break;
    }
}

static void refusal_trace(struct tracer *t, enum head_refusal refusal)
{
    fact_str(t, "refused", head_refusal_text(refusal));
    t->state = TRACER_REFUSED;
}

/* ---- heads ---- */

static const char *route_text(enum route route)
{
    switch (route) {
    case ROUTE_NONE: return "none";
    case ROUTE_WIDGET: return "widget";
    case ROUTE_WS: return "ws";
    case ROUTE_COUNT: break;
    }
    return "?";
}

static bool is_trusted(const void *arg, const struct addr *a)
{
    const struct trace_options *o = arg;
    for (unsigned i = 0; i < o->ntrusted; i++)
        if (addr_eq(&o->trusted[i], a)) return true;
    return false;
}

static void addr_trace(struct tracer *t, const char *key, const struct addr *a)
{
    char text[ADDR_TEXT_MAX];
    (void)addr_format(a, text);
    fact_str(t, key, text);
}

static void caller_trace(struct tracer *t, const struct req_head *head)
{
    struct addr caller;
    switch (forwarded_for_find(head->fields, head->nfields, is_trusted, t->options, &caller)) {
    case FORWARDED_FOR_ABSENT: fact_str(t, "caller", "peer"); break;
    case FORWARDED_FOR_FOUND: addr_trace(t, "caller", &caller); break;
    case FORWARDED_FOR_MALFORMED: fact_str(t, "caller", "malformed"); break;
    }
}

static void request_trace(struct tracer *t, const struct req_head *head)
{
    struct span key;
    outbuf_str(&t->out, "request ");
    outbuf_span(&t->out, method_name(head->method));
    outbuf_str(&t->out, head->minor ? " 1.1 " : " 1.0 ");
    escaped_write(&t->out, head->target);
    outbuf_char(&t->out, '\n');
    fact_str(t, "route", route_text(head->parts.route));
    if (head->parts.query.p) fact(t, "query", head->parts.query);
    if (!span_eq(head->target, head->parts.origin)) fact(t, "origin", head->parts.origin);
    fact(t, "host", head->host);
    if (!span_eq(head->host, head->host_field)) fact(t, "host-field", head->host_field);
    if (head->nauthorization > 1) fact_u64(t, "authorizations", head->nauthorization);
    if (head->authorization.p) fact(t, "authorization", head->authorization);
    fields_trace(t, head->fields, head->nfields);
    if (t->options->ntrusted) caller_trace(t, head);
    if (head->naliases) fact_u64(t, "aliases", head->naliases);
    if (head->expect_continue) fact_str(t, "expect", "100-continue");
    if (head->has_upgrade) fact_str(t, "upgrade", "asked");
    if (ws_is_upgrade_request(head, &key)) fact(t, "websocket", key);
    fact_str(t, "connection", head->keep_alive ? "stays" : "closes");
    body_trace(t, head->body, head->content_length, head->has_content_length);
}

static void response_trace(struct tracer *t, const struct res_head *head)
{
    fact_u64(t, head->minor ? "response 1.1" : "response 1.0", head->status);
    if (head->reason.n) fact(t, "reason", head->reason);
    fields_trace(t, head->fields, head->nfields);
    if (head->has_upgrade) fact_str(t, "upgrade", "offered");
    fact_str(t, "connection", head->keep_alive ? "stays" : "closes");
    body_trace(t, head->body, head->content_length, head->has_content_length);
}

static void body_begin(struct tracer *t, enum body_kind kind, uint64_t length, bool is_last)
{
    body_reader_init(&t->body, kind, length, &t->options->body);
    t->ends_after_body = is_last;
    t->state = TRACER_BODY;
}

static void request_read(struct tracer *t, const char *p, size_t n)
{
    struct req_head *head = malloc(sizeof *head);
    BUG_IF(!head, "out of memory in a test");
    enum head_refusal refusal = http_parse_request(t->parser, p, n, &t->options->head, head);
    if (refusal) {
        refusal_trace(t, refusal);
    } else {
        request_trace(t, head);
        body_begin(t, head->body, head->content_length, !head->keep_alive);
    }
    free(head);
}

static void response_read(struct tracer *t, const char *p, size_t n)
{
    struct res_head *head = malloc(sizeof *head);
    BUG_IF(!head, "out of memory in a test");
    enum head_refusal refusal =
        http_parse_response(t->parser, p, n, &t->options->head, t->options->request_method, head);
    if (refusal) {
        refusal_trace(t, refusal);
    } else {
        response_trace(t, head);
        bool is_interim = head->status < 200 && head->status != 101;
        body_begin(t, head->body, head->content_length, !is_interim);
    }
    free(head);
}

/* ---- bytes ---- */

static void head_begin(struct tracer *t)
{
    t->state = TRACER_HEAD;
    t->pairs_left = t->options->is_response ? 0 : SKIPPED_PAIRS_MAX;
    head_scan_init(&t->scan);
}

static void message_end(struct tracer *t)
{
    fact_str(t, "end", "");
    if (t->ends_after_body)
        t->state = TRACER_REST;
    else
        head_begin(t);
}

/* Parses the head pending[0..end) from memory of exactly its size, so that a read past it is found. */
static void head_read(struct tracer *t, size_t end)
{
    char *head = malloc(end);
    BUG_IF(!head, "out of memory in a test");
    memcpy(head, t->pending, end);
    if (t->options->is_response)
        response_read(t, head, end);
    else
        request_read(t, head, end);
    free(head);
    if (t->state == TRACER_BODY && body_is_done(&t->body)) message_end(t);
}

static void pending_drop(struct tracer *t, size_t n)
{
    memmove(t->pending, t->pending + n, t->npending - n);
    t->npending -= n;
}

static void pending_append(struct tracer *t, const char *p, size_t n)
{
    t->pending = realloc(t->pending, t->npending + n + 1);
    BUG_IF(!t->pending, "out of memory in a test");
    memcpy(t->pending + t->npending, p, n);
    t->npending += n;
}

/* Takes all n bytes for the head; returns how many of them belong behind it. */
static size_t head_feed(struct tracer *t, const char *p, size_t n)
{
    pending_append(t, p, n);
    if (t->scan.at == 0) {
        size_t skip = head_skip_crlf(t->pending, t->npending, t->pairs_left);
        t->pairs_left -= (unsigned)(skip / 2);
        pending_drop(t, skip);
        if (t->pairs_left && t->npending == 1 && t->pending[0] == '\r') return 0;
    }
    switch (head_scan(&t->scan, t->pending, t->npending)) {
    case SCAN_MORE: return 0;
    case SCAN_REFUSE: refusal_trace(t, HEAD_REFUSAL_CONTROL_BYTES); return 0;
    case SCAN_DONE: break;
    }
    size_t behind = t->npending - t->scan.end;
    head_read(t, t->scan.end);
    t->npending = 0;
    return behind;
}

static size_t body_feed(struct tracer *t, const char *p, size_t n)
{
    struct span data;
    size_t used;
    enum body_result result = body_read(&t->body, p, n, &used, &data);
    run_append(t, "data", data);
    if (result != BODY_OK) {
        fact_str(t, "body", result == BODY_REFUSED ? "refused" : "over limit");
        t->state = TRACER_REFUSED;
        return 0;
    }
    if (body_is_done(&t->body)) message_end(t);
    return n - used;
}

/* Returns how many bytes are behind the header. */
static size_t proxy_feed(struct tracer *t, const char *p, size_t n)
{
    size_t used = n;
    switch (proxy_header_feed(&t->proxy, p, n, &used)) {
    case PROXY_HEADER_MORE: BUG_IF(used != n, "bytes of an unfinished header are left over"); break;
    case PROXY_HEADER_DONE:
        if (t->proxy.is_local)
            fact_str(t, "proxy", "local");
        else
            addr_trace(t, t->proxy.version == 1 ? "proxy v1" : "proxy v2", &t->proxy.source);
        head_begin(t);
        break;
    case PROXY_HEADER_REFUSED:
        fact_str(t, "proxy refused", proxy_refusal_names[t->proxy.refusal]);
        t->state = TRACER_REFUSED;
        return 0;
    }
    return n - used;
}

void tracer_init(struct tracer *t, const struct trace_options *options, char *text, size_t cap)
{
    *t = (struct tracer){.options = options, .parser = http_parser_create(), .out = outbuf_of(text, cap)};
    BUG_IF(!t->parser, "out of memory in a test");
    proxy_header_init(&t->proxy);
    if (!options->has_proxy_header) head_begin(t);
}

void tracer_feed(struct tracer *t, const char *p, size_t n)
{
    while (n) {
        size_t behind = 0;
        switch (t->state) {
        case TRACER_PROXY: behind = proxy_feed(t, p, n); break;
        case TRACER_HEAD: behind = head_feed(t, p, n); break;
        case TRACER_BODY: behind = body_feed(t, p, n); break;
        case TRACER_REST: run_append(t, "rest", span_of(p, n)); break;
        case TRACER_REFUSED: break;
        }
        p += n - behind;
        n = behind;
    }
}

void tracer_finish(struct tracer *t)
{
    if (t->state == TRACER_PROXY) fact_str(t, "incomplete", "proxy header");
    if (t->state == TRACER_HEAD && t->npending) fact_str(t, "incomplete", "head");
    if (t->state == TRACER_BODY) {
        if (t->body.kind == BODY_UNTIL_CLOSE)
            fact_str(t, "end", "");
        else
            fact_str(t, "incomplete", "body");
    }
    run_end(t);
    free(t->pending);
    http_parser_destroy(t->parser);
}

size_t trace_cut(const struct trace_options *options, const char *p, size_t n, unsigned seed, char *text,
                 size_t cap)
{
    enum { PIECE_MAX = 24 };
    struct tracer t;
    tracer_init(&t, options, text, cap);
    for (size_t at = 0; at < n;) {
        size_t piece = n - at;
        if (seed) {
            seed = seed * 1103515245 + 12345;
            size_t want = 1 + (seed >> 16) % PIECE_MAX;
            if (want < piece) piece = want;
        }
        tracer_feed(&t, p + at, piece);
        at += piece;
    }
    tracer_finish(&t);
    BUG_IF(t.out.overflow, "the trace does not fit");
    return t.out.n;
}
