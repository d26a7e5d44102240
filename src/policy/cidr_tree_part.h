/* cidr_tree_part.h - the two halves of a cidr_tree, one per address family.
 *
 * Private to cidr_tree*.c; the structures are drawn in cidr_tree.h. Both halves work alike: a change is
 * prepared completely (every allocation), then published, or undone when memory is out.
 *
 * Thread: tree4_has, tree6_has [any reader inside a turn]; everything else [control, the one writer].
 */
#ifndef POLICY_CIDR_TREE_PART_H
#define POLICY_CIDR_TREE_PART_H

#include "policy/cidr_sort.h"
#include "policy/cidr_stree.h"
#include "policy/epoch.h"

#include <stdbool.h>

/* What the halves share with the tree they belong to. */
struct tree_memory {
    struct epochs *epochs;
    size_t reader_bytes; /* published and not replaced yet */
    size_t writer_bytes;
};

struct tree4;
struct tree6;

/* NULL when memory is out. No reader may be left at destroy. */
struct tree4 *tree4_create(struct tree_memory *memory);
void tree4_destroy(struct tree4 *t);
struct tree6 *tree6_create(struct tree_memory *memory);
void tree6_destroy(struct tree6 *t);

bool tree4_has(const struct tree4 *t, uint32_t a);
bool tree6_has(const struct tree6 *t, struct key6 a);

/* Adds `by` (1 or -1) to the count of every address from `first` to `last`, which are the ends of a prefix.
 * Errors: ERR_NOT_FOUND (a count would fall below 0), ERR_NOMEM; nothing changed then. */
enum err tree4_change(struct tree4 *t, uint32_t first, uint32_t last, int32_t by);
enum err tree6_change(struct tree6 *t, struct key6 first, struct key6 last, int32_t by);

/* Nothing is counted. */
bool tree4_is_empty(const struct tree4 *t);
bool tree6_is_empty(const struct tree6 *t);

/* Loads prefixes in the order of cidr_sort.h into an empty half, invisible to readers until commit. After
 * ERR_NOMEM, or cancel, the half is empty. */
enum err tree4_load(struct tree4 *t, const uint64_t *v, size_t n);
void tree4_load_commit(struct tree4 *t);
void tree4_load_cancel(struct tree4 *t);

/* One step for the second half: published when it succeeds. */
enum err tree6_load(struct tree6 *t, const struct cidr_key6 *v, size_t n);

#endif
