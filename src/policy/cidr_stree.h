/* cidr_stree.h - a static search tree: "how many of these sorted keys are <= x?", one cache line a level.
 *
 *   level 0        [k k k ... k]                     one line: 16 x 32-bit or 8 x 64-bit keys (B)
 *                  /  |   |    \                     child j holds keys >= key j-1 of its parent
 *   level 1    [...][...] ... [...]                  B + 1 children a line, found by counting, no pointers
 *                  ...
 *   last       [sorted keys, all of them, one after the other, padded with the largest key]
 *
 * The levels lie one after the other in one array; this struct says where. Built once, never changed. A
 * binary search touches log2(n) lines that depend on each other, this one log17(n) or log9(n).
 *
 * 128-bit keys are two arrays: the high halves are the tree, the low halves lie beside it and are read
 * only when a key shares its high half with x.
 *
 * Private to cidr_set and cidr_tree. Thread: [any, pure].
 */
#ifndef POLICY_CIDR_STREE_H
#define POLICY_CIDR_STREE_H

#include "policy/cidr_line.h"

enum {
    STREE_LEVELS_MAX = 9,
    STREE_KEYS_MAX = 1 << 28, /* what 9 levels of 64-bit keys hold */
};

struct stree {
    uint32_t nkeys;
    uint32_t nlevels;                 /* >= 1 */
    uint32_t level[STREE_LEVELS_MAX]; /* number of the first line of each level; level[0] is 0 */
};

/* One 128-bit key. */
struct key6 {
    uint64_t hi, lo;
};

/* Plans the levels for `nkeys` keys, at most STREE_KEYS_MAX, `per_line` in a line.
 * Returns the number of 64-byte lines the caller has to provide, at least one. */
uint32_t stree_plan(struct stree *s, uint32_t nkeys, unsigned per_line);

/* Fills the inner levels and the padding, after the caller has written the keys from
 * stree_leaf_line() on. */
void stree_finish32(const struct stree *s, int32_t *lines);
void stree_finish64(const struct stree *s, uint64_t *lines);

/* Number of the first line of the last level, where all keys lie in order. */
static inline size_t stree_leaf_line(const struct stree *s)
{
    return s->level[s->nlevels - 1];
}

/* Number of keys <= x. */
static inline uint32_t stree_rank32(const struct stree *s, const int32_t *lines, int32_t x)
{
    if (x == INT32_MAX) return s->nkeys; /* the padding would count */
    uint32_t line = 0;
    for (uint32_t k = 0; k + 1 < s->nlevels; k++)
        line =
            line * (LINE_KEYS_32 + 1) + line_rank32(lines + ((size_t)s->level[k] + line) * LINE_KEYS_32, x);
    return line * LINE_KEYS_32 +
           line_rank32(lines + ((size_t)s->level[s->nlevels - 1] + line) * LINE_KEYS_32, x);
}

/* The line of the last level in which keys <= x end. `x` is not the largest key. */
static inline uint32_t stree_descend64(const struct stree *s, const uint64_t *lines, uint64_t x)
{
    uint32_t line = 0;
    for (uint32_t k = 0; k + 1 < s->nlevels; k++)
        line =
            line * (LINE_KEYS_64 + 1) + line_rank64(lines + ((size_t)s->level[k] + line) * LINE_KEYS_64, x);
    return line;
}

/* Number of keys <= x. */
static inline uint32_t stree_rank64(const struct stree *s, const uint64_t *lines, uint64_t x)
{
    if (x == UINT64_MAX) return s->nkeys; /* the padding would count */
    const uint32_t line = stree_descend64(s, lines, x);
    return line * LINE_KEYS_64 + line_rank64(lines + (stree_leaf_line(s) + line) * LINE_KEYS_64, x);
}

/* Of the sorted keys hi[i]:lo[i], exactly `n` have a high half <= x.hi. Returns how many are <= x.
 * Nearly always the answer is `n` or a step or two before it, so the search gallops backwards from there. */
static inline uint32_t key6_refine(const uint64_t *hi, const uint64_t *lo, uint32_t n, struct key6 x)
{
    uint32_t step = 1;
    uint32_t upper = n; /* keys from here on are > x */
    while (step <= upper && hi[upper - step] == x.hi && lo[upper - step] > x.lo) {
        upper -= step;
        step *= 2;
    }
    uint32_t lower = step <= upper ? upper - step + 1 : 0; /* keys before this are <= x */
    while (lower < upper) {
        const uint32_t middle = lower + (upper - lower) / 2;
        if (hi[middle] < x.hi || lo[middle] <= x.lo)
            lower = middle + 1;
        else
            upper = middle;
    }
    return lower;
}

/* How many of the 128-bit keys in one line of high halves and one of low halves are <= x. They are compared
 * in full: both lines are fetched at the same time, and no branch depends on the halves being equal. */
static inline uint32_t key6_rank_line(const uint64_t *hi, const uint64_t *lo, struct key6 x)
{
    const unsigned __int128 needle = (unsigned __int128)x.hi << 64 | x.lo;
    const size_t middle = LINE_KEYS_64 / 2 - 1;
    const uint32_t first = line_half64(((unsigned __int128)hi[middle] << 64 | lo[middle]) <= needle);
    uint32_t n = first;
    for (size_t i = first; i < first + LINE_KEYS_64 / 2; i++) {
        n += ((unsigned __int128)hi[i] << 64 | lo[i]) <= needle;
        LINE_STAY_SCALAR(n);
    }
    return n;
}

/* Number of 128-bit keys <= x: `lo` are the low halves, whole lines of them. */
static inline uint32_t stree_rank128(const struct stree *s, const uint64_t *lines, const uint64_t *lo,
                                     struct key6 x)
{
    const uint64_t *hi = lines + stree_leaf_line(s) * LINE_KEYS_64;
    if (x.hi == UINT64_MAX) return key6_refine(hi, lo, s->nkeys, x);
    const uint32_t first = stree_descend64(s, lines, x.hi) * LINE_KEYS_64;
    const uint32_t n = key6_rank_line(hi + first, lo + first, x);
    /* The line was found by high halves: with more than a line of equal ones it may be an earlier line. */
    return n == 0 ? key6_refine(hi, lo, first, x) : first + n;
}

#endif
