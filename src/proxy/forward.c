#include "proxy/forward.h"

#include "http/reply.h"

/* Part of its callers, where most names are literals: copying one is then a move or two. */
static inline __attribute__((always_inline)) void write_field(struct outbuf *o, struct span name,
                                                              struct span value)
{
    char *at = outbuf_take(o, name.n + value.n + 4);
    if (!at) return;
    memcpy(at, name.p, name.n);
    memcpy(at += name.n, ": ", 2);
    memcpy(at += 2, value.p, value.n);
    memcpy(at + value.n, "\r\n", 2);
}

/* A field of the other side, in one piece where it stands there as we write it. */
static inline void pass_field(struct outbuf *o, const struct http_field *f)
{
    const char *name_end = f->name.p + f->name.n;
    if (f->value.p != name_end + 2 || name_end[1] != ' ') {
        write_field(o, f->name, f->value);
        return;
    }
    size_t n = f->name.n + 2 + f->value.n;
    char *at = outbuf_take(o, n + 2);
    if (!at) return;
    memcpy(at, f->name.p, n);
    memcpy(at + n, "\r\n", 2);
}

static bool is_removed_by_config(const struct config_identity *rules, struct span name)
{
    for (uint32_t i = 0; i < rules->nremove; i++)
        if (span_ieq(name, span_str(rules->remove[i]))) return true;
    return false;
}

static void write_request_fields(struct outbuf *o, const struct req_head *req,
                                 const struct config_identity *rules)
{
    for (uint32_t i = 0; i < req->nfields; i++) {
        const struct http_field *f = &req->fields[i];
        if (f->drop || f->id == FIELD_HOST) continue;
        if (f->id == FIELD_AUTHORIZATION && !rules->pass_authorization) continue;
        if (rules->nremove && is_removed_by_config(rules, f->name)) continue;
        pass_field(o, f);
    }
}

static void write_framing(struct outbuf *o, bool is_chunked, bool has_length, uint64_t length)
{
    if (is_chunked) {
        outbuf_span(o, SPAN("Transfer-Encoding: chunked\r\n"));
    } else if (has_length) {
        outbuf_span(o, SPAN("Content-Length: "));
        outbuf_u64(o, length);
        outbuf_span(o, SPAN("\r\n"));
    }
}

static void write_identity(struct outbuf *o, const struct req_head *req, const struct forward_identity *id)
{
    char widget[PARTNER_WIDGET_TEXT_BYTES];
    partner_view_widget_id(id->partner, widget);
    write_field(o, SPAN("X-Request-Id"), id->request_id);
    write_field(o, SPAN("X-Forwarded-For"), id->client);
    write_field(o, SPAN("X-Forwarded-Proto"), id->proto);
    write_field(o, SPAN("X-Forwarded-Host"), req->host_field);
    write_field(o, SPAN("X-Proof-Partner-Id"), partner_view_id(id->partner));
    write_field(o, SPAN("X-Proof-Widget-Id"), span_of(widget, UUID_LEN));
    write_field(o, SPAN("X-Proof-Environment"), span_str(environment_name(id->env)));
    write_field(o, SPAN("X-Proof-Off-Ramp"), id->partner->off_ramp ? SPAN("enabled") : SPAN("disabled"));
    write_field(o, SPAN("X-Proof-Token-Slot"), span_str(token_slot_name(id->slot)));
}

void forward_request(struct outbuf *o, const struct req_head *req, bool upgrade,
                     const struct config_identity *rules, const struct forward_identity *id)
{
    outbuf_span(o, method_name(req->method));
    outbuf_char(o, ' ');
    outbuf_span(o, req->parts.origin);
    outbuf_span(o, SPAN(" HTTP/1.1\r\n"));
    write_field(o, SPAN("Host"), req->host_field);
    write_request_fields(o, req, rules);
    write_framing(o, req->body == BODY_CHUNKED, req->has_content_length, req->content_length);
    if (upgrade) outbuf_span(o, SPAN("Upgrade: websocket\r\nConnection: Upgrade\r\n"));
    write_identity(o, req, id);
    outbuf_span(o, SPAN("\r\n"));
}

void forward_response(struct outbuf *o, const struct res_head *res, const struct forward_answer *a)
{
    bool has_date = false;
    outbuf_span(o, SPAN("HTTP/1.1 "));
    outbuf_u64(o, res->status);
    outbuf_char(o, ' ');
    outbuf_span(o, res->reason.n ? res->reason : span_str(status_phrase(res->status)));
    outbuf_span(o, SPAN("\r\n"));
    for (uint32_t i = 0; i < res->nfields; i++) {
        const struct http_field *f = &res->fields[i];
        if (f->id == FIELD_DATE) has_date = true;
        if (!f->drop) pass_field(o, f);
    }
    if (a->upgrade) {
        outbuf_span(o, SPAN("Upgrade: websocket\r\nConnection: Upgrade\r\n"));
    } else if (res->status >= 200) {
        write_framing(o, a->chunked, res->has_content_length, res->content_length);
        if (!has_date) outbuf_span(o, a->date_line);
        if (!a->keep_alive)
            outbuf_span(o, SPAN("Connection: close\r\n"));
        else if (a->client_minor == 0)
            outbuf_span(o, SPAN("Connection: keep-alive\r\n"));
    }
    if (a->upgrade || res->status >= 200) write_field(o, SPAN("X-Request-Id"), a->request_id);
    outbuf_span(o, SPAN("\r\n"));
}
