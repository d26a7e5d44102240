#include "http/head.h"

#include "http/message.h"
#include "http/parser.h"

/* ---- request line ---- */

static enum http_method method_find(struct span name)
{
    for (enum http_method m = METHOD_NONE + 1; m < METHOD_COUNT; m++)
        if (span_eq(name, method_name(m))) return m;
    return METHOD_NONE;
}

/* Cuts the bytes before the first SP off `rest`; all of it when there is none. */
static struct span word_cut(struct span *rest)
{
    const char *space = memchr(rest->p, ' ', rest->n);
    struct span word = span_of(rest->p, space ? (size_t)(space - rest->p) : rest->n);
    size_t used = word.n + (space != NULL);
    *rest = span_of(rest->p + used, rest->n - used);
    return word;
}

/* `method SP target SP version`, one SP each (RFC 9112 section 3: "recipients MAY instead parse on whitespace
 * boundaries", which is how two parsers come to see two requests). */
static enum head_refusal request_line_read(struct span head, const struct head_limits *limits,
                                           struct req_head *out)
{
    const char *end = memchr(head.p, '\r', head.n);
    if (!end) return HEAD_REFUSAL_SYNTAX;
    struct span rest = span_of(head.p, (size_t)(end - head.p));
    struct span method = word_cut(&rest);
    out->target = word_cut(&rest);

    if (!field_name_is_token(method)) return HEAD_REFUSAL_SYNTAX;
    out->method = method_find(method);
    if (out->method == METHOD_NONE) return HEAD_REFUSAL_METHOD;
    if (memchr(rest.p, ' ', rest.n)) return HEAD_REFUSAL_SYNTAX;
    out->minor = span_eq(rest, SPAN("HTTP/1.1"));
    if (!out->minor && !span_eq(rest, SPAN("HTTP/1.0"))) return HEAD_REFUSAL_VERSION;
    if (out->target.n > limits->target_bytes_max) return HEAD_REFUSAL_TARGET_TOO_LONG;
    return target_parse(out->target, &out->parts) ? HEAD_REFUSAL_TARGET : HEAD_REFUSAL_NONE;
}

/* ---- names ---- */

static bool is_allowed_alias(const struct head_limits *limits, struct span name)
{
    for (uint32_t i = 0; i < limits->nalias_allowed; i++)
        if (span_ieq(name, limits->alias_allowed[i])) return true;
    return false;
}

/* An alias of a known name is dropped whatever the configuration says: nobody needs "Transfer_Encoding". */
static enum head_refusal alias_judge(const struct head_limits *limits, struct req_head *out,
                                     struct http_field *f)
{
    bool passes = limits->alias == ALIAS_ALLOW || is_allowed_alias(limits, f->name);
    if (!passes && limits->alias == ALIAS_REJECT) return HEAD_REFUSAL_FIELD_NAME;
    f->drop = f->drop || !passes || field_find_folded(f->name) != FIELD_OTHER;
    out->naliases += f->drop;
    return HEAD_REFUSAL_NONE;
}

/* Judges a name that is not in the table. */
static enum head_refusal name_judge(const struct head_limits *limits, struct req_head *out,
                                    struct http_field *f)
{
    f->drop = field_is_reserved(f->name);
    switch (field_name_kind(f->name)) {
    case NAME_PLAIN: return HEAD_REFUSAL_NONE;
    case NAME_ALIAS: return alias_judge(limits, out, f);
    case NAME_BROKEN: break;
    }
    return HEAD_REFUSAL_FIELD_NAME;
}

static enum head_refusal names_judge(const struct head_limits *limits, struct req_head *out)
{
    for (struct http_field *f = out->fields; f < out->fields + out->nfields; f++) {
        if (f->id == FIELD_OTHER) {
            enum head_refusal refusal = name_judge(limits, out, f);
            if (refusal) return refusal;
        } else if (field_class_of(f->id) == FIELD_CLASS_IDENTITY) {
            f->drop = true;
        }
    }
    return HEAD_REFUSAL_NONE;
}

