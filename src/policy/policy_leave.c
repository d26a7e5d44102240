#include "policy/policy_state.h"

#include <stdlib.h>

/* Takes the prefixes of one list out of a tree. Errors: ERR_NOMEM: call again later. */
static enum err count_out(struct cidr_tree *tree, struct counted *c)
{
    if (!c->set || c->from >= c->upto) return ERR_OK;
    struct cidr_walk w = cidr_walk_of(c->set);
    struct cidr cidr;
    for (uint32_t at = 0; at < c->upto && cidr_walk_next(&w, &cidr); at++) {
        if (at < c->from || marks_have(&c->except, at)) continue;
        enum err e = cidr_tree_remove(tree, &cidr);
        BUG_IF(e == ERR_NOT_FOUND, "a prefix of a view was not in the tree");
        if (e) return e;
        c->from = at + 1;
    }
    c->from = c->upto;
    return ERR_OK;
}

enum err policy_reserve_leaving(struct policy *p)
{
    if (!p->spare) p->spare = malloc(sizeof(*p->spare));
    return p->spare ? ERR_OK : ERR_NOMEM;
}

struct leaving *policy_make_leaving(struct policy *p, struct partner_view *view, uint32_t index)
{
    struct leaving *l = p->spare;
    p->spare = NULL;
    *l = (struct leaving){.policy = p, .view = view, .index = index};
    return l;
}

/* The list of a view in force, which leaves without a next one, is to leave the tree as well: unless it is
 * shared and others use it on. */
static void leave_list(struct policy *p, struct leaving *l, enum environment env)
{
    const struct cidr_set *set = partner_view_list(l->view, env);
    if (!set) return;
    if (cidr_set_is_large(set)) {
        if (!cidr_pool_drop(&p->pools[env], set)) return;
        l->sets[env] = (struct cidr_set *)set; /* const for everybody but its last user, who ends it */
    }
    if (p->has_tree[env]) l->counted[env] = (struct counted){.set = set, .upto = UINT32_MAX};
}

void policy_free_leaving(void *arg)
{
    struct leaving *l = arg;
    if (l->index != PARTNER_INDEX_NONE) directory_release(&l->policy->directory, l->index);
    for (size_t env = 0; env < ENV_COUNT; env++) {
        free(l->counted[env].except.many);
        cidr_set_destroy(l->sets[env]);
    }
    partner_view_destroy(l->view);
    free(l);
}

void policy_leave(struct policy *p, struct leaving *l)
{
    size_t bytes = partner_view_bytes(l->view) + sizeof(*l);
    for (size_t env = 0; env < ENV_COUNT; env++) {
        if (l->sets[env]) bytes += cidr_set_bytes(l->sets[env]);
        if (count_out(p->trees[env], &l->counted[env]) == ERR_OK) continue;
        l->next = p->owing; /* policy_collect() tries again; meanwhile the tree knows too many addresses */
        p->owing = l;
        return;
    }
    /* Whatever it returns, `l` is freed in the end. */
    (void)epochs_retire(p->epochs, l, bytes, policy_free_leaving);
}

static uint32_t prefixes_of(const struct partner_view *v, enum environment env)
{
    const struct cidr_set *set = partner_view_list(v, env);
    return set ? cidr_set_count(set) : 0;
}

void policy_account_in(struct policy *p, const struct partner_view *v)
{
    p->view_bytes += partner_view_bytes(v);
    for (enum environment env = ENV_PRODUCTION; env < ENV_COUNT; env++)
        p->nprefixes[env] += prefixes_of(v, env);
}

void policy_account_out(struct policy *p, const struct partner_view *v)
{
    p->view_bytes -= partner_view_bytes(v);
    for (enum environment env = ENV_PRODUCTION; env < ENV_COUNT; env++)
        p->nprefixes[env] -= prefixes_of(v, env);
}

void policy_kill_token(struct policy *p, const uint8_t *digest)
{
    BUG_IF(key_table_remove(p->tokens, token_key(digest)), "a token vanished");
}

void policy_vacate(struct policy *p, struct leaving *l)
{
    for (enum token_slot s = SLOT_CURRENT; s <= SLOT_PREVIOUS; s++) {
        const uint8_t *digest = partner_view_digest(l->view, s);
        if (digest && policy_owns_token(p, l->index, digest)) policy_kill_token(p, digest);
    }
    if (!directory_entry(&p->directory, l->index)->is_ghost) {
        directory_unbind(&p->directory, l->index);
        p->npartners--;
    }
    (void)directory_publish(&p->directory, l->index, NULL); /* returns l->view */
    policy_bump(p, l->index);
    policy_account_out(p, l->view);
    for (enum environment env = ENV_PRODUCTION; env < ENV_COUNT; env++)
        leave_list(p, l, env);
    policy_leave(p, l);
}

enum err policy_remove_index(struct policy *p, uint32_t index)
{
    enum err e = policy_reserve_leaving(p);
    if (e) return e;
    policy_vacate(p, policy_make_leaving(p, directory_view(&p->directory, index), index));
    return ERR_OK;
}
