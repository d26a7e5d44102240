#include "policy/cidr_sort.h"

#include <stdlib.h>
#include <string.h>

/* 64 bits in digits of 11, from the top, so that the 32 bits of IPv4 are three digits and not four. */
enum { DIGIT_BITS = 11, DIGITS = 6, DIGIT_VALUES = 1 << DIGIT_BITS };

struct histogram {
    size_t count[DIGITS][DIGIT_VALUES];
};

/* Digit 0 is the lowest; it has only the 9 bits that are left. */
static unsigned digit(uint64_t key, unsigned i)
{
    const unsigned low_bits = 64 - (DIGITS - 1) * DIGIT_BITS;
    if (i == 0) return (unsigned)(key & ((1u << low_bits) - 1));
    return (unsigned)(key >> (low_bits + (i - 1) * DIGIT_BITS)) & (DIGIT_VALUES - 1);
}

static int compare(const void *a, const void *b)
{
    const struct cidr_key *x = a, *y = b;
    if (x->hi != y->hi) return x->hi < y->hi ? -1 : 1;
    if (x->lo != y->lo) return x->lo < y->lo ? -1 : 1;
    return (int)x->len - (int)y->len;
}

static void scatter(const struct cidr_key *from, struct cidr_key *to, size_t n, unsigned i, size_t *count)
{
    size_t next = 0;
    for (unsigned d = 0; d < DIGIT_VALUES; d++) {
        const size_t here = count[d];
        count[d] = next;
        next += here;
    }
    for (size_t k = 0; k < n; k++)
        to[count[digit(from[k].hi, i)]++] = from[k];
}

static void sort_runs(struct cidr_key *v, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t end = i + 1;
        while (end < n && v[end].hi == v[i].hi)
            end++;
        if (end - i > 1) qsort(v + i, end - i, sizeof *v, compare);
        i = end;
    }
}

enum err cidr_sort(struct cidr_key *v, size_t n)
{
    if (n < 2) return ERR_OK;
    struct cidr_key *other = malloc(n * sizeof *other);
    struct histogram *h = calloc(1, sizeof *h);
    if (!other || !h) {
        free(h);
        free(other);
        return ERR_NOMEM;
    }
    for (size_t k = 0; k < n; k++)
        for (unsigned i = 0; i < DIGITS; i++)
            h->count[i][digit(v[k].hi, i)]++;
    struct cidr_key *from = v, *to = other;
    for (unsigned i = 0; i < DIGITS; i++) {
        if (h->count[i][digit(v[0].hi, i)] == n) continue; /* the same everywhere */
        scatter(from, to, n, i, h->count[i]);
        struct cidr_key *swap = from;
        from = to;
        to = swap;
    }
    if (from != v) memcpy(v, from, n * sizeof *v);
    sort_runs(v, n);
    free(h);
    free(other);
    return ERR_OK;
}
