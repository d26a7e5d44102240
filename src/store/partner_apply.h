/* partner_apply.h - brings a complete set of partners into the policy, a slice at a time.
 *
 * Applying 100,000 partners takes a while; in slices the control loop goes on serving its other duties in
 * between, and memory that readers have left is freed as it goes.
 *
 * Thread: [control].
 */
#ifndef STORE_PARTNER_APPLY_H
#define STORE_PARTNER_APPLY_H

#include "policy/policy.h"
#include "store/partner_file.h"

struct partner_apply {
    struct policy *policy;     /* borrowed */
    struct partner_file *file; /* borrowed; its records are given up as they are applied */
    struct bytes lists;        /* owned: of the partner that is applied */
    uint32_t next;             /* first entry that is not applied yet */
    uint32_t changed, removed; /* results */
};

/* Starts a full synchronisation of `policy` to the partners of `file`, which must stay until the end. */
void partner_apply_begin(struct partner_apply *a, struct policy *policy, struct partner_file *file);

/* Applies partners for about `budget_us` microseconds (0 = to the end).
 * Errors: ERR_AGAIN (not done yet). Any other is policy_apply()'s or policy_sync_end()'s: given up, some
 * partners are new and not every old one is removed. */
enum err partner_apply_step(struct partner_apply *a, uint64_t budget_us);

/* Gives up between two steps: what was applied stays, nothing is removed. */
void partner_apply_abort(struct partner_apply *a);

#endif
