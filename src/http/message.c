#include "http/message.h"

/* Options in all Connection fields of a head; more are refused, which bounds the loop below. */
enum { CONNECTION_OPTIONS_MAX = 32 };

void message_index(struct message *m, struct http_field *fields, uint32_t nfields, uint8_t minor)
{
    *m = (struct message){.fields = fields, .nfields = nfields, .minor = minor};
    for (uint32_t i = 0; i < nfields; i++) {
        struct http_field *f = &fields[i];
        f->id = field_find(f->name);
        if (f->id == FIELD_OTHER) continue;
        enum field_class class = field_class_of(f->id);
        f->drop = class == FIELD_CLASS_HOP || class == FIELD_CLASS_FRAMING;
        if (m->count[f->id]++ == 0) m->first[f->id] = (uint16_t)i;
    }
}

/* What the options of all Connection fields said. */
struct connection {
    unsigned noptions;
    bool close, keep_alive, upgrade;
};

/* "A sender MUST NOT send a connection option corresponding to a field that is intended for all recipients of
 * the content" (RFC 9110 section 7.6.1). Honest senders do not; the others hope that we remove a field which
 * somebody behind us relies on. */
static bool may_be_named(struct span option)
{
    enum field_id id = field_find(option);
    if (id != FIELD_OTHER) return field_class_of(id) == FIELD_CLASS_HOP;
    return !field_is_identity(id, option);
}

static enum head_refusal option_apply(struct message *m, struct span option, struct connection *c)
{
    if (++c->noptions > CONNECTION_OPTIONS_MAX || !field_name_is_token(option))
        return HEAD_REFUSAL_FIELD_VALUE;
    if (span_ieq(option, SPAN("close"))) {
        c->close = true;
    } else if (span_ieq(option, SPAN("keep-alive"))) {
        c->keep_alive = true;
    } else if (span_ieq(option, SPAN("upgrade"))) {
        c->upgrade = true;
    } else {
        if (!may_be_named(option)) return HEAD_REFUSAL_FIELD_VALUE;
        for (uint32_t i = 0; i < m->nfields; i++)
            if (span_ieq(m->fields[i].name, option)) m->fields[i].drop = true;
    }
    return HEAD_REFUSAL_NONE;
}

enum head_refusal message_connection(struct message *m)
{
    struct connection c = {0};
    uint32_t left = m->count[FIELD_CONNECTION];
    for (const struct http_field *f = message_first(m, FIELD_CONNECTION); left; f++) {
        if (f->id != FIELD_CONNECTION) continue;
        left--;
        struct span rest = f->value;
        for (struct span option; list_next(&rest, &option);) {
            enum head_refusal refusal = option_apply(m, option, &c);
            if (refusal) return refusal;
        }
    }
    m->keep_alive = !c.close && (m->minor == 1 || c.keep_alive);
    /* "A server MUST ignore an Upgrade header field that is received in an HTTP/1.0 request"
     * (RFC 9110 section 7.8). */
    m->has_upgrade = c.upgrade && m->minor == 1 && m->count[FIELD_UPGRADE] > 0;
    return HEAD_REFUSAL_NONE;
}

enum head_refusal message_framing(struct message *m)
{
    uint32_t ncoding = m->count[FIELD_TRANSFER_ENCODING], nlength = m->count[FIELD_CONTENT_LENGTH];
    if (ncoding) {
        /* "chunked" is the only coding we can take off again, and the only one whose end everybody sees in
         * the same place; HTTP/1.0 does not have it (RFC 9112 section 6.1). */
        struct span coding = message_first(m, FIELD_TRANSFER_ENCODING)->value;
        if (ncoding > 1 || m->minor == 0 || !span_ieq(coding, SPAN("chunked")))
            return HEAD_REFUSAL_TRANSFER_ENCODING;
        m->is_chunked = true;
    }
    if (nlength) {
        /* Both at once, or a repeated length, "ought to be handled as an error" (RFC 9112 section 6.3). */
        struct span length = message_first(m, FIELD_CONTENT_LENGTH)->value;
        if (nlength > 1 || ncoding || !span_to_u64(length, &m->content_length))
            return HEAD_REFUSAL_CONTENT_LENGTH;
        m->has_content_length = true;
    }
    return HEAD_REFUSAL_NONE;
}
