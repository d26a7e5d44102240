#include "store/redis_log.h"

#include "store/record_value.h"

static struct span text_of(const redisReply *reply)
{
    bool is_text = reply && (reply->type == REDIS_REPLY_STRING || reply->type == REDIS_REPLY_STATUS);
    return is_text ? span_of(reply->str, reply->len) : span_of(NULL, 0);
}

bool redis_number(const redisReply *reply, uint64_t *out)
{
    return span_to_u64(text_of(reply), out);
}

static enum err refuse(struct errmsg *why, enum err e, const char *text)
{
    errmsg_set(why, 0, 0, "%s", text);
    return e;
}

enum err redis_meta_read(const redisReply *reply, struct redis_meta *out, struct errmsg *why)
{
    struct redis_meta meta;
    uint64_t schema;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != REDIS_META_NFIELDS)
        return refuse(why, ERR_PARSE, "the answer to HMGET is malformed");
    redisReply **field = reply->element;
    if (field[0]->type == REDIS_REPLY_NIL)
        return refuse(why, ERR_NOT_FOUND,
                      "Redis has no partner data for this tag: restore it, or begin with `proofctl init`");
    if (!redis_number(field[0], &schema) || schema != REDIS_SCHEMA_VERSION) {
        errmsg_set(why, 0, 0, "the partner data has schema %.*s, this program reads %d",
                   (int)text_of(field[0]).n, text_of(field[0]).p, REDIS_SCHEMA_VERSION);
        return ERR_UNSUPPORTED;
    }
    if (!span_to_cstr(text_of(field[1]), meta.epoch, sizeof meta.epoch) || !meta.epoch[0] ||
        !redis_number(field[2], &meta.sequence) || !redis_number(field[3], &meta.count) ||
        !redis_digest_parse(text_of(field[4]), &meta.digest))
        return refuse(why, ERR_PARSE, "the meta hash of the partner data is damaged");
    *out = meta;
    return ERR_OK;
}

/* "<sequence>-1" */
static bool read_id(const redisReply *reply, uint64_t *sequence)
{
    struct span id = text_of(reply);
    if (id.n < 3 || id.p[id.n - 2] != '-' || id.p[id.n - 1] != '1') return false;
    return span_to_u64(span_of(id.p, id.n - 2), sequence) && *sequence > 0;
}

enum { ENTRY_FIELDS = 5 }; /* op id n c d: in this order, before those of the record */

static bool take(const redisReply *fields, size_t i, struct span name, struct span *value)
{
    *value = text_of(fields->element[2 * i + 1]);
    return span_eq(text_of(fields->element[2 * i]), name);
}

enum err redis_entry_read(const redisReply *reply, struct redis_entry *out)
{
    struct redis_entry e = {.from = 2 * ENTRY_FIELDS};
    struct span op = {0}, nonce = {0}, count = {0}, digest = {0};
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2) return ERR_PARSE;
    const redisReply *fields = reply->element[1];
    if (fields->type != REDIS_REPLY_ARRAY || fields->elements < e.from) return ERR_PARSE;
    e.reply = fields;
    bool ok = read_id(reply->element[0], &e.sequence) && take(fields, 0, SPAN("op"), &op) &&
              take(fields, 1, SPAN("id"), &e.id) && take(fields, 2, SPAN("n"), &nonce) &&
              take(fields, 3, SPAN("c"), &count) && take(fields, 4, SPAN("d"), &digest);
    ok = ok && span_to_u64(count, &e.count) && redis_digest_parse(digest, &e.digest) &&
         record_value_is_partner_id(e.id) && span_to_cstr(nonce, e.nonce, sizeof e.nonce) && e.nonce[0];
    e.is_delete = span_eq(op, SPAN("del"));
    if (!ok || (!e.is_delete && !span_eq(op, SPAN("set")))) return ERR_PARSE;
    *out = e;
    return ERR_OK;
}

const redisReply *redis_field(const redisReply *pairs, struct span name)
{
    for (size_t i = 0; i + 1 < pairs->elements; i += 2)
        if (span_eq(text_of(pairs->element[i]), name)) return pairs->element[i + 1];
    return NULL;
}
