#include "proofctl/redis_state.h"

#include "base/random.h"
#include "store/record_value.h"
#include "store/redis_error.h"
#include "store/redis_record.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { SCAN_COUNT = 1000 };

/* --- failures ------------------------------------------------------------------------------------- */

enum err redis_fail(struct backend_redis *r, enum err e, const char *format, ...)
{
    struct errmsg why;
    va_list args;
    va_start(args, format);
    (void)vsnprintf(why.text, sizeof why.text, format, args); /* truncation is what errmsg promises */
    va_end(args);
    record_messages_add(&r->base.faults, 0, 0, "%s", why.text);
    return e;
}

enum err redis_fail_link(struct backend_redis *r, enum err e)
{
    return e == ERR_NOMEM ? e : redis_fail(r, e, "%s", redis_link_fault(r->link));
}

enum err redis_ask(struct backend_redis *r, size_t argc, const char *const *argv, redisReply **out)
{
    enum err e = redis_link_call(r->link, argc, argv, out);
    return e ? redis_fail_link(r, e) : ERR_OK;
}

enum err redis_fail_malformed(struct backend_redis *r, const char *command)
{
    return redis_fail(r, ERR_IO, "the answer to %s is malformed", command);
}

enum err redis_fail_no_data(struct backend_redis *r)
{
    return redis_fail(r, ERR_IO,
                      "there is no partner data under this tag: restore it (docs/DATA.md, \"Back up and "
                      "restore\"), or begin with `proofctl init`");
}

/* --- the data set --------------------------------------------------------------------------------- */

void redis_clear(struct backend_redis *r)
{
    r->base.faults = (struct record_messages){0};
    r->base.note[0] = '\0';
    r->base.ncommitted = 0;
    r->base.is_outcome_unknown = false;
}

/* Only the schema: what else is wrong with meta must not keep `verify --repair` from mending it. */
static enum err check_schema(struct backend_redis *r)
{
    const char *const argv[] = {"HGET", r->keys.meta, "schema"};
    redisReply *reply;
    uint64_t schema = 0;
    enum err e = redis_ask(r, 3, argv, &reply);
    if (e) return e;
    if (reply->type == REDIS_REPLY_NIL)
        e = redis_fail_no_data(r);
    else if (!redis_number(reply, &schema) || schema != REDIS_SCHEMA_VERSION)
        e = redis_fail(r, ERR_IO, "the partner data has another schema than %d: it is of another version",
                       REDIS_SCHEMA_VERSION);
    freeReplyObject(reply);
    r->has_schema = !e;
    return e;
}

enum err redis_begin(struct backend_redis *r)
{
    redis_clear(r);
    return r->has_schema ? ERR_OK : check_schema(r);
}

enum err redis_nonce(struct backend_redis *r, char out[static REDIS_NONCE_CHARS + 1])
{
    uint8_t random[REDIS_NONCE_CHARS / 2];
    if (random_bytes(random, sizeof random)) return redis_fail(r, ERR_IO, "the kernel gave no random bytes");
    ascii_hex_write(out, random, sizeof random);
    out[REDIS_NONCE_CHARS] = '\0';
    return ERR_OK;
}

/* --- keys ----------------------------------------------------------------------------------------- */

/* Takes the keys of one answer to SCAN. `cursor` becomes the next one. */
static enum err take_keys(struct backend_redis *r, const redisReply *reply, struct span prefix,
                          struct names *out, uint64_t *cursor)
{
    bool is_page = reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 &&
                   redis_number(reply->element[0], cursor) && reply->element[1]->type == REDIS_REPLY_ARRAY;
    if (!is_page) return redis_fail_malformed(r, "SCAN");
    const redisReply *keys = reply->element[1];
    for (size_t i = 0; i < keys->elements; i++) {
        if (keys->element[i]->type != REDIS_REPLY_STRING) return redis_fail_malformed(r, "SCAN");
        struct span key = {keys->element[i]->str, keys->element[i]->len};
        if (!span_starts(key, prefix)) continue;
        enum err e = names_add(out, span_of(key.p + prefix.n, key.n - prefix.n));
        if (e) return e;
    }
    return ERR_OK;
}

enum err redis_scan(struct backend_redis *r, const char *pattern, const char *prefix, struct names *out)
{
    char cursor_text[24], count[12];
    const char *const argv[] = {"SCAN", cursor_text, "MATCH", pattern, "COUNT", count};
    uint64_t cursor = 0;
    (void)snprintf(count, sizeof count, "%d", SCAN_COUNT);
    do {
        redisReply *reply;
        (void)snprintf(cursor_text, sizeof cursor_text, "%" PRIu64, cursor); /* fits */
        enum err e = redis_ask(r, 6, argv, &reply);
        if (e) return e;
        e = take_keys(r, reply, span_str(prefix), out, &cursor);
        freeReplyObject(reply);
        if (e) return e;
    } while (cursor != 0);
    return names_sort(out);
}

