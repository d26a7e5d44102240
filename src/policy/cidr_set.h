/* cidr_set.h - the allowlist of one partner in one environment: an immutable set of prefixes.
 *
 * Asked once per request: "is this address on the list?" Which prefix it was does not matter, so overlaps,
 * duplicates and siblings are merged first, and no trie is needed.
 *
 *   tiny, at most 8 + 8 merged prefixes (nearly every partner): scanned, without a branch per entry
 *
 *     0         8                       8 + 8 n4                 8 + 8 n4 + 16 n6
 *     +---------+-----------+-----------+------------+-----------+-----+-----+----+
 *     | head  8 | net, mask | net, mask | hi, lo  16 | hi, lo 16 | len | len | .. |    two IPv4 prefixes: 24
 * bytes
 *     +---------+-----------+-----------+------------+-----------+-----+-----+----+
 *
 *   tree: the sorted first and past-the-last addresses of the merged ranges ("boundaries"); an address is
 *   in when the number of boundaries <= it is odd
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

struct cidr_set; /* opaque, variable size */

/* Builds a set from any prefixes (overlaps and duplicates are merged). n may be 0.
 * Owns: the caller, until cidr_set_destroy(). Errors: ERR_NOMEM. */
enum err cidr_set_build(const struct cidr *cidrs, uint32_t n, struct cidr_set **out);
void cidr_set_destroy(struct cidr_set *s);

bool cidr_set_has(const struct cidr_set *s, const struct addr *a);

/* Bytes of memory of the object. */
size_t cidr_set_bytes(const struct cidr_set *s);

/* Calls `fn` for each disjoint canonical prefix of the merged set, IPv4 first, in order; the writer uses it
 * to add the set to, and remove it from, the union tree. */
void cidr_set_each(const struct cidr_set *s, void (*fn)(const struct cidr *c, void *arg), void *arg);

#endif
