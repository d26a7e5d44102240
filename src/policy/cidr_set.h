/* cidr_set.h - the allowlist of one partner in one environment: an immutable set of prefixes.
 *
 * Asked once per request: "is this address on the list?" Which prefix it was does not matter, so overlaps,
 * duplicates and siblings are merged first, and no trie is needed.
 *
 *   small, at most 8 + 8 merged prefixes (nearly every partner): scanned, without a branch per entry; lies in
 *   memory of the caller, who mostly puts it into something larger (partner_view.h)
 *
 *     0         4                       4 + 8 n4                 4 + 8 n4 + 16 n6
 *     +---------+-----------+-----------+------------+-----------+-----+-----+----+
 *     | head  4 | net, mask | net, mask | hi, lo  16 | hi, lo 16 | len | len | .. |
 *     +---------+-----------+-----------+------------+-----------+-----+-----+----+
 *     two IPv4 prefixes: 20 bytes
 *
 *   large, on the heap: the sorted first and past-the-last addresses of the merged ranges ("boundaries");
 *   an address is in when the number of boundaries <= it is odd
 *
 *     10.0.0.0      10.0.1.0            192.0.2.0     192.0.2.128
 *     ----[=============)------------------[=============)--------
 *     rank 0      1             2              3             4
 *
 *     0        128                       64-byte lines              8 bytes per IPv6 boundary, only when
 *     +--------+------------------------+--------------------------+ a prefix longer than /64 is there
 *     | head   | IPv4 S+ tree, 4 bytes  | IPv6 S+ tree, 8 bytes    | lo lo lo ... |
 *     |        | per boundary, 16/line  | per boundary, 8/line     |              |
 *     +--------+------------------------+--------------------------+--------------+
 *
 * The search tree is drawn in cidr_stree.h. An empty set contains nothing.
 *
 * Thread: build and destroy [control]; cidr_set_has [any, pure] on a published set.
 */
#ifndef POLICY_CIDR_SET_H
#define POLICY_CIDR_SET_H

#include "policy/cidr.h"

#include <stddef.h>

/* The head of a set; what follows it is private. Nothing in it points to itself: a small set may be copied.
 */
struct cidr_set {
    uint8_t form;
    uint8_t n4, n6;  /* small: entries */
    uint8_t is_wide; /* large: IPv6 boundaries have low halves */
};

enum {
    CIDR_SET_SMALL_MAX = 8, /* merged prefixes of one family in a small set */
    CIDR_SET_SMALL_BYTES_MAX = sizeof(struct cidr_set) + CIDR_SET_SMALL_MAX * (8 + 17),
    CIDR_SET_ALIGNMENT = 4, /* of a small set */
};

/* Builds a set from any prefixes (overlaps and duplicates are merged). n may be 0.
 * `room`: CIDR_SET_SMALL_BYTES_MAX bytes, aligned to CIDR_SET_ALIGNMENT; a small set is built there, a large
 * one in memory of its own. Owns: the caller, until cidr_set_destroy(). Errors: ERR_NOMEM. */
enum err cidr_set_build(const struct cidr *cidrs, uint32_t n, void *room, struct cidr_set **out);

/* Frees a large set; does nothing to a small one, which lies in memory of the caller. */
void cidr_set_destroy(struct cidr_set *s);

/* Whether some prefix of the set contains the address. */
bool cidr_set_has(const struct cidr_set *s, const struct addr *a);

/* False when cidr_set_build() has put the set into `room`. */
bool cidr_set_is_large(const struct cidr_set *s);

/* Bytes of memory of the object. */
size_t cidr_set_bytes(const struct cidr_set *s);

/* Number of its disjoint canonical prefixes. */
uint32_t cidr_set_count(const struct cidr_set *s);

/* Of large sets: a hash of the addresses, and whether two have the same. */
uint64_t cidr_set_hash(const struct cidr_set *s);
bool cidr_set_equal(const struct cidr_set *a, const struct cidr_set *b);

/* Walks the disjoint canonical prefixes of the merged set, IPv4 first, in order:
 *
 *   struct cidr_walk w = cidr_walk_of(set);
 *   for (struct cidr c; cidr_walk_next(&w, &c);) ... */
struct cidr_walk {
    const struct cidr_set *set;
    uint32_t at;             /* entry or boundary that comes next; IPv6 is counted on from IPv4 */
    bool is_inside;          /* large: there is more of a range, */
    struct addr first, last; /* from here to there */
};

/* At the first prefix. Borrows the set. */
struct cidr_walk cidr_walk_of(const struct cidr_set *s);

/* The next one; false at the end. */
bool cidr_walk_next(struct cidr_walk *w, struct cidr *out);

#endif
