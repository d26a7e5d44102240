#include "policy/cidr_part6.h"

#include <stdlib.h>
#include <string.h>

enum { PART6_SPARE = 8 }; /* room for the next few changes */

_Static_assert(sizeof(struct chunk6) == 2 * LINE_BYTES, "each group of high halves is one cache line");

static size_t part6_diffs_bytes(uint32_t cap)
{
    return cap * (2 * sizeof(uint64_t) + sizeof(int32_t));
}

static bool part6_resize(struct tree_memory *memory, struct part6 *p, uint32_t cap)
{
    uint64_t *hi = malloc(part6_diffs_bytes(cap));
    if (!hi) return false;
    const struct part6 old = *p;
    p->hi = hi;
    p->lo = hi + cap;
    p->by = (int32_t *)(p->lo + cap);
    p->cap = cap;
    p->n = 0;
    if (old.n) part6_append(p, &old, 0, old.n);
    free(old.hi);
    memory->writer_bytes += part6_diffs_bytes(cap) - part6_diffs_bytes(old.cap);
    return true;
}

struct part6 *part6_create(struct tree_memory *memory, uint32_t cap)
{
    struct part6 *p = calloc(1, sizeof *p);
    if (!p || !part6_resize(memory, p, cap)) {
        free(p);
        return NULL;
    }
    memory->writer_bytes += sizeof *p;
    return p;
}

void part6_destroy(struct tree_memory *memory, struct part6 *p)
{
    if (!p) return;
    memory->writer_bytes -= sizeof *p + part6_diffs_bytes(p->cap);
    free(p->fresh);
    free(p->hi);
    free(p);
}

bool part6_reserve(struct tree_memory *memory, struct part6 *p, uint32_t more)
{
    return p->cap - p->n >= more || part6_resize(memory, p, p->n + more + PART6_SPARE);
}

/* Number of differences before place `a`. */
static uint32_t part6_find(const struct part6 *p, struct key6 a)
{
    uint32_t lower = 0, upper = p->n;
    while (lower < upper) {
        const uint32_t middle = lower + (upper - lower) / 2;
        if (p->hi[middle] < a.hi || (p->hi[middle] == a.hi && p->lo[middle] < a.lo))
            lower = middle + 1;
        else
            upper = middle;
    }
    return lower;
}

/* Moves the differences from index `from` on to index `to`. */
static void part6_shift(struct part6 *p, uint32_t from, uint32_t to)
{
    memmove(p->hi + to, p->hi + from, (p->n - from) * sizeof *p->hi);
    memmove(p->lo + to, p->lo + from, (p->n - from) * sizeof *p->lo);
    memmove(p->by + to, p->by + from, (p->n - from) * sizeof *p->by);
    p->n = p->n - from + to;
}

static void part6_add_at(struct part6 *p, uint32_t i, struct key6 a, int32_t by)
{
    if (i < p->n && p->hi[i] == a.hi && p->lo[i] == a.lo) {
        p->by[i] += by;
        if (p->by[i] == 0) part6_shift(p, i + 1, i);
        return;
    }
    part6_shift(p, i, i + 1);
    p->hi[i] = a.hi;
    p->lo[i] = a.lo;
    p->by[i] = by;
}

void part6_add(struct part6 *p, struct key6 a, int32_t by)
{
    part6_add_at(p, part6_find(p, a), a, by);
}

void part6_push(struct part6 *p, struct key6 a, int32_t by)
{
    const bool is_last = p->n && p->hi[p->n - 1] == a.hi && p->lo[p->n - 1] == a.lo;
    part6_add_at(p, is_last ? p->n - 1 : p->n, a, by);
}

void part6_append(struct part6 *p, const struct part6 *other, uint32_t from, uint32_t to)
{
    memcpy(p->hi + p->n, other->hi + from, (to - from) * sizeof *p->hi);
    memcpy(p->lo + p->n, other->lo + from, (to - from) * sizeof *p->lo);
    memcpy(p->by + p->n, other->by + from, (to - from) * sizeof *p->by);
    p->n += to - from;
}

int32_t part6_count(const struct part6 *p, uint32_t n)
{
    int32_t count = p->cover;
    for (uint32_t i = 0; i < n; i++)
        count += p->by[i];
    return count;
}

/* --- chunks ------------------------------------------------------------------------------------- */

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

size_t chunk6_bytes(const struct chunk6 *c)
{
    const size_t keys = (size_t)c->cap * (c->is_wide ? 2 : 1);
    return sizeof *c + keys * sizeof(uint64_t);
}

static void fill_chunk(struct chunk6 *c, const struct key6 *bounds)
{
    for (uint32_t i = 0; i < c->cap; i++) {
        c->hi[i] = i < c->n ? bounds[i].hi : UINT64_MAX;
        if (c->is_wide) c->hi[c->cap + i] = i < c->n ? bounds[i].lo : UINT64_MAX;
    }
    for (uint32_t i = 1; i < CHUNK6_GROUPS; i++)
        c->group[i - 1] = i * LINE_KEYS_64 < c->n ? bounds[i * LINE_KEYS_64].hi : UINT64_MAX;
}

struct chunk6 *part6_chunk(const struct part6 *p, uint32_t from, uint32_t to)
{
    int32_t count = part6_count(p, from);
    struct key6 bounds[PART6_MAX];
    struct chunk6 head = {.in_first = count > 0};
    uint64_t low_bits = 0;
    for (uint32_t i = from; i < to; i++) {
        const bool was_in = count > 0;
        count += p->by[i];
        if ((count > 0) == was_in) continue;
        bounds[head.n++] = (struct key6){p->hi[i], p->lo[i]};
        low_bits |= p->lo[i];
    }
    head.cap = (uint16_t)round_up(head.n ? head.n : 1, LINE_KEYS_64);
    head.is_wide = low_bits != 0;
    struct chunk6 *c = aligned_alloc(LINE_BYTES, chunk6_bytes(&head));
    if (!c) return NULL;
    *c = head;
    fill_chunk(c, bounds);
    return c;
}
