/* cidr_pool.h - the large allowlists of one environment, each only once: partners who list the same cloud
 * share it.
 *
 *   slots: open addressing by cidr_set_hash(), linear probing --> {set, number of users}
 *
 * A user is a view that is in force. The first one brings its set in, the last one takes it out again, and
 * both know that they are: they count the prefixes in and out of the tree, so that the tree counts a shared
 * list once.
 *
 * Small sets are not here: two prefixes in a view take less than a pointer and a slot would.
 *
 * Example:  set = cidr_pool_find(pool, fresh)       an equal one that is shared already, or NULL
 *           cidr_pool_reserve(pool)                 may fail, before anything is visible
 *           cidr_pool_use(pool, set)                cannot fail
 *           if (cidr_pool_drop(pool, set)) ...      nobody uses it any more; it is the caller's
 *
 * Thread: [control, the one writer]; readers meet the sets through the views.
 */
#ifndef POLICY_CIDR_POOL_H
#define POLICY_CIDR_POOL_H

#include "policy/cidr_set.h"

struct cidr_pool_slot {
    struct cidr_set *set; /* owned; NULL: free */
    uint32_t users;
};

/* Starts zeroed. */
struct cidr_pool {
    struct cidr_pool_slot *slots; /* owned; a power of two of them, or none */
    uint32_t nslots, nsets;
    size_t set_bytes; /* of all sets */
};

/* Destroys the sets. */
void cidr_pool_deinit(struct cidr_pool *p);

/* The set with the same addresses, or NULL. `s`: large. */
struct cidr_set *cidr_pool_find(const struct cidr_pool *p, const struct cidr_set *s);

/* Makes room, so that the next cidr_pool_use() cannot fail. Errors: ERR_NOMEM (nothing changed). */
enum err cidr_pool_reserve(struct cidr_pool *p);

/* Counts a user in. `s`: of this pool, or a large one whose equal is not here, which the pool then owns; that
 * needs cidr_pool_reserve() before. */
void cidr_pool_use(struct cidr_pool *p, struct cidr_set *s);

/* Counts a user out. True: it was the last, and the set has left the pool; owns: the caller. `s`: of this
 * pool. */
bool cidr_pool_drop(struct cidr_pool *p, const struct cidr_set *s);

/* How many use this set of the pool. */
uint32_t cidr_pool_users(const struct cidr_pool *p, const struct cidr_set *s);

/* Bytes of sets and slots. */
size_t cidr_pool_bytes(const struct cidr_pool *p);

#endif
