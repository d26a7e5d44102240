#include "http/head.h"

#include "http/message.h"
#include "http/parser.h"

enum { STATUS_MIN = 100, STATUS_MAX = 599 };

static bool is_printable(struct span s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] < 0x20 || s.p[i] > 0x7e) return false;
    return true;
}

/* Three digits and then the end of the line or SP and a reason (RFC 9112 section 4; the SP is missing from
 * some real servers' empty reasons). 0 when it is anything else. */
static uint16_t status_read(struct span s)
{
    uint64_t status;
    if (s.n < 3 || (s.n > 3 && s.p[3] != ' ') || !span_to_u64(span_of(s.p, 3), &status)) return 0;
    return status >= STATUS_MIN && status <= STATUS_MAX ? (uint16_t)status : 0;
}

static enum head_refusal status_line_read(struct span head, struct res_head *out)
{
    const struct span http11 = SPAN("HTTP/1.1 "), http10 = SPAN("HTTP/1.0 ");
    const char *end = memchr(head.p, '\r', head.n);
    if (!end) return HEAD_REFUSAL_SYNTAX;
    struct span line = span_of(head.p, (size_t)(end - head.p));
    out->minor = span_starts(line, http11);
    if (!out->minor && !span_starts(line, http10))
        return span_starts(line, SPAN("HTTP/")) ? HEAD_REFUSAL_VERSION : HEAD_REFUSAL_SYNTAX;

    struct span rest = span_of(line.p + http11.n, line.n - http11.n);
    out->status = status_read(rest);
    if (!out->status) return HEAD_REFUSAL_STATUS;
    if (rest.n > 4) out->reason = span_of(rest.p + 4, rest.n - 4);
    if (!is_printable(out->reason)) out->reason = span_of(NULL, 0);
    return HEAD_REFUSAL_NONE;
}

/* RFC 9112 section 6.3, in its order. A length goes on to the client where it says something about the
 * resource (HEAD, 304), not where it must not be sent at all (1xx, 204: RFC 9110 section 8.6). */
static void body_decide(const struct message *m, enum http_method request_method, struct res_head *out)
{
    bool is_without = out->status < 200 || out->status == 204;
    out->has_content_length = m->has_content_length && !is_without;
    out->content_length = out->has_content_length ? m->content_length : 0;
    if (is_without || out->status == 304 || request_method == METHOD_HEAD)
        out->body = BODY_NONE;
    else if (m->is_chunked)
        out->body = BODY_CHUNKED;
    else if (m->has_content_length)
        out->body = m->content_length ? BODY_LENGTH : BODY_NONE;
    else
        out->body = BODY_UNTIL_CLOSE;
}

static enum head_refusal fields_read(enum http_method request_method, struct res_head *out)
{
    struct message m;
    message_index(&m, out->fields, out->nfields, out->minor);
    enum head_refusal refusal = message_connection(&m);
    if (!refusal) refusal = message_framing(&m);
    if (refusal) return refusal;

    body_decide(&m, request_method, out);
    out->keep_alive = m.keep_alive && out->body != BODY_UNTIL_CLOSE;
    out->has_upgrade = m.has_upgrade;
    if (out->status == 101 && !m.has_upgrade) return HEAD_REFUSAL_UPGRADE;
    /* The gateway's own is added; anything else that the backend says about itself is for the client. */
    for (uint32_t i = 0; i < out->nfields; i++)
        if (out->fields[i].id == FIELD_X_REQUEST_ID) out->fields[i].drop = true;
    return HEAD_REFUSAL_NONE;
}

enum head_refusal http_parse_response(struct http_parser *parser, const char *p, size_t n,
                                      const struct head_limits *limits, enum http_method request_method,
                                      struct res_head *out)
{
    memset(out, 0, offsetof(struct res_head, fields));
    enum head_refusal refusal = status_line_read(span_of(p, n), out);
    if (!refusal)
        refusal = parser_run(parser, HTTP_RESPONSE, p, n, limits->fields_max, out->fields, &out->nfields);
    return refusal ? refusal : fields_read(request_method, out);
}
