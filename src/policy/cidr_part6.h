/* cidr_part6.h - one part of the IPv6 address space: what the writer counts, and the chunk readers see.
 *
 *   part (writer)   where the count changes, and by how much:  ... +1 at 2001:db8::, -1 at 2001:db8:1:: ...
 *      | part6_chunk()
 *      v
 *   chunk (readers) where it becomes 0 or ceases to be; immutable
 *
 *     0      8                           128               128 + 8 cap
 *     +------+---------------------------+-----------------+----------------------+
 *     | head | hi of boundary 8, 16, ... | hi hi hi ...    | lo lo lo ... if wide |
 *     +------+---------------------------+-----------------+----------------------+
 *       2 lines                            1 line of them    1 line                  for a look-up
 *
 * Private to cidr_tree6.c. Thread: chunk6_has [any, pure]; everything else [control, the one writer].
 */
#ifndef POLICY_CIDR_PART6_H
#define POLICY_CIDR_PART6_H

#include "policy/cidr_tree_part.h"

enum {
    PART6_MAX = 128,                          /* differences in a part, so boundaries in a chunk */
    CHUNK6_GROUPS = PART6_MAX / LINE_KEYS_64, /* a group is a line of high halves; a power of 2 */
};

struct chunk6 {
    uint16_t n;                        /* boundaries */
    uint16_t cap;                      /* places for them: whole lines, at least one */
    uint8_t in_first;                  /* addresses before the first boundary are in */
    uint8_t is_wide;                   /* low halves follow */
    uint64_t group[CHUNK6_GROUPS - 1]; /* high half of the first boundary of lines 1, 2, ... */
    uint64_t hi[];                     /* cap of them, then as many low halves when wide */
};

struct part6 {
    int32_t cover; /* the count before the first address of the part */
    uint32_t n, cap;
    uint64_t *hi; /* places, ascending: high and low halves; then the differences: one allocation */
    uint64_t *lo;
    int32_t *by;          /* never 0 */
    struct chunk6 *fresh; /* the chunk that is about to be published */
};

/* Is the address, which belongs to this part, in? */
static inline bool chunk6_has(const struct chunk6 *c, struct key6 a)
{
    if (c->n == 0) return c->in_first;
    if (a.hi == UINT64_MAX) /* for which the padding would count */
        return (c->in_first ^ (c->is_wide ? key6_refine(c->hi, c->hi + c->cap, c->n, a) : c->n)) & 1;
    uint32_t group = 0;
    for (uint32_t step = CHUNK6_GROUPS / 2; step > 0; step /= 2) { /* few loads, no branch: cidr_line.h */
        uint32_t is_after = c->group[group + step - 1] <= a.hi;
        LINE_STAY_SCALAR(is_after);
        group += is_after * step;
    }
    const uint64_t *hi = c->hi + group * LINE_KEYS_64;
    if (!c->is_wide) return (c->in_first ^ line_rank64(hi, a.hi)) & 1; /* lines before have an even number */
    uint32_t n = key6_rank_line(hi, hi + c->cap, a);
    /* The group was chosen by high halves: with more than a line of equal ones it may be an earlier line. */
    if (n == 0 && group > 0) n = key6_refine(c->hi, c->hi + c->cap, group * LINE_KEYS_64, a);
    return (c->in_first ^ n) & 1;
}

/* Of the allocation that its `cap` and `is_wide` ask for. */
size_t chunk6_bytes(const struct chunk6 *c);

/* NULL when memory is out. */
struct part6 *part6_create(struct tree_memory *memory, uint32_t cap);
void part6_destroy(struct tree_memory *memory, struct part6 *p);

/* Makes room for `more` differences. False when memory is out. */
bool part6_reserve(struct tree_memory *memory, struct part6 *p, uint32_t more);

/* Adds to the difference at place `a`. There is room. */
void part6_add(struct part6 *p, struct key6 a, int32_t by);

/* The same at the end: `a` is not before the last place. */
void part6_push(struct part6 *p, struct key6 a, int32_t by);

/* Appends differences [from, to) of another part. There is room. */
void part6_append(struct part6 *p, const struct part6 *other, uint32_t from, uint32_t to);

/* The count after the first `n` differences. */
int32_t part6_count(const struct part6 *p, uint32_t n);

/* The chunk for differences [from, to). NULL when memory is out. */
struct chunk6 *part6_chunk(const struct part6 *p, uint32_t from, uint32_t to);

#endif
