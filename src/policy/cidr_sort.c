#include "policy/cidr_sort.h"

#include <stdlib.h>
#include <string.h>

/* 64 bits in digits of 11, from the top, so that two of them are the 22 bits that IPv4 is sorted by. */
enum { DIGIT_BITS = 11, DIGITS = 6, DIGITS_V4 = 2, DIGIT_VALUES = 1 << DIGIT_BITS };

struct histogram {
    size_t count[DIGITS][DIGIT_VALUES];
};

/* Digit 0 is the lowest; it has only the 9 bits that are left. */
static inline unsigned digit_of(uint64_t key, unsigned i)
{
    const unsigned low_bits = 64 - (DIGITS - 1) * DIGIT_BITS;
    if (i == 0) return (unsigned)(key & ((1u << low_bits) - 1));
    return (unsigned)(key >> (low_bits + (i - 1) * DIGIT_BITS)) & (DIGIT_VALUES - 1);
}

static inline uint64_t key_at(const unsigned char *v, size_t i, size_t size)
{
    uint64_t key;
    memcpy(&key, v + i * size, sizeof key);
    return key;
}

/* One pass: moves every element to its place by one digit, in order within each value. */
static inline void scatter(const unsigned char *from, unsigned char *to, size_t n, size_t size,
                           unsigned digit, size_t *count)
{
    size_t next = 0;
    for (unsigned value = 0; value < DIGIT_VALUES; value++) {
        const size_t here = count[value];
        count[value] = next;
        next += here;
    }
    for (size_t i = 0; i < n; i++)
        memcpy(to + count[digit_of(key_at(from, i, size), digit)]++ * size, from + i * size, size);
}

/* Sorts elements that begin with a 64-bit key by its digits from `lowest` on. Inlined, so that `size` and
 * `lowest` are constants in every loop. */
static inline __attribute__((always_inline)) enum err radix_sort(unsigned char *v, size_t n, size_t size,
                                                                 unsigned lowest)
{
    if (n < 2) return ERR_OK;
    unsigned char *other = malloc(n * size);
    struct histogram *h = calloc(1, sizeof *h);
    if (!other || !h) {
        free(h);
        free(other);
        return ERR_NOMEM;
    }
    for (size_t i = 0; i < n; i++)
        for (unsigned digit = lowest; digit < DIGITS; digit++)
            h->count[digit][digit_of(key_at(v, i, size), digit)]++;
    unsigned char *from = v, *to = other;
    for (unsigned digit = lowest; digit < DIGITS; digit++) {
        if (h->count[digit][digit_of(key_at(v, 0, size), digit)] == n) continue; /* the same everywhere */
        scatter(from, to, n, size, digit, h->count[digit]);
        unsigned char *swap = from;
        from = to;
        to = swap;
    }
    if (from != v) memcpy(v, from, n * size);
    free(h);
    free(other);
    return ERR_OK;
}

enum err cidr_sort4(uint64_t *v, size_t n)
{
    return radix_sort((unsigned char *)v, n, sizeof *v, DIGITS - DIGITS_V4);
}

static int compare6(const void *a, const void *b)
{
    const struct cidr_key6 *x = a, *y = b;
    if (x->hi != y->hi) return x->hi < y->hi ? -1 : 1;
    if (x->lo != y->lo) return x->lo < y->lo ? -1 : 1;
    return (int)x->len - (int)y->len;
}

enum err cidr_sort6(struct cidr_key6 *v, size_t n)
{
    if (radix_sort((unsigned char *)v, n, sizeof *v, 0)) return ERR_NOMEM;
    for (size_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && v[end].hi == v[i].hi;)
            end++;
        if (end - i > 1) qsort(v + i, end - i, sizeof *v, compare6);
    }
    return ERR_OK;
}
