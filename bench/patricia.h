/* patricia.h - the textbook's way to look an address up among prefixes: a binary trie whose paths without a
 * fork are one node. What policy/cidr_tree is compared with.
 *
 * Thread: [one]. */
#ifndef BENCH_PATRICIA_H
#define BENCH_PATRICIA_H

#include "policy/cidr.h"

struct patricia;

/* Both NULL and false mean that memory is out. Release with patricia_destroy(). */
struct patricia *patricia_create(void);
void patricia_destroy(struct patricia *t);

/* All prefixes of a trie are of one family. */
bool patricia_add(struct patricia *t, const struct cidr *c);

/* Is the address in one of the prefixes? */
bool patricia_has(const struct patricia *t, const struct addr *a);

size_t patricia_bytes(const struct patricia *t);

#endif
