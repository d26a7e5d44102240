#include "policy/policy_state.h"

#include <string.h>

/* One call of policy_apply(). */
struct change {
    const struct partner *record;
    struct partner_view *old; /* NULL: a new partner */
    struct partner_view *view;
    uint32_t index;
    uint32_t ghost;   /* where `old` stays until the synchronisation ends, or PARTNER_INDEX_NONE */
    bool keeps_lists; /* `view` goes on with the lists of `old` */
};

static bool same_key(const uint8_t *a, const uint8_t *b)
{
    return memcmp(a, b, TOKEN_KEY_BYTES) == 0;
}

static bool record_has(const struct partner *r, const uint8_t *digest)
{
    return (r->has_token[SLOT_CURRENT] && same_key(r->digest[SLOT_CURRENT], digest)) ||
           (r->has_token[SLOT_PREVIOUS] && same_key(r->digest[SLOT_PREVIOUS], digest));
}

/* Whether a partner may have this token from now on: see the rules for synchronisations in policy.h. */
static bool may_claim(struct policy *p, const uint8_t *digest, uint32_t index)
{
    uint32_t owner;
    if (!token_table_find(p->tokens, digest, &owner) || owner == index) return true;
    return p->is_syncing && directory_entry(&p->directory, owner)->seen != p->sync;
}

static enum err check_tokens(struct policy *p, const struct partner *r, uint32_t index)
{
    for (enum token_slot s = SLOT_CURRENT; s <= SLOT_PREVIOUS; s++)
        if (r->has_token[s] && !may_claim(p, r->digest[s], index)) return ERR_EXISTS;
    if (r->has_token[SLOT_CURRENT] && r->has_token[SLOT_PREVIOUS] &&
        same_key(r->digest[SLOT_CURRENT], r->digest[SLOT_PREVIOUS]))
        return ERR_EXISTS;
    return ERR_OK;
}

/* The token in a slot of the old view, when it is the partner's still and the record has it no more. */
static const uint8_t *dropped_token(const struct policy *p, const struct change *c, enum token_slot slot)
{
    const uint8_t *digest = c->old ? partner_view_digest(c->old, slot) : NULL;
    return digest && !record_has(c->record, digest) && policy_owns_token(p, c->index, digest) ? digest : NULL;
}

static bool needs_ghost(const struct policy *p, const struct change *c)
{
    return p->is_syncing && (dropped_token(p, c, SLOT_CURRENT) || dropped_token(p, c, SLOT_PREVIOUS));
}

/* Gets everything that can fail, but for the trees. Nothing is visible yet. */
static enum err prepare(struct policy *p, struct change *c, uint64_t lists_hash)
{
    enum err e = policy_reserve_leaving(p);
    if (!e) e = token_table_reserve(p->tokens, TOKEN_SLOTS);
    if (!e && !c->old) e = directory_reserve(&p->directory);
    if (!e && !c->old) e = directory_claim(&p->directory, &c->index);
    if (!e && needs_ghost(p, c)) e = directory_claim(&p->directory, &c->ghost);
    if (e) return e;
    /* A ghost keeps its lists: it may outlive the views that would have to share them. */
    c->keeps_lists = c->old && c->old->lists_hash == lists_hash && c->ghost == PARTNER_INDEX_NONE;
    return partner_view_create(c->record, lists_hash, c->keeps_lists ? c->old : NULL, &c->view);
}

/* The opposite of prepare(), but for the view. */
static void give_up(struct policy *p, const struct change *c)
{
    if (!c->old && c->index != PARTNER_INDEX_NONE) directory_release(&p->directory, c->index);
    if (c->ghost != PARTNER_INDEX_NONE) directory_release(&p->directory, c->ghost);
}

/* Counts the prefixes of one list into a tree, up to the first failure. */
struct tree_entry {
    struct cidr_tree *tree;
    uint32_t done;
    enum err err;
};

static void count_in_one(const struct cidr *c, void *arg)
{
    struct tree_entry *w = arg;
    if (w->err) return;
    w->err = cidr_tree_add(w->tree, c);
    if (!w->err) w->done++;
}

/* Counts the prefixes of the new view into the trees. On failure the view has left, with those that were
 * done. */
