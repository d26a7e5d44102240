/* cidr_tree.h - the radix tree over every partner's prefixes: "does anybody allow this address?"
 *
 * Asked once per connection. Single writer, wait-free readers: copy-on-write chunks published with
 * release stores; replaced memory goes to the epoch limbo (epoch.h). A change rebuilds the one or two chunks
 * it falls into, never the whole.
 *
 * The tree counts: add() adds 1 to every address of a prefix, remove() takes it away, an address is in
 * while its count is above 0. The writer keeps the counts as their differences ("+1 at the first address, -1
 * after the last"), sorted, chunk by chunk, so overlapping prefixes need no care and removal is exact.
 * What readers get are the places where the count becomes 0 or ceases to be: the boundaries. Nearly all IPv6
 * prefixes have one of four lengths, and those are counted one by one in hash tables (cidr_hash6.h).
 *
 *   IPv4                          512 KiB, indexed by the first 16 bits
 *   root  [ none | all  | chunk | chunk | ... ]  8 bytes each: pointer, kind, and the answer for x.x.255.255
 *                          |       |
 *        one line          |       |   two levels, 33..1056 boundaries         bitmap, above that
 *        64 bytes  [b b b .. b]   [every 32nd boundary]  64 bytes              8 KiB, a bit for
 *        <= 32 boundaries of        |     |        |                           each address
 *        16 bits; in when the     [32 b][32 b] .. [..]  64 bytes each
 *        number of b <= x is odd
 *
 *   IPv6, /48 /56 /64 /128        four hash tables, 30 bytes a prefix all in all (cidr_hash6.h)
 *
 *   IPv6, other lengths           boundaries are 128 bits: high half, low half
 *   map     S+ tree (cidr_stree.h) over the first address of each chunk, 16 + 8 bytes per chunk;
 *    |      replaced when a chunk is split or two are joined
 *    v
 *   chunk   +---------------------------------------+-----------------+---------------------------+
 *           | n, in at start?, high half of every   | high halves     | low halves, only when one |
 *           | 8th boundary                      128 | 8 x n, n <= 128 | of them is not 0    8 x n |
 *           +---------------------------------------+-----------------+---------------------------+
 *
 *   writer  differences: IPv4 6 bytes each, IPv6 20; two per prefix, fewer where prefixes touch; the hash
 *           tables need none
 *
 * Thread: cidr_tree_has [any reader inside a turn]; everything else [control, the one writer].
 */
#ifndef POLICY_CIDR_TREE_H
#define POLICY_CIDR_TREE_H

#include "policy/cidr.h"
#include "policy/epoch.h"

#include <stddef.h>

struct cidr_tree;

/* `epochs`: where replaced memory waits; must outlive the tree. Errors: NULL when memory is out. */
struct cidr_tree *cidr_tree_create(struct epochs *epochs);
/* No reader may be left. */
void cidr_tree_destroy(struct cidr_tree *t);

/* Counting: a prefix added twice must be removed twice. Readers see a prefix that spans several chunks
 * arrive chunk by chunk; each address changes once. Errors: ERR_NOMEM (nothing changed). */
enum err cidr_tree_add(struct cidr_tree *t, const struct cidr *c);
/* Takes away what was added. Errors: ERR_NOT_FOUND (it was never added; nothing changed), ERR_NOMEM (nothing
 * changed). IPv6 prefixes of the four lengths are told apart. Of the others the tree knows counts, not
 * prefixes: it refuses only when an address would be counted below 0, so two added halves can be removed as
 * their parent. */
enum err cidr_tree_remove(struct cidr_tree *t, const struct cidr *c);

/* The next prefix of a load; false: there are no more. */
typedef bool (*cidr_next_fn)(void *arg, struct cidr *out);

/* Adds many at once to an empty tree, much faster than one by one. Errors: ERR_NOMEM (the tree is still
 * empty), ERR_EXISTS (not empty). */
enum err cidr_tree_build(struct cidr_tree *t, cidr_next_fn next, void *arg);

/* Whether some prefix that was added contains the address. */
bool cidr_tree_has(const struct cidr_tree *t, const struct addr *a);

/* Bytes that readers touch, and bytes that only the writer needs; without what the allocator adds. */
void cidr_tree_bytes(const struct cidr_tree *t, size_t *reader, size_t *writer);

#endif
