/* cidr_sort.h - sorts many prefixes of one family by address: for bulk loads.
 *
 * A least-significant-digit radix sort on the high 64 bits (IPv4 uses the top 32, so half of the passes
 * fall away), then a comparison sort within the rare runs that share them. Measured five times faster than
 * qsort() on a million.
 *
 * Private to cidr_tree. Thread: [any, pure].
 */
#ifndef POLICY_CIDR_SORT_H
#define POLICY_CIDR_SORT_H

#include "base/err.h"
#include "policy/cidr_stree.h"

struct cidr_key {
    uint64_t hi, lo; /* IPv4: the address is the top half of `hi`, `lo` is 0 */
    uint32_t len;    /* 0..32 or 0..128 */
};

/* The last address of the prefix. */
static inline struct key6 cidr_key_last(const struct cidr_key *k)
{
    const uint64_t hi = k->len < 64 ? UINT64_MAX >> k->len : 0;
    const uint64_t lo = k->len <= 64 ? UINT64_MAX : k->len < 128 ? UINT64_MAX >> (k->len - 64) : 0;
    return (struct key6){k->hi | hi, k->lo | lo};
}

/* Orders by address, then length. Errors: ERR_NOMEM (the order is unchanged). */
enum err cidr_sort(struct cidr_key *v, size_t n);

#endif
