#include "policy/cidr_stree.h"

#include <string.h>

uint32_t stree_plan(struct stree *s, uint32_t nkeys, unsigned per_line)
{
    uint32_t lines[STREE_LEVELS_MAX]; /* from the leaves up */
    uint32_t n = 0;
    lines[n++] = nkeys ? (nkeys + per_line - 1) / per_line : 1;
    while (lines[n - 1] > 1) {
        lines[n] = (lines[n - 1] + per_line) / (per_line + 1);
        n++;
    }
    *s = (struct stree){.nkeys = nkeys, .nlevels = n};
    uint32_t total = 0;
    for (uint32_t k = 0; k < n; k++) {
        s->level[k] = total;
        total += lines[n - 1 - k];
    }
    return total;
}

/* Number of keys below one line of the last level but `height`: the distance between the first keys of
 * two neighbours there. */
static uint64_t keys_below(unsigned per_line, uint32_t height)
{
    uint64_t n = per_line;
    for (uint32_t i = 0; i < height; i++)
        n *= per_line + 1;
    return n;
}

static void fill_levels(const struct stree *s, char *lines, const void *largest, size_t key_bytes)
{
    const unsigned per_line = (unsigned)(LINE_BYTES / key_bytes);
    const uint32_t last = s->nlevels - 1;
    char *leaves = lines + stree_leaf_line(s) * LINE_BYTES;
    for (uint32_t i = s->nkeys; i % per_line != 0 || i == 0; i++)
        memcpy(leaves + i * key_bytes, largest, key_bytes);
    for (uint32_t k = 0; k < last; k++) {
        const uint64_t step = keys_below(per_line, last - 1 - k);
        for (uint32_t i = 0; i < (s->level[k + 1] - s->level[k]) * per_line; i++) {
            /* Key j of a line is the first key of the line's child j + 1. */
            const uint64_t child = (uint64_t)(i / per_line) * (per_line + 1) + i % per_line + 1;
            const uint64_t first = child * step;
            memcpy(lines + (size_t)s->level[k] * LINE_BYTES + i * key_bytes,
                   first < s->nkeys ? leaves + first * key_bytes : largest, key_bytes);
        }
    }
}

void stree_finish32(const struct stree *s, int32_t *lines)
{
    static const int32_t largest = INT32_MAX;
    fill_levels(s, (char *)lines, &largest, sizeof largest);
}

void stree_finish64(const struct stree *s, uint64_t *lines)
{
    static const uint64_t largest = UINT64_MAX;
    fill_levels(s, (char *)lines, &largest, sizeof largest);
}
