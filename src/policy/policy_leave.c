#include "policy/policy_state.h"

#include <stdlib.h>

/* Takes one list out of a tree, up to the first failure. */
struct tree_exit {
    struct cidr_tree *tree;
    uint32_t at;         /* position in the list */
    uint32_t from, upto; /* as in struct leaving */
    enum err err;        /* the first failure; nothing is done after it */
};

static void count_out_one(const struct cidr *c, void *arg)
{
    struct tree_exit *w = arg;
    uint32_t at = w->at++;
    if (w->err || at < w->from || at >= w->upto) return;
    w->err = cidr_tree_remove(w->tree, c);
    BUG_IF(w->err == ERR_NOT_FOUND, "a prefix of a view was not in the tree");
    if (!w->err) w->from = at + 1;
}

/* Takes the prefixes of a leaving view out of the trees. Errors: ERR_NOMEM: call again later. */
static enum err count_out(struct policy *p, struct leaving *l)
{
    for (size_t env = 0; env < ENV_COUNT; env++) {
        if (!l->view->allow[env] || l->counted[env].from >= l->counted[env].upto) continue;
        struct tree_exit w = {
            .tree = p->trees[env], .from = l->counted[env].from, .upto = l->counted[env].upto};
        cidr_set_each(l->view->allow[env], count_out_one, &w);
        l->counted[env].from = w.err ? w.from : w.upto;
        if (w.err) return w.err;
    }
    return ERR_OK;
}

static void count_one(const struct cidr *c, void *arg)
{
    (void)c; /* only how many there are matters */
    ++*(uint64_t *)arg;
}

static uint64_t prefixes_of(const struct partner_view *v, size_t env)
{
    uint64_t n = 0;
    if (v->allow[env]) cidr_set_each(v->allow[env], count_one, &n);
    return n;
}

enum err policy_reserve_leaving(struct policy *p)
{
    if (!p->spare) p->spare = malloc(sizeof(*p->spare));
    return p->spare ? ERR_OK : ERR_NOMEM;
}

struct leaving *policy_make_leaving(struct policy *p, struct partner_view *view, uint32_t index,
                                    bool with_lists)
{
    struct leaving *l = p->spare;
    p->spare = NULL;
    *l = (struct leaving){.policy = p, .view = view, .index = index, .with_lists = with_lists};
    for (size_t env = 0; env < ENV_COUNT; env++)
        if (with_lists && p->has_tree[env]) l->counted[env].upto = UINT32_MAX;
    return l;
}

void policy_free_leaving(void *arg)
{
    struct leaving *l = arg;
    if (l->index != PARTNER_INDEX_NONE) directory_release(&l->policy->directory, l->index);
    partner_view_destroy(l->view, l->with_lists);
    free(l);
}

void policy_leave(struct policy *p, struct leaving *l)
{
    if (count_out(p, l)) {
        l->next = p->owing; /* policy_collect() tries again; meanwhile the tree knows too many addresses */
        p->owing = l;
        return;
    }
    /* Whatever it returns, `l` is freed in the end. */
    (void)epochs_retire(p->epochs, l, partner_view_bytes(l->view) + sizeof(*l), policy_free_leaving);
}

void policy_account_in(struct policy *p, const struct partner_view *v)
{
    p->view_bytes += partner_view_bytes(v);
    for (size_t env = 0; env < ENV_COUNT; env++)
        p->nprefixes[env] += prefixes_of(v, env);
}

void policy_account_out(struct policy *p, const struct partner_view *v)
{
    p->view_bytes -= partner_view_bytes(v);
    for (size_t env = 0; env < ENV_COUNT; env++)
        p->nprefixes[env] -= prefixes_of(v, env);
}

void policy_kill_token(struct policy *p, const uint8_t *digest)
{
    BUG_IF(token_table_remove(p->tokens, digest), "a token vanished");
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
    policy_leave(p, l);
}

enum err policy_remove_index(struct policy *p, uint32_t index)
{
    enum err e = policy_reserve_leaving(p);
    if (e) return e;
    policy_vacate(p, policy_make_leaving(p, directory_view(&p->directory, index), index, true));
    return ERR_OK;
}
