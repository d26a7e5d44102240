/* What an operator does once, or looks at, in Redis: making the data set, and the reports of the gateways. */
#include "proofctl/redis_state.h"

#include "store/redis_error.h"

#include <stdlib.h>

/* --- init ----------------------------------------------------------------------------------------- */

/* Records without the hash that describes them are somebody's, and must not be buried. */
static enum err refuse_leftovers(struct backend_redis *r)
{
    struct names ids = {0};
    enum err e = redis_scan(r, r->keys.pattern, r->keys.prefix, &ids);
    if (!e && ids.n > 0)
        e = redis_fail(
            r, ERR_EXISTS,
            "there are %zu partner records under this tag, but %s is missing: restore it, or remove "
            "the records first; nothing was changed",
            ids.n, r->keys.meta);
    names_deinit(&ids);
    return e;
}

static enum err run_init(struct backend_redis *r, const char *epoch, struct span audit)
{
    const char *const argv[] = {"EVAL",       redis_script_init, "4",   r->keys.seq, r->keys.log,
                                r->keys.meta, r->keys.audit,     epoch, audit.p};
    const size_t lengths[] = {4,
                              strlen(redis_script_init),
                              1,
                              strlen(r->keys.seq),
                              strlen(r->keys.log),
                              strlen(r->keys.meta),
                              strlen(r->keys.audit),
                              strlen(epoch),
                              audit.n};
    redisReply *reply;
    enum err e = redis_link_send(r->link, 9, argv, lengths);
    if (!e) e = redis_link_receive(r->link, 0, &reply);
    if (e) return redis_fail_link(r, e);
    if (span_eq(redis_error_code(reply), SPAN("EXISTS")))
        e = redis_fail(r, ERR_EXISTS, "there is partner data under this tag already; nothing was changed");
    else if (reply->type == REDIS_REPLY_ERROR)
        e = redis_fail_link(r, redis_link_refuse(r->link, "the script", reply));
    freeReplyObject(reply);
    return e;
}

enum err redis_init(struct backend *b, struct span audit)
{
    struct backend_redis *r = redis_of(b);
    char epoch[REDIS_NONCE_CHARS + 1];
    const char *const argv[] = {"HGET", r->keys.meta, "schema"};
    redisReply *schema;
    redis_clear(r);
    enum err e = redis_ask(r, 3, argv, &schema);
    if (e) return e;
    if (schema->type == REDIS_REPLY_STRING)
        e = redis_fail(r, ERR_EXISTS,
                       "there is partner data under this tag already (schema %.20s); nothing was changed",
                       schema->str);
    freeReplyObject(schema);
    if (!e) e = refuse_leftovers(r);
    if (!e) e = redis_nonce(r, epoch);
    return e ? e : run_init(r, epoch, audit);
}

/* --- gateways ------------------------------------------------------------------------------------- */

static enum err read_meta(struct backend_redis *r, struct redis_meta *out)
{
    const char *const argv[] = {"HMGET", r->keys.meta, REDIS_META_FIELDS};
    redisReply *reply;
    struct errmsg why;
    enum err e = redis_ask(r, 2 + REDIS_META_NFIELDS, argv, &reply);
    if (e) return e;
    e = redis_meta_read(reply, out, &why);
    freeReplyObject(reply);
    if (!e) return ERR_OK;
    if (e == ERR_NOT_FOUND) return redis_fail_no_data(r);
    return redis_fail(r, ERR_IO, "%s", why.text);
}

static enum err report_values(struct backend_redis *r, const redisReply *values, backend_line_fn *on_line,
                              void *arg)
{
    enum err e = ERR_OK;
    if (values->type != REDIS_REPLY_ARRAY) return redis_fail_malformed(r, "MGET");
    for (size_t i = 0; !e && i < values->elements; i++) {
        const redisReply *value = values->element[i];
        if (value->type == REDIS_REPLY_STRING) e = on_line(arg, span_of(value->str, value->len));
    } /* others have ended since the scan */
    return e;
}

static enum err get_reports(struct backend_redis *r, backend_line_fn *on_line, void *arg)
{
    size_t n = r->gateways.n;
    redisReply *values;
    if (n == 0) return ERR_OK;
    const char **argv = calloc(n + 1, sizeof *argv);
    if (!argv) return ERR_NOMEM;
    argv[0] = "MGET";
    memcpy(argv + 1, r->gateways.list, n * sizeof *argv);
    enum err e = redis_ask(r, n + 1, argv, &values);
    free(argv);
    if (e) return e;
    e = report_values(r, values, on_line, arg);
    freeReplyObject(values);
    return e;
}

enum err redis_gateways(struct backend *b, bool is_again, backend_line_fn *on_line, void *arg)
{
    struct backend_redis *r = redis_of(b);
    struct redis_meta meta;
    enum err e = redis_begin(r);
    if (!e && !is_again) {
        names_deinit(&r->gateways);
        e = redis_scan(r, r->gateway_pattern, "", &r->gateways);
    }
    if (!e) e = get_reports(r, on_line, arg);
    if (!e) e = read_meta(r, &meta);
    if (e) return e;
    b->sequence = meta.sequence;
    memcpy(b->epoch, meta.epoch, sizeof meta.epoch);
    return ERR_OK;
}
