/* snapshot.h - a copy of the partners in a file, for a start without Redis.
 *
 *   +-------------------------------+----------------+----- ... ----+-----------------------------+---------+
 *   | head: magic, format, schema,  | packed record  | packed       | foot: end mark, number of   | SHA-256 |
 *   | time, tag, epoch, position    | (packed.h)     | record ...   | records, bias, exact_from   | of all  |
 *   +-------------------------------+----------------+----- ... ----+-----------------------------+---------+
 *
 * The records are written while changes go on: each is at least as new as the position in the head, and no
 * newer than `exact_from` in the foot. Whoever loads it takes up the log at the position in the head; Redis
 * must have come to `exact_from`, and from there on count and digest must agree again.
 *
 * Written to a temporary file beside it (FILE.tmp), 0600, fsync, renamed; whoever writes holds a lock on
 * FILE.lock, because a gateway that takes over from another has the same file. A file that is damaged, cut
 * off, of another tag or of a newer program is refused as a whole, and so is one that others may write. It
 * holds no token, only their SHA-256.
 *
 * Thread: [any]; blocks on the disk.
 */
#ifndef STORE_SNAPSHOT_H
#define STORE_SNAPSHOT_H

#include "store/packed.h"
#include "store/redis_schema.h"

enum { SNAPSHOT_TEXT_BYTES = 72 }; /* 64 characters and a NUL, without a hole behind them */

/* What the head says. */
struct snapshot_head {
    uint64_t saved_at_ms; /* wall clock: when the records were known to be those of Redis */
    uint64_t sequence;    /* position in the log */
    char nonce[SNAPSHOT_TEXT_BYTES], epoch[SNAPSHOT_TEXT_BYTES], tag[SNAPSHOT_TEXT_BYTES];
};

/* What is known only when all records are written. */
struct snapshot_foot {
    uint64_t exact_from; /* position */
    int64_t count_bias;  /* what Redis says less what its records are: see redis_sync.h */
    uint64_t digest_bias;
};

/* Writing. After any failure only snapshot_abort() helps; `why` says what is wrong. */
struct snapshot_writer;

/* Errors: ERR_AGAIN (another process is writing it), ERR_IO, ERR_NOMEM; all with `why`. */
enum err snapshot_create(const char *path, const struct snapshot_head *head, struct snapshot_writer **out,
                         struct errmsg *why);
/* Appends whole packed records. Errors: ERR_IO. */
enum err snapshot_append(struct snapshot_writer *w, struct span records, struct errmsg *why);
/* Puts it in place of the file before it and frees `w`, also on failure. Errors: ERR_IO. */
enum err snapshot_commit(struct snapshot_writer *w, const struct snapshot_foot *foot, struct errmsg *why);
/* Removes what was written so far and frees `w`, which may be NULL. */
void snapshot_abort(struct snapshot_writer *w);

/* Who takes the records. */
struct snapshot_sink {
    void (*begin)(uint64_t nrecords, void *arg); /* or NULL */
    /* Takes one record. Any error ends the reading. */
    enum err (*record)(const struct packed *r, void *arg);
    /* Hears of most records before the one before them is handed out; or NULL. */
    void (*announce)(const struct packed *r, void *arg);
    void *arg;
};

/* Checks the whole file, then hands out the number of records and every one of them.
 * Errors: ERR_NOT_FOUND (no such file), ERR_PARSE (refused), ERR_IO, ERR_NOMEM, those of the sink; all with
 * `why`. */
enum err snapshot_load(const char *path, const char *tag, const struct snapshot_sink *sink,
                       struct snapshot_head *head, struct snapshot_foot *foot, struct errmsg *why);

#endif