/* ---- meaning ---- */

/* "A server MUST respond with a 400 status code to any HTTP/1.1 request message that lacks a Host header
 * field and to any request message that contains more than one Host header field line or a Host header field
 * with an invalid field value" (RFC 9112 section 3.2). An absolute-form target must say the same. */
static enum head_refusal host_read(const struct message *m, struct req_head *out)
{
    uint32_t nhost = m->count[FIELD_HOST];
    bool is_absolute = out->parts.authority.p != NULL;
    if (nhost > 1 || (nhost == 0 && out->minor == 1)) return HEAD_REFUSAL_HOST;
    if (nhost == 1) {
        out->host_field = message_first(m, FIELD_HOST)->value;
        if (is_absolute && !span_ieq(out->host_field, out->parts.authority)) return HEAD_REFUSAL_HOST;
    } else if (is_absolute) {
        out->host_field = out->parts.authority;
    } else {
        return HEAD_REFUSAL_NONE;
    }
    return host_parse(out->host_field, &out->host) ? HEAD_REFUSAL_HOST : HEAD_REFUSAL_NONE;
}

static enum head_refusal body_read_framing(struct message *m, struct req_head *out)
{
    enum head_refusal refusal = message_framing(m);
    if (refusal) return refusal;
    out->has_content_length = m->has_content_length;
    out->content_length = m->content_length;
    out->body = m->is_chunked ? BODY_CHUNKED : m->content_length ? BODY_LENGTH : BODY_NONE;
    return HEAD_REFUSAL_NONE;
}

/* RFC 9110 section 10.1.1: 100-continue is the only expectation there is. It is passed on only where it can
 * be kept: never for a client of HTTP/1.0, which does not know the status, nor without a body to wait for. */
static enum head_refusal expect_read(const struct message *m, struct req_head *out)
{
    if (m->count[FIELD_EXPECT] == 0) return HEAD_REFUSAL_NONE;
    struct http_field *expect = message_first(m, FIELD_EXPECT);
    if (m->count[FIELD_EXPECT] > 1 || !span_ieq(expect->value, SPAN("100-continue")))
        return HEAD_REFUSAL_SYNTAX;
    out->expect_continue = out->minor == 1 && out->body != BODY_NONE;
    expect->drop = !out->expect_continue;
    return HEAD_REFUSAL_NONE;
}

static enum head_refusal fields_read(const struct head_limits *limits, struct req_head *out)
{
    struct message m;
    message_index(&m, out->fields, out->nfields, out->minor);
    enum head_refusal refusal = names_judge(limits, out);
    if (!refusal) refusal = message_connection(&m);
    if (!refusal) refusal = host_read(&m, out);
    if (!refusal) refusal = body_read_framing(&m, out);
    if (!refusal) refusal = expect_read(&m, out);
    if (refusal) return refusal;

    uint32_t nauthorization = m.count[FIELD_AUTHORIZATION];
    out->nauthorization = (uint8_t)(nauthorization < UINT8_MAX ? nauthorization : UINT8_MAX);
    if (nauthorization == 1) out->authorization = message_first(&m, FIELD_AUTHORIZATION)->value;
    out->keep_alive = m.keep_alive;
    out->has_upgrade = m.has_upgrade;
    return HEAD_REFUSAL_NONE;
}

enum head_refusal http_parse_request(struct http_parser *parser, const char *p, size_t n,
                                     const struct head_limits *limits, struct req_head *out)
{
    memset(out, 0, offsetof(struct req_head, fields)); /* the fields are 10 KiB, filled as they come */
    enum head_refusal refusal = request_line_read(span_of(p, n), limits, out);
    if (!refusal)
        refusal = parser_run(parser, HTTP_REQUEST, p, n, limits->fields_max, out->fields, &out->nfields);
    return refusal ? refusal : fields_read(limits, out);
}
