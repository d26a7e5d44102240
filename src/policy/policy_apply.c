#include "policy/policy_state.h"

#include <stdlib.h>
#include <string.h>

/* One call of policy_apply(). */
struct change {
    const struct partner *record;
    struct partner_view *old; /* NULL: a new partner */
    struct partner_view *view;
    uint32_t index;
    uint32_t ghost; /* where `old` stays until the synchronisation ends, or PARTNER_INDEX_NONE */
    struct counted in[ENV_COUNT];  /* to be counted in the trees before `view` is published */
    struct counted out[ENV_COUNT]; /* and those of `old` that are no longer counted after it */
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
    if (!key_table_find(p->tokens, token_key(digest), &owner) || owner == index) return true;
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

/* --- differences ------------------------------------------------------------------------------------- */

static bool marks_init(struct marks *m, uint32_t n)
{
    *m = (struct marks){0};
    if (n > 64) m->many = calloc((n + 63) / 64, sizeof *m->many);
    return n <= 64 || m->many;
}

static void marks_set(struct marks *m, uint32_t at)
{
    if (m->many)
        m->many[at / 64] |= UINT64_C(1) << at % 64;
    else
        m->few |= UINT64_C(1) << at;
}

/* Marks the prefixes that both lists have, so that the trees are not asked to count them in and out. Without
 * memory for the marks of a large list everything is counted, which is right as well. */
static void mark_common(struct counted *in, struct counted *out)
{
    struct marks in_both, out_both = {0};
    if (!marks_init(&in_both, cidr_set_count(in->set)) || !marks_init(&out_both, cidr_set_count(out->set))) {
        free(in_both.many);
        free(out_both.many);
        return;
    }
    struct cidr_walk a = cidr_walk_of(in->set), b = cidr_walk_of(out->set);
    struct cidr x, y;
    bool has_x = cidr_walk_next(&a, &x), has_y = cidr_walk_next(&b, &y);
    for (uint32_t i = 0, k = 0; has_x && has_y;) {
        int order = cidr_compare(&x, &y);
        if (order == 0) {
            marks_set(&in_both, i);
            marks_set(&out_both, k);
        }
        if (order <= 0) {
            has_x = cidr_walk_next(&a, &x);
            i++;
        }
        if (order >= 0) {
            has_y = cidr_walk_next(&b, &y);
            k++;
        }
    }
    in->except = in_both;
    out->except = out_both;
}

/* Works out what the change means for a tree. A shared list is counted once, for all its users. */
static void find_difference(struct policy *p, struct change *c, enum environment env)
{
    if (!p->has_tree[env]) return;
    const struct cidr_set *old =
        c->old && c->ghost == PARTNER_INDEX_NONE ? partner_view_list(c->old, env) : NULL;
    const struct cidr_set *set = partner_view_list(c->view, env);
    bool comes = set && (!cidr_set_is_large(set) || p->draft.fresh[env]);
    bool goes = old && (!cidr_set_is_large(old) || (old != set && cidr_pool_users(&p->pools[env], old) == 1));
    if (comes) c->in[env] = (struct counted){.set = set, .upto = UINT32_MAX};
    if (goes) c->out[env] = (struct counted){.set = old, .upto = UINT32_MAX};
    if (comes && goes) mark_common(&c->in[env], &c->out[env]);
}

/* --- steps ------------------------------------------------------------------------------------------- */

/* Gets everything that can fail, but for the trees. Nothing is visible yet. */
static enum err prepare(struct policy *p, struct change *c)
{
    enum err e = policy_reserve_leaving(p);
    if (!e) e = key_table_reserve(p->tokens, TOKEN_SLOTS);
    if (!e && !c->old) e = directory_reserve(&p->directory, 1);
    for (size_t env = 0; !e && env < ENV_COUNT; env++)
        if (p->draft.fresh[env]) e = cidr_pool_reserve(&p->pools[env]);
    if (!e && !c->old) e = directory_claim(&p->directory, &c->index);
    if (!e && needs_ghost(p, c)) e = directory_claim(&p->directory, &c->ghost);
    if (e) return e;
    c->view = partner_view_create(&p->draft);
    if (!c->view) return ERR_NOMEM;
    for (enum environment env = ENV_PRODUCTION; env < ENV_COUNT; env++)
        find_difference(p, c, env);
    return ERR_OK;
}

/* The opposite of prepare(), but for the view. */
static void give_up(struct policy *p, const struct change *c)
{
    if (!c->old && c->index != PARTNER_INDEX_NONE) directory_release(&p->directory, c->index);
    if (c->ghost != PARTNER_INDEX_NONE) directory_release(&p->directory, c->ghost);
    for (size_t env = 0; env < ENV_COUNT; env++)
        free(c->out[env].except.many);
}

/* Counts one list into its tree. `c->upto` tells how far it went. Errors: ERR_NOMEM. */
static enum err count_list_in(struct cidr_tree *tree, struct counted *c)
{
    if (!c->set) return ERR_OK;
    struct cidr_walk w = cidr_walk_of(c->set);
    struct cidr cidr;
    uint32_t at = 0;
    for (; cidr_walk_next(&w, &cidr); at++) {
        enum err e = marks_have(&c->except, at) ? ERR_OK : cidr_tree_add(tree, &cidr);
        if (!e) continue;
        c->upto = at;
        return e;
    }
    return ERR_OK;
}

/* Counts the prefixes of the new view into the trees. On failure the view has left, with those that were
 * done. */
static enum err count_in(struct policy *p, struct change *c)
{
    for (size_t env = 0; env < ENV_COUNT; env++) {
        enum err e = count_list_in(p->trees[env], &c->in[env]);
        if (!e) continue;

        for (size_t later = env + 1; later < ENV_COUNT; later++)
            c->in[later].upto = 0;
        struct leaving *l = policy_make_leaving(p, c->view, PARTNER_INDEX_NONE);
        memcpy(l->counted, c->in, sizeof(l->counted));
        memcpy(l->sets, p->draft.fresh, sizeof(l->sets));
        memset(p->draft.fresh, 0, sizeof(p->draft.fresh));
        policy_leave(p, l);
        return e;
    }
    for (size_t env = 0; env < ENV_COUNT; env++)
        free(c->in[env].except.many);
    return ERR_OK;
}

/* The old view moves to an index of its own, and the tokens that the record drops with it. */
static void raise_ghost(struct policy *p, const struct change *c)
{
    struct leaving *l = policy_make_leaving(p, c->old, c->ghost);
    l->next = p->ghosts;
    p->ghosts = l;
    directory_entry(&p->directory, c->ghost)->is_ghost = 1;
    (void)directory_publish(&p->directory, c->ghost, c->old); /* there was none before */
    for (enum token_slot s = SLOT_CURRENT; s <= SLOT_PREVIOUS; s++) {
        const uint8_t *digest = dropped_token(p, c, s);
        if (digest) BUG_IF(key_table_assign(p->tokens, token_key(digest), c->ghost), "a token vanished");
    }
}

static void claim_token(struct policy *p, const uint8_t *digest, uint32_t index)
{
    uint32_t owner;
    if (key_table_add(p->tokens, token_key(digest), index) == ERR_OK) return;
    BUG_IF(!key_table_find(p->tokens, token_key(digest), &owner), "no room for a token after reserving it");
    if (owner == index) return;
    directory_entry(&p->directory, owner)->is_robbed = 1;
    BUG_IF(key_table_assign(p->tokens, token_key(digest), index), "a token vanished");
}

static bool is_shared(const struct cidr_set *s)
{
    return s && cidr_set_is_large(s);
}

/* Counts the new view among the users of its large lists, and the old one out. */
static void pass_shared_lists(struct policy *p, const struct change *c, struct leaving *old)
{
    for (enum environment env = ENV_PRODUCTION; env < ENV_COUNT; env++) {
        struct cidr_set *before = old ? (struct cidr_set *)partner_view_list(old->view, env) : NULL;
        struct cidr_set *after = (struct cidr_set *)partner_view_list(c->view, env);
        if (is_shared(after)) cidr_pool_use(&p->pools[env], after);
        if (is_shared(before) && cidr_pool_drop(&p->pools[env], before)) old->sets[env] = before;
        p->draft.fresh[env] = NULL; /* it is the pool's now */
    }
}

static void publish(struct policy *p, const struct change *c)
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
}

