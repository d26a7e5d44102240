#include "store/redis_reader.h"

#include <string.h>

#if HIREDIS_MAJOR > 0
typedef size_t array_length;
#else
typedef int array_length;
#endif

static bool is_too_deep(const redisReadTask *task)
{
    unsigned depth = 1;
    for (const redisReadTask *t = task->parent; t; t = t->parent)
        if (++depth > REDIS_REPLY_DEPTH_MAX) return true;
    return false;
}

static enum err refuse(struct redis_reader *r, enum err e, const char *fault)
{
    r->fault = fault;
    r->fault_error = e;
    return e;
}

static enum err check_array(struct redis_reader *r, const redisReadTask *task, size_t n)
{
    if (task->type != REDIS_REPLY_ARRAY) return refuse(r, ERR_PARSE, "a RESP3 type");
    if (is_too_deep(task)) return refuse(r, ERR_LIMIT, "arrays nested too deeply");
    if (n > REDIS_REPLY_ELEMENTS_MAX - r->elements)
        return refuse(r, ERR_LIMIT, "too many elements in one reply");
    return ERR_OK;
}

/* NULL is lack of memory to hiredis, which gives up then. */
static void *create_array(const redisReadTask *task, array_length n)
{
    struct redis_reader *r = task->privdata;
    if (check_array(r, task, (size_t)n)) return NULL;
    r->elements += (size_t)n;
    return r->defaults.createArray(task, n);
}

enum err redis_reader_init(struct redis_reader *r)
{
    memset(r, 0, sizeof *r);
    r->hiredis = redisReaderCreate();
    if (!r->hiredis) return ERR_NOMEM;
    r->defaults = *r->hiredis->fn;
    r->functions = r->defaults;
    r->functions.createArray = create_array;
    r->hiredis->fn = &r->functions;
    r->hiredis->privdata = r;
    r->hiredis->maxbuf = 0; /* a grown buffer stays for the next reply */
    return ERR_OK;
}

void redis_reader_deinit(struct redis_reader *r)
{
    if (r->hiredis) redisReaderFree(r->hiredis);
    r->hiredis = NULL;
}

const char *redis_reader_fault(const struct redis_reader *r)
{
    return r->fault ? r->fault : r->hiredis->errstr;
}

static enum err error_of(const struct redis_reader *r)
{
    if (r->fault) return r->fault_error;
    return r->hiredis->err == REDIS_ERR_OOM ? ERR_NOMEM : ERR_PARSE;
}

/* RESP2's types are the first six of every hiredis. */
static bool is_resp2(const redisReply *reply)
{
    return reply->type >= REDIS_REPLY_STRING && reply->type <= REDIS_REPLY_ERROR;
}

/* Checks the bounds of what was read of one reply; `reply` is NULL while it is incomplete. */
static enum err check_reply(struct redis_reader *r, const redisReply *reply, size_t nbytes)
{
    if (nbytes > REDIS_REPLY_BYTES_MAX) return refuse(r, ERR_LIMIT, "too many bytes in one reply");
    if (reply && !is_resp2(reply)) return refuse(r, ERR_PARSE, "a RESP3 type");
    return ERR_OK;
}

enum err redis_reader_feed(struct redis_reader *r, const char *p, size_t n)
{
    BUG_IF(n > REDIS_FEED_BYTES_MAX, "more is fed than hiredis can move quickly");
    if (redisReaderFeed(r->hiredis, p, n) != REDIS_OK) return error_of(r);
    r->bytes += n;
    return ERR_OK;
}

enum err redis_reader_next(struct redis_reader *r, redisReply **out)
{
    void *reply = NULL;
    if (redisReaderGetReply(r->hiredis, &reply) != REDIS_OK) return error_of(r);
    size_t behind = reply ? r->hiredis->len - r->hiredis->pos : 0;
    enum err e = check_reply(r, reply, r->bytes - behind);
    if (!e && !reply) return ERR_AGAIN;
    if (e) {
        freeReplyObject(reply);
        return e;
    }
    r->bytes = behind;
    r->elements = 0;
    *out = reply;
    return ERR_OK;
}

/* Hands out what is complete. Errors: ERR_CLOSED when fn wants no more. */
static enum err drain(struct redis_reader *r, redis_reader_fn fn, void *arg)
{
    redisReply *reply = NULL;
    enum err e;
    while ((e = redis_reader_next(r, &reply)) == ERR_OK) {
        bool goes_on = fn(reply, arg);
        freeReplyObject(reply);
        if (!goes_on) return ERR_CLOSED;
    }
    return e == ERR_AGAIN ? ERR_OK : e;
}

enum err redis_reader_take(struct redis_reader *r, const char *p, size_t n, redis_reader_fn fn, void *arg)
{
    while (n > 0) {
        size_t piece = n < REDIS_FEED_BYTES_MAX ? n : REDIS_FEED_BYTES_MAX;
        enum err e = redis_reader_feed(r, p, piece);
        p += piece;
        n -= piece;
        if (!e) e = drain(r, fn, arg);
        if (e) return e == ERR_CLOSED ? ERR_OK : e;
    }
    return ERR_OK;
}
