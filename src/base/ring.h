/* ring.h - a byte ring between one writer and one reader, without locks.
 *
 *        tail (reader)            head (writer)
 *          v                        v
 *   [......|rec|rec|rec|rec|rec.....|..........|pad]
 *           each record: u32 size, u32 kind, bytes, padded to 8; never wraps: a pad record fills the end
 *
 * The worker reserves, writes in place and commits; the log thread peeks and releases. When there is no
 * room the record is dropped and counted: a slow disk never blocks a worker.
 *
 * Thread: ring_reserve/ring_commit: the writer. ring_peek/ring_release/ring_tail: the reader. ring_head: any.
 */
#ifndef BASE_RING_H
#define BASE_RING_H

#include "base/err.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct ring {
    char *bytes;                        /* set once */
    uint64_t size;                      /* power of two, set once */
    _Alignas(64) _Atomic uint64_t head; /* written by the writer */
    uint64_t tail_seen;                 /* writer's copy of tail */
    uint64_t reserved;                  /* writer: start of the record under construction */
    _Atomic uint64_t dropped;           /* writer: records without room */
    _Alignas(64) _Atomic uint64_t tail; /* written by the reader */
};

/* `size`: bytes, rounded up to a power of two between 4 KiB and 1 GiB. Errors: ERR_NOMEM. */
enum err ring_init(struct ring *r, size_t size);
void ring_deinit(struct ring *r);

/* Room for a record of at most `n_max` bytes, or NULL (counted as dropped) when there is none or n_max is
 * more than a quarter of the ring. A reservation that is not committed is void with the next one. */
char *ring_reserve(struct ring *r, size_t n_max);

/* Publishes the reserved record with its true size `n` <= n_max; `kind` is the caller's, not UINT32_MAX.
 * Sequentially consistent: a flag that the reader raises before it looks into the ring is seen here after. */
void ring_commit(struct ring *r, uint32_t kind, size_t n);

/* The oldest record, or NULL when empty. Valid until ring_release(). */
const char *ring_peek(struct ring *r, uint32_t *kind, size_t *n);

/* Drops the record that ring_peek() has returned. */
void ring_release(struct ring *r);

/* Positions in the stream of all records, in bytes since the start: ring_head() behind the newest record,
 * ring_tail() at the oldest. */
static inline uint64_t ring_head(const struct ring *r)
{
    return atomic_load(&((struct ring *)r)->head);
}

static inline uint64_t ring_tail(const struct ring *r)
{
    return atomic_load_explicit(&((struct ring *)r)->tail, memory_order_relaxed);
}

static inline uint64_t ring_dropped(const struct ring *r)
{
    return atomic_load_explicit(&((struct ring *)r)->dropped, memory_order_relaxed);
}

#endif
