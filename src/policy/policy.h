/* policy.h - who may come in: tokens, partner views, allowlists; changed while it is read.
 *
 *   digest --key_table--> partner index --directory--> struct partner_view {flags, digests, two lists}
 *   source --cidr_tree[env]--> known to anybody?
 *
 * One writer (control) applies one partner at a time; each change is visible to every worker at its next
 * look-up, never a global rebuild. Order on add: tree, view, token; on remove: token, view, tree.
 * Partner indices are stable while the partner exists and reused only after a grace period.
 *
 * A full synchronisation delivers records in any order while the old partners are still there, so a token
 * that moves to another partner, or a partner that is renamed, is met half-way. What both the old and the new
 * data allow is allowed at every moment between:
 *
 *   - a token may be taken from a partner that this synchronisation has not delivered yet: the digest changes
 *     hands in one store, and the old owner's record (or its sweep) follows;
 *   - a record that drops a token may come before the one that has it now: the old view stays behind for
 *     that token under an index without a name, a "ghost", until another partner takes the token or the
 *     synchronisation ends.
 *
 * A token that the new data gives to two partners is refused to the second one (ERR_EXISTS). Outside a
 * synchronisation nothing is taken and a dropped token is dead when policy_apply() returns. So are all ghosts
 * when a synchronisation ends or is given up: revocation goes before convenience.
 *
 * Until the first synchronisation has ended the trees are not kept: they are built then, all at once.
 *
 * Thread: policy_view, policy_tokens, policy_generation, policy_is_ready, policy_source_known [reader inside
 * a turn]; the rest [control, the one writer].
 */
#ifndef POLICY_POLICY_H
#define POLICY_POLICY_H

#include "policy/directory.h"
#include "policy/epoch.h"
#include "policy/partner_view.h"

struct policy;
struct key_table;

/* NULL when memory is out. */
struct policy *policy_create(void);
/* No reader may be left. */
void policy_destroy(struct policy *p);

/* Where worker threads register as readers. */
struct epochs *policy_epochs(struct policy *p);

/* --- writer ------------------------------------------------------------------------------------------ */

/* Adds or replaces one partner. `*changed` is false when it was the same already.
 * Errors: ERR_PARSE (the id is empty or the widget id is no UUID), ERR_EXISTS (a token digest belongs to
 * another partner, or both slots have the same), ERR_NOMEM, ERR_LIMIT (too many partners); nothing changed
 * after any. */
enum err policy_apply(struct policy *p, const struct partner *partner, bool *changed);

/* Soon a partner with this id and current token (NULL: none) will be applied: fetches the two cache lines
 * that policy_apply() would wait for. A hint, for loads, given before the partner before it is applied. */
void policy_prefetch(const struct policy *p, struct span id, const uint8_t *digest);

/* Errors: ERR_NOT_FOUND, ERR_NOMEM (nothing changed). */
enum err policy_remove(struct policy *p, struct span id);

/* So many partners are to be expected in all: makes the tables large enough at once. Only a hint. */
void policy_reserve(struct policy *p, uint32_t partners);

/* A full synchronisation: every partner that is not applied between begin and end is removed by end.
 * `begin` twice restarts. policy_sync_abort() keeps every partner. `*removed` may be NULL.
 * The policy becomes ready at the first policy_sync_end().
 * Errors of end: ERR_NOMEM (some partners may be left; end may be called again). */
void policy_sync_begin(struct policy *p);
enum err policy_sync_end(struct policy *p, uint32_t *removed);
void policy_sync_abort(struct policy *p);

/* Frees what no reader can see any more; call from a timer and after batches of changes. */
void policy_collect(struct policy *p);

/* Called after every visible change with the index whose tokens, flags or lists are not what they were. Who
 * holds something open for that partner asks decide_again(). It must not change the policy. */
typedef void (*policy_change_fn)(uint32_t index, void *arg);
void policy_on_change(struct policy *p, policy_change_fn fn, void *arg);

/* The index of a partner, or PARTNER_INDEX_NONE. */
uint32_t policy_find(const struct policy *p, struct span id);

struct policy_stats {
    uint32_t partners, tokens;
    uint64_t prefixes;  /* merged prefixes of all lists */
    size_t bytes;       /* of everything, without what the allocator adds and without limbo */
    size_t limbo_bytes; /* replaced, waiting for readers */
};
void policy_stats(const struct policy *p, struct policy_stats *out);

/* --- readers ----------------------------------------------------------------------------------------- */

/* Partner data has been loaded at least once. */
bool policy_is_ready(const struct policy *p);

/* Grows with every visible change, after it; a verdict reached at generation g, where g was read before the
 * look-ups, holds while it is still g. */
uint64_t policy_generation(const struct policy *p);

/* The view behind an index, or NULL. Valid until the end of the reader's turn. */
const struct partner_view *policy_view(const struct policy *p, uint32_t index);

/* The table of token digests, for decide(). Lives as long as the policy. */
const struct key_table *policy_tokens(const struct policy *p);

/* Some partner's list of `env` has this address. True for every address until the policy is ready. */
bool policy_source_known(const struct policy *p, enum environment env, const struct addr *a);

#endif
