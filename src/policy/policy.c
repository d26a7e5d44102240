#include "policy/policy.h"

#include "policy/policy_state.h"

#include <stdlib.h>

enum err policy_remove(struct policy *p, struct span id)
{
    uint32_t index = directory_find(&p->directory, id);
    return index == PARTNER_INDEX_NONE ? ERR_NOT_FOUND : policy_remove_index(p, index);
}

/* --- synchronisation --------------------------------------------------------------------------------- */

static void lay_ghosts(struct policy *p)
{
    while (p->ghosts) {
        struct leaving *l = p->ghosts;
        p->ghosts = l->next;
        policy_vacate(p, l);
    }
}

enum { VIEWS_AHEAD = 8 }; /* on their way while the lists of those before them are read */

/* Every list of an environment, one prefix after the other; a shared list once. */
struct harvest {
    const struct policy *policy;
    enum environment env;
    uint32_t next; /* index of the next view, then slot of the next shared list */
    bool is_past_views;
    struct cidr_walk walk;
};

static const struct cidr_set *next_list(struct harvest *h)
{
    const struct directory *d = &h->policy->directory;
    const struct cidr_pool *pool = &h->policy->pools[h->env];
    for (; !h->is_past_views; h->next++) {
        if (h->next == d->nindices) {
            h->is_past_views = true;
            h->next = 0;
            break;
        }
        const struct partner_view *v = directory_view(d, h->next);
        __builtin_prefetch(directory_view(d, h->next + VIEWS_AHEAD));
        if (v && v->lists[h->env] == PARTNER_LIST_INSIDE) {
            h->next++;
            return partner_view_list(v, h->env);
        }
    }
    while (h->next < pool->nslots) {
        const struct cidr_set *set = pool->slots[h->next++].set;
        if (set) return set;
    }
    return NULL;
}

static bool next_prefix(void *arg, struct cidr *out)
{
    struct harvest *h = arg;
    while (!h->walk.set || !cidr_walk_next(&h->walk, out)) {
        const struct cidr_set *list = next_list(h);
        if (!list) return false;
        h->walk = cidr_walk_of(list);
    }
    return true;
}

/* The first build of a tree: from all views at once. */
static enum err build_tree(struct policy *p, enum environment env)
{
    struct harvest h = {.policy = p, .env = env};
    enum err e = p->nprefixes[env] > 0 ? cidr_tree_build(p->trees[env], next_prefix, &h) : ERR_OK;
    if (!e) p->has_tree[env] = true;
    return e;
}

void policy_reserve(struct policy *p, uint32_t partners)
{
    if (partners > DIRECTORY_BLOCKS_MAX * DIRECTORY_BLOCK) partners = DIRECTORY_BLOCKS_MAX * DIRECTORY_BLOCK;
    uint32_t more = partners > p->npartners ? partners - p->npartners : 0;
    more += more / 16; /* a few have two tokens, and a table that is full at once would grow soon */
    if (more == 0) return;
    /* Without memory now they grow step by step, or fail then. */
    (void)key_table_reserve(p->tokens, more);
    (void)directory_reserve(&p->directory, more);
}

void policy_sync_begin(struct policy *p)
{
    lay_ghosts(p);
    p->is_syncing = true;
    p->sync = p->sync % DIRECTORY_SEEN_MAX + 1;
}

enum err policy_sync_end(struct policy *p, uint32_t *removed)
{
    BUG_IF(!p->is_syncing, "a synchronisation ended that had not begun");
    uint32_t nremoved = 0;
    for (uint32_t i = 0; i < p->directory.nindices; i++) {
        if (!directory_view(&p->directory, i)) continue;
        const union directory_entry *entry = directory_entry(&p->directory, i);
        if (entry->is_ghost || entry->seen == p->sync) continue;
        enum err e = policy_remove_index(p, i);
        if (e) return e;
        nremoved++;
    }
    lay_ghosts(p);
    for (enum environment env = ENV_PRODUCTION; env < ENV_COUNT; env++) {
        enum err e = p->has_tree[env] ? ERR_OK : build_tree(p, env);
        if (e) return e;
    }
    p->is_syncing = false;
    if (!policy_is_ready(p)) {
        atomic_store_explicit(&p->is_ready, true, memory_order_release);
        policy_bump(p, PARTNER_INDEX_NONE);
    }
    if (removed) *removed = nremoved;
    return ERR_OK;
}

