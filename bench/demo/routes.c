#include "demo/routes.h"

#include "base/clock.h"
#include "base/outbuf.h"

#include <jansson.h>

enum {
    CHUNK_BYTES = 4096, /* unless the request says otherwise */
    WAIT_MS_MAX = 600 * 1000,
    SESSION_MS = 15 * 60 * 1000,
};

void demo_split_target(const struct req_head *head, struct demo_request *r)
{
    const char *mark = memchr(head->target.p, '?', head->target.n);
    size_t n = mark ? (size_t)(mark - head->target.p) : head->target.n;
    r->path = span_of(head->target.p, n);
    r->query = mark ? span_of(mark + 1, head->target.n - n - 1) : (struct span){NULL, 0};
}

/* Cuts `s` at the first `mark`: returns what is before it; `s` becomes what is after it. */
static struct span cut(struct span *s, char mark)
{
    const char *at = s->n ? memchr(s->p, mark, s->n) : NULL;
    struct span before = at ? span_of(s->p, (size_t)(at - s->p)) : *s;
    *s = at ? span_of(at + 1, s->n - before.n - 1) : (struct span){NULL, 0};
    return before;
}

struct span demo_query(struct span query, struct span name)
{
    while (query.n) {
        struct span value = cut(&query, '&');
        if (span_eq(cut(&value, '='), name)) return value.p ? value : SPAN("");
    }
    return (struct span){NULL, 0};
}

uint32_t demo_query_u32(struct span query, struct span name, uint32_t max, uint32_t fallback)
{
    uint64_t v;
    if (!span_to_u64(demo_query(query, name), &v)) return fallback;
    return v > max ? max : (uint32_t)v;
}

/* Makes what is in `o` the body. */
static void finish_json(const struct outbuf *o, uint16_t status, struct demo_answer *a)
{
    if (o->overflow) status = 500;
    a->status = status;
    a->json = o->overflow ? SPAN("{\"error\":\"too_large_to_show\"}") : span_of(o->p, o->n);
    a->bytes = a->left = a->json.n;
}

/* Writes `"name":"value"`, after a comma unless it is the first of its object. */
static void member(struct outbuf *o, const char *name, struct span value)
{
    if (o->n && o->p[o->n - 1] != '{') outbuf_char(o, ',');
    outbuf_json(o, span_str(name));
    outbuf_char(o, ':');
    outbuf_json(o, value);
}

static void member_time(struct outbuf *o, const char *name, uint64_t wall_ms)
{
    char text[CLOCK_RFC3339_LEN];
    clock_rfc3339(wall_ms, text);
    member(o, name, span_of(text, sizeof text));
}

/* Repeats the merchant_transaction_id of a JSON request body, if it has one. */
static void repeat_transaction(struct outbuf *o, struct span body)
{
    json_t *request = json_loadb(body.p ? body.p : "", body.n, JSON_REJECT_DUPLICATES, NULL);
    json_t *id = json_object_get(request, "merchant_transaction_id");
    if (json_is_string(id))
        member(o, "merchant_transaction_id", span_of(json_string_value(id), json_string_length(id)));
    json_decref(request);
}

static void answer_session(struct demo_worker *w, const struct demo_request *r, struct demo_answer *a)
{
    struct outbuf o = outbuf_of(w->json, sizeof w->json);
    char id[UUID_LEN], url[UUID_LEN + 64];
    uuid7_write(&w->random, w->loop.wall_ms, id);
    struct outbuf u = outbuf_of(url, sizeof url);
    outbuf_fmt(&u, "https://widget.example/session/%.*s", UUID_LEN, id);

    outbuf_char(&o, '{');
    member(&o, "session_id", span_of(id, sizeof id));
    member(&o, "widget_url", span_of(u.p, u.n));
    member_time(&o, "expires_at", w->loop.wall_ms + SESSION_MS);
    repeat_transaction(&o, r->body);
    outbuf_char(&o, '}');
    finish_json(&o, 201, a);
}

static void answer_transaction(struct demo_worker *w, struct span id, struct demo_answer *a)
{
    struct outbuf o = outbuf_of(w->json, sizeof w->json);
    outbuf_char(&o, '{');
    member(&o, "merchant_transaction_id", id);
    member(&o, "status", SPAN("processing"));
    member_time(&o, "updated_at", w->loop.wall_ms);
    outbuf_char(&o, '}');
    finish_json(&o, 200, a);
}

static void answer_kyc(struct demo_worker *w, struct span user, struct demo_answer *a)
{
    struct outbuf o = outbuf_of(w->json, sizeof w->json);
    outbuf_char(&o, '{');
    member(&o, "partner_user_id", user);
    member(&o, "kyc_status", SPAN("approved"));
    outbuf_char(&o, '}');
    finish_json(&o, 200, a);
}

static bool is_printable(struct span s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((s.p[i] < 0x20 || s.p[i] > 0x7e) && s.p[i] != '\n' && s.p[i] != '\r' && s.p[i] != '\t')
            return false;
    return true;
}

static void echo_fields(struct outbuf *o, const struct req_head *head)
{
    outbuf_str(o, ",\"headers\":[");
    for (uint32_t i = 0; i < head->nfields; i++) {
        outbuf_str(o, i ? ",[" : "[");
        outbuf_json(o, head->fields[i].name);
        outbuf_char(o, ',');
        outbuf_json(o, head->fields[i].value);
        outbuf_char(o, ']');
    }
    outbuf_char(o, ']');
}

