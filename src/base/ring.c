#include "base/ring.h"

#include <stdlib.h>
#include <string.h>

enum { SIZE_MIN = 4096 };

static const uint64_t SIZE_MAX_BYTES = UINT64_C(1) << 30; /* so that a record's size fits into 32 bits */
static const uint32_t KIND_PAD = UINT32_MAX;              /* skip to the end of the memory */

struct record {
    uint32_t size; /* bytes that follow, without padding */
    uint32_t kind;
};

static uint64_t padded(uint64_t n)
{
    return (n + 7) & ~UINT64_C(7);
}

static char *place(const struct ring *r, uint64_t position)
{
    return r->bytes + (position & (r->size - 1));
}

static void record_write(struct ring *r, uint64_t position, uint32_t kind, size_t size)
{
    struct record rec = {(uint32_t)size, kind};
    memcpy(place(r, position), &rec, sizeof rec);
}

static struct record record_read(const struct ring *r, uint64_t position)
{
    struct record rec;
    memcpy(&rec, place(r, position), sizeof rec);
    return rec;
}

enum err ring_init(struct ring *r, size_t size)
{
    uint64_t rounded = SIZE_MIN;
    while (rounded < size && rounded < SIZE_MAX_BYTES)
        rounded *= 2;
    char *bytes = malloc(rounded);
    if (!bytes) return ERR_NOMEM;
    r->bytes = bytes;
    r->size = rounded;
    r->tail_seen = 0;
    r->reserved = 0;
    atomic_init(&r->head, 0);
    atomic_init(&r->dropped, 0);
    atomic_init(&r->tail, 0);
    return ERR_OK;
}

void ring_deinit(struct ring *r)
{
    free(r->bytes);
    r->bytes = NULL;
}

char *ring_reserve(struct ring *r, size_t n_max)
{
    if (n_max > r->size / 4) goto drop;
    uint64_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
    uint64_t need = sizeof(struct record) + padded(n_max);
    uint64_t to_end = r->size - (head & (r->size - 1));
    uint64_t pad = to_end < need ? to_end : 0;

    if (head + pad + need - r->tail_seen > r->size) {
        r->tail_seen = atomic_load_explicit(&r->tail, memory_order_acquire);
        if (head + pad + need - r->tail_seen > r->size) goto drop;
    }
    /* The pad becomes visible together with the record behind it: head moves only in ring_commit(). */
    if (pad) record_write(r, head, KIND_PAD, pad - sizeof(struct record));
    r->reserved = head + pad;
    return place(r, r->reserved) + sizeof(struct record);

drop:
    atomic_store_explicit(&r->dropped, ring_dropped(r) + 1, memory_order_relaxed);
    return NULL;
}

void ring_commit(struct ring *r, uint32_t kind, size_t n)
{
    record_write(r, r->reserved, kind, n);
    /* Sequentially consistent, not just release: a writer that next reads "is the reader asleep?" and a
     * reader that says "asleep" and next looks here must not both miss the other. */
    atomic_store(&r->head, r->reserved + sizeof(struct record) + padded(n));
}

const char *ring_peek(struct ring *r, uint32_t *kind, size_t *n)
{
    uint64_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
    if (tail == atomic_load(&r->head)) return NULL;
    struct record rec = record_read(r, tail);
    if (rec.kind == KIND_PAD) {
        ring_release(r);
        tail += sizeof rec + rec.size;
        rec = record_read(r, tail); /* a pad never comes last */
    }
    *kind = rec.kind;
    *n = rec.size;
    return place(r, tail) + sizeof rec;
}

void ring_release(struct ring *r)
{
    uint64_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
    struct record rec = record_read(r, tail);
    atomic_store_explicit(&r->tail, tail + sizeof rec + padded(rec.size), memory_order_release);
}