void policy_sync_abort(struct policy *p)
{
    lay_ghosts(p);
    p->is_syncing = false;
}

/* --- life -------------------------------------------------------------------------------------------- */

struct policy *policy_create(void)
{
    struct policy *p = calloc(1, sizeof(*p));
    if (!p) return NULL;
    p->epochs = epochs_create();
    bool is_complete = p->epochs && !directory_init(&p->directory);
    if (is_complete) {
        p->tokens = key_table_create(p->epochs);
        is_complete = p->tokens;
    }
    for (size_t env = 0; is_complete && env < ENV_COUNT; env++) {
        p->trees[env] = cidr_tree_create(p->epochs);
        is_complete = p->trees[env];
    }
    if (!is_complete) {
        policy_destroy(p);
        return NULL;
    }
    return p;
}

void policy_destroy(struct policy *p)
{
    if (!p) return;
    if (p->epochs) {
        lay_ghosts(p);
        /* What owes the trees something may leave with them. */
        while (p->owing) {
            struct leaving *l = p->owing;
            p->owing = l->next;
            policy_free_leaving(l);
        }
        BUG_IF(epochs_collect(p->epochs) != 0, "policy destroyed under an online reader");
    }
    directory_deinit(&p->directory);
    for (size_t env = 0; env < ENV_COUNT; env++) {
        cidr_pool_deinit(&p->pools[env]);
        cidr_tree_destroy(p->trees[env]);
    }
    key_table_destroy(p->tokens);
    epochs_destroy(p->epochs);
    free(p->spare);
    free(p);
}

struct epochs *policy_epochs(struct policy *p)
{
    return p->epochs;
}

void policy_collect(struct policy *p)
{
    struct leaving *l = p->owing;
    p->owing = NULL;
    while (l) {
        struct leaving *next = l->next;
        policy_leave(p, l);
        l = next;
    }
    (void)epochs_collect(p->epochs); /* what is left is in policy_stats() */
}

void policy_on_change(struct policy *p, policy_change_fn fn, void *arg)
{
    p->on_change = fn;
    p->on_change_arg = arg;
}

uint32_t policy_find(const struct policy *p, struct span id)
{
    return directory_find(&p->directory, id);
}

void policy_stats(const struct policy *p, struct policy_stats *out)
{
    *out = (struct policy_stats){
        .partners = p->npartners,
        .tokens = (uint32_t)key_table_count(p->tokens),
        .bytes = sizeof(*p) + directory_bytes(&p->directory) + key_table_bytes(p->tokens) + p->view_bytes,
        .limbo_bytes = epochs_limbo_bytes(p->epochs),
    };
    for (size_t env = 0; env < ENV_COUNT; env++) {
        size_t reader, writer;
        cidr_tree_bytes(p->trees[env], &reader, &writer);
        out->bytes += reader + writer + cidr_pool_bytes(&p->pools[env]);
        out->prefixes += p->nprefixes[env];
    }
}

/* --- readers ----------------------------------------------------------------------------------------- */

bool policy_is_ready(const struct policy *p)
{
    return atomic_load_explicit(&p->is_ready, memory_order_acquire);
}

uint64_t policy_generation(const struct policy *p)
{
    return atomic_load_explicit(&p->generation, memory_order_acquire);
}

const struct partner_view *policy_view(const struct policy *p, uint32_t index)
{
    return directory_view(&p->directory, index);
}

const struct key_table *policy_tokens(const struct policy *p)
{
    return p->tokens;
}

bool policy_source_known(const struct policy *p, enum environment env, const struct addr *a)
{
    return !policy_is_ready(p) || cidr_tree_has(p->trees[env], a);
}