/* Makes the change visible. Cannot fail. */
static void commit(struct policy *p, const struct change *c)
{
    publish(p, c);
    policy_account_in(p, c->view);
    if (!c->old || c->ghost != PARTNER_INDEX_NONE) {
        pass_shared_lists(p, c, NULL);
        return;
    }
    policy_account_out(p, c->old);
    struct leaving *l = policy_make_leaving(p, c->old, PARTNER_INDEX_NONE);
    memcpy(l->counted, c->out, sizeof(l->counted));
    pass_shared_lists(p, c, l);
    policy_leave(p, l);
}

static enum err apply_draft(struct policy *p, struct change *c)
{
    enum err e = check_tokens(p, c->record, c->index);
    if (e) return e;
    e = prepare(p, c);
    if (!e) e = count_in(p, c);
    if (e)
        give_up(p, c);
    else
        commit(p, c);
    return e;
}

void policy_prefetch(const struct policy *p, struct span id, const uint8_t *digest)
{
    directory_prefetch(&p->directory, id);
    if (digest) key_table_prefetch(p->tokens, token_key(digest));
}

enum err policy_apply(struct policy *p, const struct partner *partner, bool *changed)
{
    struct span id = span_of(partner->id, strnlen(partner->id, sizeof(partner->id)));
    struct change c = {.record = partner, .ghost = PARTNER_INDEX_NONE};

    policy_prefetch(p, id, partner->has_token[SLOT_CURRENT] ? partner->digest[SLOT_CURRENT] : NULL);
    enum err e = partner_draft_begin(&p->draft, partner);
    if (e) return e;
    c.index = directory_find(&p->directory, id);
    if (c.index != PARTNER_INDEX_NONE) c.old = directory_view(&p->directory, c.index);
    e = partner_draft_finish(&p->draft, partner, c.old, p->pools);
    if (e) return e;

    bool is_robbed = c.old && directory_entry(&p->directory, c.index)->is_robbed;
    bool is_same = c.old && !is_robbed && partner_draft_matches(&p->draft, c.old);
    if (is_same)
        directory_entry(&p->directory, c.index)->seen = p->sync & DIRECTORY_SEEN_MAX;
    else
        e = apply_draft(p, &c);
    partner_draft_discard(&p->draft);
    if (!e) *changed = !is_same;
    return e;
}