enum err redis_partner_ids(struct backend_redis *r, struct names *ids, struct names *odd)
{
    struct names all = {0};
    enum err e = redis_scan(r, r->keys.pattern, r->keys.prefix, &all);
    for (size_t i = 0; !e && i < all.n; i++) {
        struct span id = span_str(all.list[i]);
        e = names_add(record_value_is_partner_id(id) ? ids : odd, id);
    }
    names_deinit(&all);
    if (!e) e = names_sort(ids);
    return e ? e : names_sort(odd);
}

/* --- records -------------------------------------------------------------------------------------- */

static enum err receive_hash(struct backend_redis *r, size_t i, redis_hash_fn *fn, void *arg)
{
    redisReply *reply;
    enum err e = redis_link_receive(r->link, 0, &reply);
    if (e) return redis_fail_link(r, e);
    /* A key of another type is no record, and is handed out as such. */
    bool is_other = span_eq(redis_error_code(reply), SPAN("WRONGTYPE"));
    if (reply->type == REDIS_REPLY_ERROR && !is_other)
        e = redis_fail_link(r, redis_link_refuse(r->link, "HGETALL", reply));
    else if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 0)
        e = fn(arg, i, NULL);
    else
        e = fn(arg, i, reply);
    freeReplyObject(reply);
    return e;
}

enum err redis_hashes(struct backend_redis *r, const char *const *ids, size_t n, redis_hash_fn *fn, void *arg)
{
    char key[REDIS_KEY_MAX];
    const char *const argv[] = {"HGETALL", key};
    enum err e = ERR_OK;
    BUG_IF(n > REDIS_BATCH, "more records than one batch takes");
    for (size_t i = 0; i < n; i++) {
        redis_keys_partner(&r->keys, span_str(ids[i]), key);
        if (redis_link_send(r->link, 2, argv, NULL)) return redis_fail_link(r, ERR_NOMEM);
    }
    for (size_t i = 0; !e && i < n; i++)
        e = receive_hash(r, i, fn, arg);
    return e;
}

/* The version as the script compares it: "0" for a record without one, and "", which is not compared, for one
 * that no script has written. */
static void read_version(const redisReply *hash, struct backend_version *out)
{
    *out = (struct backend_version){{'0'}};
    const redisReply *v = redis_field(hash, SPAN("v"));
    uint64_t number;
    if (!v) return;
    if (redis_number(v, &number))
        memcpy(out->bytes, v->str, v->len); /* at most 19 digits */
    else
        out->bytes[0] = '\0';
}

static struct span text_of(const redisReply *reply)
{
    return reply ? span_of(reply->str, reply->len) : span_of(NULL, 0);
}

enum err redis_describe(struct backend_redis *r, const char *id, const redisReply *hash,
                        struct backend_record *out, struct record_report *report)
{
    struct partner_record record;
    *out = (struct backend_record){.id = id};
    if (hash->type != REDIS_REPLY_ARRAY) {
        record_messages_add(&report->faults, 0, 0, "the key is no hash");
        return ERR_OK;
    }
    read_version(hash, &out->version);
    enum err e = redis_record_read(span_str(id), hash, 0, &r->scratch, &record, report);
    if (e == ERR_PARSE) {
        out->tokens[SLOT_CURRENT] = text_of(redis_field(hash, SPAN("client_token_sha256")));
        out->tokens[SLOT_PREVIOUS] = text_of(redis_field(hash, SPAN("previous_token_sha256")));
        return ERR_OK;
    }
    if (e) return e;
    record_deinit(&record);
    out->json = span_of(r->scratch.p, r->scratch.n);
    return ERR_OK;
}

static void keep_faults(struct backend_redis *r, const char *id, const struct record_report *report)
{
    for (uint32_t i = 0; i < report->faults.n; i++)
        record_messages_add(&r->base.faults, 0, 0, "%s: %s", id, report->faults.list[i].text);
}

struct listing {
    struct backend_redis *r;
    const char *const *ids; /* of this batch */
    backend_record_fn *on_record;
    void *arg;
};

static enum err list_one(void *arg, size_t i, const redisReply *hash)
{
    struct listing *l = arg;
    struct backend_record record;
    struct record_report report = {0};
    if (!hash) return ERR_OK; /* removed since the scan */
    enum err e = redis_describe(l->r, l->ids[i], hash, &record, &report);
    if (e) return e;
    if (!record.json.p) keep_faults(l->r, l->ids[i], &report);
    return l->on_record(l->arg, &record);
}

static enum err list_names(struct backend_redis *r, const struct names *ids, backend_record_fn *on_record,
                           void *arg)
{
    struct listing l = {r, NULL, on_record, arg};
    enum err e = ERR_OK;
    for (size_t at = 0; !e && at < ids->n; at += REDIS_BATCH) {
        size_t left = ids->n - at;
        l.ids = ids->list + at;
        e = redis_hashes(r, l.ids, left < REDIS_BATCH ? left : REDIS_BATCH, list_one, &l);
        progress_show(r->base.progress, at, ids->n);
    }
    progress_clear(r->base.progress);
    return e;
}