static enum err count_in(struct policy *p, struct change *c)
{
    if (c->keeps_lists) return ERR_OK;
    uint32_t done[ENV_COUNT] = {0};
    for (size_t env = 0; env < ENV_COUNT; env++) {
        if (!p->has_tree[env] || !c->view->allow[env]) continue;
        struct tree_entry w = {.tree = p->trees[env]};
        cidr_set_each(c->view->allow[env], count_in_one, &w);
        done[env] = w.done;
        if (!w.err) continue;

        struct leaving *l = policy_make_leaving(p, c->view, PARTNER_INDEX_NONE, true);
        for (size_t i = 0; i < ENV_COUNT; i++)
            l->counted[i].upto = done[i];
        policy_leave(p, l);
        return w.err;
    }
    return ERR_OK;
}

/* The old view moves to an index of its own, and the tokens that the record drops with it. */
static void raise_ghost(struct policy *p, const struct change *c)
{
    struct leaving *l = policy_make_leaving(p, c->old, c->ghost, true);
    l->next = p->ghosts;
    p->ghosts = l;
    directory_entry(&p->directory, c->ghost)->is_ghost = 1;
    (void)directory_publish(&p->directory, c->ghost, c->old); /* there was none before */
    for (enum token_slot s = SLOT_CURRENT; s <= SLOT_PREVIOUS; s++) {
        const uint8_t *digest = dropped_token(p, c, s);
        if (digest) BUG_IF(token_table_assign(p->tokens, digest, c->ghost), "a token vanished");
    }
}

static void claim_token(struct policy *p, const uint8_t *digest, uint32_t index)
{
    uint32_t owner;
    if (!token_table_find(p->tokens, digest, &owner)) {
        BUG_IF(token_table_add(p->tokens, digest, index), "no room for a token after reserving it");
    } else if (owner != index) {
        directory_entry(&p->directory, owner)->is_robbed = 1;
        BUG_IF(token_table_assign(p->tokens, digest, index), "a token vanished");
    }
}

/* Makes the change visible. Cannot fail. */
static void commit(struct policy *p, const struct change *c)
{
    if (c->ghost != PARTNER_INDEX_NONE) raise_ghost(p, c);
    (void)directory_publish(&p->directory, c->index, c->view); /* returns c->old */
    if (!c->old) {
        directory_bind(&p->directory, c->index);
        p->npartners++;
    }
    for (enum token_slot s = SLOT_CURRENT; s <= SLOT_PREVIOUS; s++)
        if (c->record->has_token[s]) claim_token(p, c->record->digest[s], c->index);
    for (enum token_slot s = SLOT_CURRENT; s <= SLOT_PREVIOUS; s++) {
        const uint8_t *digest = dropped_token(p, c, s);
        if (digest) policy_kill_token(p, digest);
    }
    union directory_entry *entry = directory_entry(&p->directory, c->index);
    entry->seen = p->sync & DIRECTORY_SEEN_MAX;
    entry->is_robbed = 0;
    policy_bump(p, c->index);

    policy_account_in(p, c->view);
    if (c->old && c->ghost == PARTNER_INDEX_NONE) {
        policy_account_out(p, c->old);
        policy_leave(p, policy_make_leaving(p, c->old, PARTNER_INDEX_NONE, !c->keeps_lists));
    }
}

enum err policy_apply(struct policy *p, const struct partner *partner, bool *changed)
{
    struct span id = span_of(partner->id, strnlen(partner->id, sizeof(partner->id)));
    uint64_t lists_hash = partner_lists_hash(partner);
    struct change c = {.record = partner, .ghost = PARTNER_INDEX_NONE};
    c.index = directory_find(&p->directory, id);

    if (c.index != PARTNER_INDEX_NONE) {
        c.old = directory_view(&p->directory, c.index);
        union directory_entry *entry = directory_entry(&p->directory, c.index);
        if (!entry->is_robbed && partner_view_matches(c.old, partner, lists_hash)) {
            entry->seen = p->sync & DIRECTORY_SEEN_MAX;
            *changed = false;
            return ERR_OK;
        }
    }
    enum err e = check_tokens(p, partner, c.index);
    if (e) return e;
    e = prepare(p, &c, lists_hash);
    if (!e) e = count_in(p, &c);
    if (e) {
        give_up(p, &c);
        return e;
    }
    commit(p, &c);
    *changed = true;
    return ERR_OK;
}
