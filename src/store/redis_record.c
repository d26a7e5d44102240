#include "store/redis_record.h"

#include "base/clock.h"

/* --- reading: fields -> one JSON object -> record_parse() ---------------------------------------------- */

/* A JSON string. Bytes from 0x80 on pass as they are: the validator checks that they are UTF-8. */
static enum err add_string(struct bytes *b, struct span s)
{
    enum err e = bytes_reserve(b, 6 * s.n + 2);
    if (e) return e;
    b->p[b->n++] = '"';
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c < 0x20) {
            b->n += (size_t)snprintf(b->p + b->n, 7, "\\u%04x", c); /* its NUL is overwritten */
            continue;
        }
        if (c == '"' || c == '\\') b->p[b->n++] = '\\';
        b->p[b->n++] = (char)c;
    }
    b->p[b->n++] = '"';
    return ERR_OK;
}

static enum err add_text(struct bytes *b, struct span s)
{
    return bytes_add(b, s.p, s.n);
}

/* Words with single spaces between them. */
static enum err add_list(struct bytes *b, struct span words)
{
    enum err e = add_text(b, SPAN("["));
    for (const char *comma = ""; !e && words.n > 0; comma = ",") {
        const char *space = memchr(words.p, ' ', words.n);
        size_t n = space ? (size_t)(space - words.p) : words.n;
        e = add_text(b, span_str(comma));
        if (!e) e = add_string(b, span_of(words.p, n));
        if (space && n + 1 == words.n && !e) e = add_text(b, SPAN(",\"\"")); /* a space at the end */
        n += space != NULL;
        words = span_of(words.p + n, words.n - n);
    }
    return e ? e : add_text(b, SPAN("]"));
}

static bool is_list(struct span name)
{
    return span_eq(name, SPAN("production_cidrs")) || span_eq(name, SPAN("sandbox_cidrs")) ||
           span_eq(name, SPAN("client_certificate_sha256"));
}

static bool is_flag(struct span name, struct span value)
{
    if (!span_eq(name, SPAN("off_ramp")) && !span_eq(name, SPAN("enabled"))) return false;
    return span_eq(value, SPAN("true")) || span_eq(value, SPAN("false"));
}

static enum err add_member(struct bytes *b, struct span name, struct span value)
{
    enum err e = add_text(b, SPAN(","));
    if (!e) e = add_string(b, name);
    if (!e) e = add_text(b, SPAN(":"));
    if (e) return e;
    if (is_list(name)) return add_list(b, value);
    return is_flag(name, value) ? add_text(b, value) : add_string(b, value);
}

static bool is_text(const redisReply *reply)
{
    return reply->type == REDIS_REPLY_STRING || reply->type == REDIS_REPLY_STATUS;
}

static enum err write_json(struct span id, const redisReply *reply, size_t from, struct bytes *b)
{
    b->n = 0;
    enum err e = add_text(b, SPAN("{\"partner_id\":"));
    if (!e) e = add_string(b, id);
    for (size_t i = from; !e && i + 1 < reply->elements; i += 2) {
        const redisReply *name = reply->element[i], *value = reply->element[i + 1];
        if (!is_text(name) || !is_text(value)) return ERR_PARSE;
        struct span field = {name->str, name->len};
        if (!span_eq(field, SPAN("v"))) e = add_member(b, field, span_of(value->str, value->len));
    }
    return e ? e : add_text(b, SPAN("}"));
}

enum err redis_record_read(struct span id, const redisReply *reply, size_t from, struct bytes *scratch,
                           struct partner_record *out, struct record_report *report)
{
    bool is_pairs =
        reply->type == REDIS_REPLY_ARRAY && reply->elements >= from && (reply->elements - from) % 2 == 0;
    enum err e = is_pairs ? write_json(id, reply, from, scratch) : ERR_PARSE;
    if (e == ERR_PARSE)
        record_messages_add(&report->faults, 0, 0, "the fields are not pairs of name and text");
    return e ? e : record_parse(span_of(scratch->p, scratch->n), 1, out, report);
}