static enum err redis_list(struct backend *b, backend_record_fn *on_record, void *arg)
{
    struct backend_redis *r = redis_of(b);
    struct names ids = {0}, odd = {0};
    enum err e = redis_begin(r);
    if (!e) e = redis_partner_ids(r, &ids, &odd);
    if (!e) e = list_names(r, &ids, on_record, arg);
    for (size_t i = 0; !e && i < odd.n; i++)
        (void)redis_fail(r, ERR_PARSE, REDIS_ODD_KEY, odd.list[i]);
    names_deinit(&ids);
    names_deinit(&odd);
    return !e && b->faults.total > 0 ? ERR_PARSE : e;
}

struct finding_many {
    struct backend_redis *r;
    const char *const *ids; /* of this batch */
    size_t first;           /* number of ids[0] in the whole */
    backend_found_fn *on_found;
    void *arg;
};

static enum err find_one(void *arg, size_t i, const redisReply *hash)
{
    struct finding_many *f = arg;
    struct backend_record record;
    struct record_report report = {0};
    if (!hash) return f->on_found(f->arg, f->first + i, NULL);
    enum err e = redis_describe(f->r, f->ids[i], hash, &record, &report);
    return e ? e : f->on_found(f->arg, f->first + i, &record);
}

static enum err redis_get_many(struct backend *b, const char *const *ids, size_t n,
                               backend_found_fn *on_found, void *arg)
{
    struct backend_redis *r = redis_of(b);
    struct finding_many f = {r, NULL, 0, on_found, arg};
    enum err e = redis_begin(r);
    for (; !e && f.first < n; f.first += REDIS_BATCH) {
        size_t left = n - f.first;
        f.ids = ids + f.first;
        e = redis_hashes(r, f.ids, left < REDIS_BATCH ? left : REDIS_BATCH, find_one, &f);
        progress_show(b->progress, f.first, n);
    }
    progress_clear(b->progress);
    return e;
}

struct one {
    struct backend_redis *r;
    struct backend_record *out;
    bool is_there;
};

static enum err get_one(void *arg, size_t i, const redisReply *hash)
{
    struct one *o = arg;
    struct record_report report = {0};
    (void)i;
    if (!hash) return ERR_OK;
    o->is_there = true;
    enum err e = redis_describe(o->r, o->r->id, hash, o->out, &report);
    if (!e && !o->out->json.p) {
        keep_faults(o->r, o->r->id, &report);
        e = ERR_PARSE;
    }
    return e;
}

static enum err redis_get(struct backend *b, const char *id, struct backend_record *out)
{
    struct backend_redis *r = redis_of(b);
    struct one o = {.r = r, .out = out};
    if (!span_to_cstr(span_str(id), r->id, sizeof r->id)) return ERR_NOT_FOUND;
    const char *const ids[] = {r->id};
    enum err e = redis_begin(r);
    if (!e) e = redis_hashes(r, ids, 1, get_one, &o);
    return !e && !o.is_there ? ERR_NOT_FOUND : e;
}

/* --- life ----------------------------------------------------------------------------------------- */

static void redis_close_backend(struct backend *b)
{
    struct backend_redis *r = redis_of(b);
    redis_link_close(r->link);
    redis_tls_destroy(r->tls);
    names_deinit(&r->gateways);
    bytes_deinit(&r->scratch);
    free(r->totals.ghosts);
    free(r);
}

static const struct backend_ops redis_ops = {
    .list = redis_list,
    .get = redis_get,
    .get_many = redis_get_many,
    .commit = redis_commit,
    .audit = redis_audit,
    .close = redis_close_backend,
    .init = redis_init,
    .check = redis_check,
    .mend = redis_mend,
    .gateways = redis_gateways,
};

enum err backend_redis_open(const struct config_redis *config, const char *user, const char *password_file,
                            struct backend **out, struct errmsg *why)
{
    const struct redis_login login = {user, password_file};
    struct backend_redis *r = calloc(1, sizeof *r);
    if (!r) return ERR_NOMEM;
    r->base.ops = &redis_ops;
    r->base.place = r->place;
    r->config = config;
    redis_keys_init(&r->keys, config->tag);
    (void)snprintf(r->gateway_pattern, sizeof r->gateway_pattern, "gw:{%s}:g:*", config->tag); /* fits */
    enum err e = config->tls.enabled ? redis_tls_create(&config->tls, &r->tls, why) : ERR_OK;
    if (!e) e = redis_find_master(config, r->tls, &login, &r->link, &r->master, why);
    if (e) {
        r->link = NULL;
        redis_close_backend(&r->base);
        return e;
    }
    (void)snprintf(r->place, sizeof r->place, "Redis %s, tag %s", r->master.address, config->tag);
    *out = &r->base;
    return ERR_OK;
}
