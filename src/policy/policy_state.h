/* policy_state.h - what policy.c, policy_apply.c and policy_leave.c share. Internal to the floor.
 *
 * Thread: [control, the one writer]; readers go through policy.h.
 */
#ifndef POLICY_POLICY_STATE_H
#define POLICY_POLICY_STATE_H

#include "policy/cidr_tree.h"
#include "policy/key_table.h"
#include "policy/policy.h"
#include "policy/token.h"

/* Places in a list that a change passes over. */
struct marks {
    uint64_t few;   /* the first 64 of them */
    uint64_t *many; /* owned; or NULL: there are no more, or none is marked */
};

static inline bool marks_have(const struct marks *m, uint32_t at)
{
    if (m->many) return m->many[at / 64] >> at % 64 & 1;
    return at < 64 && (m->few >> at & 1);
}

/* A list whose prefixes are counted in a tree. */
struct counted {
    const struct cidr_set *set; /* NULL: nothing */
    uint32_t from, upto;        /* these places of it, */
    struct marks except;        /* but not these */
};

/* A view on its way out: unpublished, but prefixes of its are still counted in the trees, and readers may
 * still hold it. Made before a change starts, so that nothing after the first visible step can fail. */
struct leaving {
    struct leaving *next;
    struct policy *policy;
    struct partner_view *view; /* owned */
    uint32_t index;            /* released with it, or PARTNER_INDEX_NONE */
    struct counted counted[ENV_COUNT];
    struct cidr_set *sets[ENV_COUNT]; /* owned: large lists that end with it, or NULL */
};

struct policy {
    struct directory directory;
    struct key_table *tokens;           /* owned, set once */
    struct cidr_tree *trees[ENV_COUNT]; /* owned, set once */
    struct epochs *epochs;              /* owned, set once */
    struct cidr_pool pools[ENV_COUNT];  /* large lists; writer only, but the sets */
    _Atomic uint64_t generation;
    _Atomic bool is_ready;

    /* writer only */
    bool has_tree[ENV_COUNT]; /* the tree is kept in step from now on */
    bool is_syncing;
    uint32_t sync;              /* number of the current or last synchronisation, from 1 on */
    struct partner_draft draft; /* of policy_apply() */
    struct leaving *spare;      /* for the next change, or NULL */
    struct leaving *ghosts;     /* still published, nameless, until the synchronisation ends */
    struct leaving *owing;      /* memory was out when their prefixes were to leave the trees */
    uint32_t npartners;
    uint64_t nprefixes[ENV_COUNT];
    size_t view_bytes;
    policy_change_fn on_change; /* or NULL */
    void *on_change_arg;
};

/* The last step of every visible change; `index`: whose view or tokens changed, or PARTNER_INDEX_NONE. */
static inline void policy_bump(struct policy *p, uint32_t index)
{
    uint64_t g = atomic_load_explicit(&p->generation, memory_order_relaxed);
    atomic_store_explicit(&p->generation, g + 1, memory_order_release);
    if (p->on_change && index != PARTNER_INDEX_NONE) p->on_change(index, p->on_change_arg);
}

static inline bool policy_owns_token(const struct policy *p, uint32_t index, const uint8_t *digest)
{
    uint32_t owner;
    return key_table_find(p->tokens, token_key(digest), &owner) && owner == index;
}

/* Ends a token that is there. */
void policy_kill_token(struct policy *p, const uint8_t *digest);

/* Makes sure that the next policy_make_leaving() has one. Errors: ERR_NOMEM. */
enum err policy_reserve_leaving(struct policy *p);

/* Takes the reserved one. `index`: to be released with the view, or PARTNER_INDEX_NONE. Nothing of it is
 * counted. */
struct leaving *policy_make_leaving(struct policy *p, struct partner_view *view, uint32_t index);

/* For a view that nobody finds any more: takes its prefixes out of the trees (now, or in policy_collect()
 * when memory is out), then frees it when no reader holds it. */
void policy_leave(struct policy *p, struct leaving *l);

/* Frees at once. No reader may hold the view. */
void policy_free_leaving(void *leaving);

/* Ends the index that `l` names: its tokens, its view, then the prefixes. */
void policy_vacate(struct policy *p, struct leaving *l);

/* Ends a partner. Errors: ERR_NOMEM (nothing changed). */
enum err policy_remove_index(struct policy *p, uint32_t index);

/* Keeps the totals of policy_stats(). */
void policy_account_in(struct policy *p, const struct partner_view *v);
void policy_account_out(struct policy *p, const struct partner_view *v);

#endif
