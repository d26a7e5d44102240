/* redis_log.h - replies of Redis about the data set as a whole, turned into structs: gw:{TAG}:meta and the
 * entries of gw:{TAG}:log.
 *
 * Thread: [any, pure].
 */
#ifndef STORE_REDIS_LOG_H
#define STORE_REDIS_LOG_H

#include "store/redis_schema.h"

#include <hiredis/hiredis.h>

struct redis_meta {
    uint64_t sequence, count, digest;
    char epoch[REDIS_EPOCH_MAX + 1];
};

/* HMGET meta with these fields, in this order. */
#define REDIS_META_FIELDS "schema", "epoch", "seq", "count", "digest"
enum { REDIS_META_NFIELDS = 5 };

/* Errors: ERR_NOT_FOUND (there is no data set), ERR_UNSUPPORTED (another schema), ERR_PARSE; all with `why`.
 */
enum err redis_meta_read(const redisReply *reply, struct redis_meta *out, struct errmsg *why);

/* One change. The spans and `reply` live as long as the reply. */
struct redis_entry {
    uint64_t sequence;
    bool is_delete;
    struct span id;
    char nonce[REDIS_NONCE_MAX + 1];
    uint64_t count, digest;  /* of the data set, with this change */
    const redisReply *reply; /* for redis_record_read() ... */
    size_t from;             /* ... with this index */
};

/* `reply`: one element of what XRANGE or XREAD answer. Errors: ERR_PARSE. */
enum err redis_entry_read(const redisReply *reply, struct redis_entry *out);

/* The field `name` of an array of names and values, or NULL. */
const redisReply *redis_field(const redisReply *pairs, struct span name);

/* A text reply of decimal digits. */
bool redis_number(const redisReply *reply, uint64_t *out);

#endif