/* --- writing ---------------------------------------------------------------------------------------- */

/* Values are collected as offsets first: `text` moves while it grows. */
struct writer {
    struct redis_fields *f;
    size_t begins[REDIS_FIELDS_MAX];
    enum err err;
};

static void begin_field(struct writer *w, const char *name)
{
    w->f->names[w->f->n] = name;
    w->begins[w->f->n++] = w->f->text.n;
}

static void write_text(struct writer *w, const void *p, size_t n)
{
    if (!w->err) w->err = bytes_add(&w->f->text, p, n);
}

static void put_string(struct writer *w, const char *name, const char *value)
{
    if (!value) return;
    begin_field(w, name);
    write_text(w, value, strlen(value));
}

/* Of 32 bytes. */
static void write_hex(struct writer *w, const uint8_t *digest)
{
    char hex[2 * TOKEN_DIGEST_BYTES];
    ascii_hex_write(hex, digest, TOKEN_DIGEST_BYTES);
    write_text(w, hex, sizeof hex);
}

static void put_digest(struct writer *w, const char *name, const struct partner *p, enum token_slot slot)
{
    if (!p->has_token[slot]) return;
    begin_field(w, name);
    write_hex(w, p->digest[slot]);
}

static void put_certificates(struct writer *w, const struct partner *p)
{
    if (p->ncertificates == 0) return;
    begin_field(w, "client_certificate_sha256");
    for (uint8_t i = 0; i < p->ncertificates; i++) {
        if (i) write_text(w, " ", 1);
        write_hex(w, p->certificates[i]);
    }
}

static void put_list(struct writer *w, const char *name, const struct partner *p, enum environment env)
{
    if (p->ncidrs[env] == 0) return;
    begin_field(w, name);
    for (uint32_t i = 0; i < p->ncidrs[env]; i++) {
        char text[CIDR_TEXT_MAX];
        size_t n = cidr_format(&p->cidrs[env][i], text);
        if (i) write_text(w, " ", 1);
        write_text(w, text, n);
    }
}

static void put_expiry(struct writer *w, const struct partner *p)
{
    char text[CLOCK_RFC3339_LEN];
    if (!p->has_token[SLOT_PREVIOUS]) return;
    clock_rfc3339(p->previous_expires_ms, text);
    begin_field(w, "previous_token_expires_at");
    write_text(w, text, sizeof text);
}

enum err redis_fields_make(const struct partner_record *record, struct redis_fields *out)
{
    const struct partner *p = &record->partner;
    struct writer w = {.f = out};
    char widget_id[UUID_LEN + 1] = {0};
    uuid_format(p->widget_id, widget_id);
    *out = (struct redis_fields){0};
    put_string(&w, "company", record->company);
    put_string(&w, "contact", record->contact);
    put_digest(&w, "client_token_sha256", p, SLOT_CURRENT);
    put_digest(&w, "previous_token_sha256", p, SLOT_PREVIOUS);
    put_expiry(&w, p);
    put_string(&w, "widget_id", widget_id);
    put_string(&w, "off_ramp", p->off_ramp ? "true" : "false");
    put_string(&w, "webhook_url", record->webhook_url);
    put_list(&w, "production_cidrs", p, ENV_PRODUCTION);
    put_list(&w, "sandbox_cidrs", p, ENV_SANDBOX);
    put_certificates(&w, p);
    put_string(&w, "enabled", p->enabled ? "true" : "false");
    for (size_t i = 0; i < out->n; i++) {
        size_t end = i + 1 < out->n ? w.begins[i + 1] : out->text.n;
        out->values[i] = span_of(out->text.p + w.begins[i], end - w.begins[i]);
    }
    return w.err;
}

void redis_fields_deinit(struct redis_fields *f)
{
    bytes_deinit(&f->text);
    f->n = 0;
}
