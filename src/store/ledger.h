/* ledger.h - which version of each partner is in force: what the policy itself does not keep.
 *
 *   policy index -> version, refused?, seen by the scrub?        8 bytes per partner
 *   ids without a partner -> version                             records that were refused from the start
 *   count, digest                                                what Redis must have as well
 *
 * All changes of the policy go through here, so that count and digest always belong to what is in force.
 *
 * A record that the validator refuses, or whose token belongs to another partner, is entered with its version
 * and marked; the last good version of that partner, if there is one, stays in force: a slip in one field
 * must not cut off a partner, and nothing is let in that was not let in before.
 *
 * Thread: [control].
 */
#ifndef STORE_LEDGER_H
#define STORE_LEDGER_H

#include "policy/policy.h"
#include "store/stage.h"

/* Starts with ledger_init(). */
struct ledger {
    struct policy *policy;       /* borrowed */
    struct redis_hasher *hasher; /* borrowed */
    uint64_t count, digest;      /* of all records, refused ones included */
    uint64_t refused;            /* records whose newest version was refused */
    /* private */
    uint64_t *entries; /* owned; by policy index: version, and two marks in the low bits; 0 = none */
    uint32_t nentries;
    struct stage strays;  /* refused records without a partner */
    struct bytes scratch; /* owned: a record being packed */
    struct bytes lists;   /* owned: of the partner being unpacked */
};

/* The policy must be empty, or synchronised to this ledger before anything else happens. */
void ledger_init(struct ledger *l, struct policy *policy, struct redis_hasher *hasher);
void ledger_deinit(struct ledger *l);

/* The newest version that is known of this id; 0 = none. */
uint64_t ledger_version(const struct ledger *l, struct span id);

/* Enters version `version` of a partner and brings it into force. `partner`: NULL when its record was refused
 * already. `*changed`: what is in force has changed. `*refused`: it is entered, but not in force; `why` says
 * why when `partner` was not NULL. Errors: ERR_NOMEM, ERR_LIMIT: the ledger is out of step, and only a full
 * synchronisation helps. */
enum err ledger_set(struct ledger *l, struct span id, uint64_t version, const struct partner *partner,
                    bool *changed, bool *refused, struct errmsg *why);

/* Removes a partner. Errors: as ledger_set(); an id that is not there is no error. */
enum err ledger_remove(struct ledger *l, struct span id);

/* A full synchronisation, like policy_sync_begin() and policy_sync_end(): what is not put between the two is
 * removed. `records`: how many are to be expected, 0 = unknown. ledger_remove() takes back what was put.
 * `count`, `digest`: of all that was put and not taken back, known to the caller. */
void ledger_sync_begin(struct ledger *l, uint64_t records);
enum err ledger_sync_put(struct ledger *l, const struct packed *r, bool *changed);
/* A hint: this record will be put after the next one. */
void ledger_sync_prefetch(const struct ledger *l, const struct packed *r);
enum err ledger_sync_end(struct ledger *l, uint64_t count, uint64_t digest, uint32_t *removed);
void ledger_sync_abort(struct ledger *l);

/* Appends packed records to `to` from index `*at` on (0 = the first) until it has `enough` bytes or the last
 * one is there; false when there are no more. Not during a synchronisation. Errors: ERR_AGAIN (there are
 * more), ERR_NOMEM. */
enum err ledger_pack(const struct ledger *l, uint32_t *at, struct bytes *to, size_t enough);

/* The scrub's marks: all off; one on; then `fn` for every partner without one whose version is at most
 * `upto`. */
void ledger_unmark(struct ledger *l);
void ledger_mark(struct ledger *l, struct span id);
void ledger_each_unmarked(const struct ledger *l, uint64_t upto, void (*fn)(struct span id, void *arg),
                          void *arg);

#endif
