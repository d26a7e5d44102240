/* redis_reader.h - bytes of a Redis server into replies: hiredis's reader with bounds of our own.
 *
 * hiredis believes what an array's head announces: 0.14 allocates 16 GB for "*2147483647", later versions
 * nest without end and free recursively. So the reader gets its own maker of arrays, which refuses before
 * anything is allocated; the same bounds then hold for every version.
 *
 *   bytes of one reply      REDIS_REPLY_BYTES_MAX
 *   elements of one reply   REDIS_REPLY_ELEMENTS_MAX   arrays in it counted as well
 *   arrays inside arrays    REDIS_REPLY_DEPTH_MAX
 *
 * RESP2 only: maps, pushes and the other types of RESP3 are malformed here, because nobody asked for them.
 *
 * Thread: [any, pure] one reader belongs to one thread.
 */
#ifndef STORE_REDIS_READER_H
#define STORE_REDIS_READER_H

#include "base/err.h"

#include <hiredis/hiredis.h>

#include <stdbool.h>
#include <stddef.h>

enum {
    REDIS_REPLY_BYTES_MAX = 16 * 1024 * 1024,
    REDIS_REPLY_ELEMENTS_MAX = 256 * 1024,
    REDIS_REPLY_DEPTH_MAX = 7, /* what hiredis 0.14 can do */
    /* After each reply hiredis moves what is left in its buffer to the front; 4 MB at a time would be ten
     * times slower than this. */
    REDIS_FEED_BYTES_MAX = 64 * 1024,
};

struct redis_reader {
    redisReader *hiredis;                /* owned */
    redisReplyObjectFunctions functions; /* hiredis's own but for createArray */
    redisReplyObjectFunctions defaults;
    size_t bytes;      /* of the reply that is being read, and of what waits behind it */
    size_t elements;   /* announced so far in the reply that is being read */
    const char *fault; /* what we refused ourselves; NULL = nothing */
    enum err fault_error;
};

/* One complete reply, which dies when this returns. False stops the reading: the rest of the bytes is
 * dropped. */
typedef bool (*redis_reader_fn)(const redisReply *reply, void *arg);

/* Errors: ERR_NOMEM. */
enum err redis_reader_init(struct redis_reader *r);

/* Harmless after a failed or missing init of a zeroed struct. */
void redis_reader_deinit(struct redis_reader *r);

/* Reads `n` bytes and hands out every reply that is complete. After an error, or after fn said stop, the
 * reader is of no more use. Errors: ERR_PARSE (not RESP2), ERR_LIMIT (a bound above), ERR_NOMEM. */
enum err redis_reader_take(struct redis_reader *r, const char *p, size_t n, redis_reader_fn fn, void *arg);

/* The two halves of redis_reader_take(), for a caller that waits for one reply after the other: takes in up
 * to REDIS_FEED_BYTES_MAX bytes. Errors: ERR_NOMEM. */
enum err redis_reader_feed(struct redis_reader *r, const char *p, size_t n);

/* The next complete reply. Owns: the caller, freeReplyObject(). Errors: ERR_AGAIN (feed more), those of
 * redis_reader_take(). */
enum err redis_reader_next(struct redis_reader *r, redisReply **out);

/* What was wrong, for the log; quotes at most one character of what the server sent. Valid until deinit. */
const char *redis_reader_fault(const struct redis_reader *r);

/* True when a reply has come in part. */
static inline bool redis_reader_is_partial(const struct redis_reader *r)
{
    return r->bytes > 0;
}

#endif