static void answer_echo(struct demo_worker *w, const struct demo_request *r, struct demo_answer *a)
{
    struct outbuf o = outbuf_of(w->json, sizeof w->json);
    outbuf_char(&o, '{');
    member(&o, "method", method_name(r->head->method));
    member(&o, "target", r->head->target);
    member(&o, "version", r->head->minor ? SPAN("1.1") : SPAN("1.0"));
    echo_fields(&o, r->head);
    outbuf_fmt(&o, ",\"body_bytes\":%llu,\"body_sha256\":\"", (unsigned long long)r->body_bytes);
    for (size_t i = 0; i < sizeof r->body_sha256; i++)
        outbuf_fmt(&o, "%02x", r->body_sha256[i]);
    outbuf_char(&o, '"');
    if (r->body.n == r->body_bytes && is_printable(r->body)) member(&o, "body", r->body);
    outbuf_char(&o, '}');
    finish_json(&o, 200, a);
}

/* `N` or `N/SIZE` at the end of the path. False when it is neither. */
static bool answer_bytes(struct span rest, enum demo_framing framing, struct demo_answer *a)
{
    uint64_t chunk = CHUNK_BYTES;
    struct span count = cut(&rest, '/');
    if (!span_to_u64(count, &a->bytes) || (rest.p && !span_to_u64(rest, &chunk))) return false;
    if (chunk == 0 || chunk > DEMO_STEP_BYTES) return false;
    a->status = 200;
    a->framing = framing;
    a->left = a->bytes;
    a->chunk_bytes = (uint32_t)chunk;
    return true;
}

static bool answer_status(struct demo_worker *w, struct span rest, struct demo_answer *a)
{
    uint64_t status;
    if (!span_to_u64(rest, &status) || status < 200 || status > 599) return false;
    struct outbuf o = outbuf_of(w->json, sizeof w->json);
    outbuf_fmt(&o, "{\"status\":%u}", (unsigned)status);
    finish_json(&o, (uint16_t)status, a);
    return true;
}

static bool answer_slow(struct span query, struct demo_answer *a)
{
    a->status = 200;
    a->bytes = a->left = demo_query_u32(query, SPAN("bytes"), UINT32_MAX, 26);
    a->step_bytes = demo_query_u32(query, SPAN("step"), DEMO_STEP_BYTES, DEMO_STEP_BYTES);
    a->first_byte_ms = demo_query_u32(query, SPAN("first_byte_ms"), WAIT_MS_MAX, 0);
    a->body_ms = demo_query_u32(query, SPAN("body_ms"), WAIT_MS_MAX, 0);
    a->gap_ms = demo_query_u32(query, SPAN("gap_ms"), WAIT_MS_MAX, 0);
    return a->step_bytes > 0;
}

/* Takes `prefix` off the front of `s`. */
static bool skip(struct span *s, struct span prefix)
{
    if (!span_starts(*s, prefix)) return false;
    *s = span_of(s->p + prefix.n, s->n - prefix.n);
    return true;
}

/* `rest` is `{id}` or `{id}/suffix`; the identifier must not be empty. */
static bool is_named(struct span rest, struct span suffix, struct span *id)
{
    *id = cut(&rest, '/');
    return id->n > 0 && span_eq(rest, suffix);
}

/* What comes after /widget/. False: there is nothing there. */
static bool route_widget(struct demo_worker *w, const struct demo_request *r, struct span rest,
                         struct demo_answer *a)
{
    struct span id;
    if (span_eq(rest, SPAN("session")) && r->head->method == METHOD_POST)
        answer_session(w, r, a);
    else if (skip(&rest, SPAN("transactions/")) && is_named(rest, SPAN(""), &id))
        answer_transaction(w, id, a);
    else if (skip(&rest, SPAN("users/")) && is_named(rest, SPAN("kyc-status"), &id))
        answer_kyc(w, id, a);
    else if (span_eq(rest, SPAN("echo")))
        answer_echo(w, r, a);
    else if (skip(&rest, SPAN("bytes/")))
        return answer_bytes(rest, DEMO_LENGTH, a);
    else if (skip(&rest, SPAN("chunked/")))
        return answer_bytes(rest, DEMO_CHUNKED, a);
    else if (skip(&rest, SPAN("close-delimited/")))
        return answer_bytes(rest, DEMO_UNTIL_CLOSE, a);
    else if (skip(&rest, SPAN("status/")))
        return answer_status(w, rest, a);
    else if (span_eq(rest, SPAN("slow")))
        return answer_slow(r->query, a);
    else
        return false;
    return true;
}

void demo_route(struct demo_worker *w, const struct demo_request *r, struct demo_answer *a)
{
    struct span rest = r->path;
    *a = (struct demo_answer){.step_bytes = DEMO_STEP_BYTES};
    if (!skip(&rest, SPAN("/widget/")) || !route_widget(w, r, rest, a)) {
        *a = (struct demo_answer){.step_bytes = DEMO_STEP_BYTES};
        struct outbuf o = outbuf_of(w->json, sizeof w->json);
        outbuf_str(&o, "{\"error\":\"not_found\",\"code\":\"not_found\",\"message\":\"The demo has no such "
                       "endpoint.\"}");
        finish_json(&o, 404, a);
    }
    if (a->framing == DEMO_CHUNKED && r->head->minor == 0)
        a->framing = DEMO_UNTIL_CLOSE; /* RFC 9112 section 7.1 */
    if (!r->head->keep_alive || a->framing == DEMO_UNTIL_CLOSE) a->close = true;
    a->no_body = r->head->method == METHOD_HEAD || a->status == 204 || a->status == 304;
    a->early_hints = span_eq(demo_query(r->query, SPAN("early_hints")), SPAN("1"));
}
