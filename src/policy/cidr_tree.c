#include "policy/cidr_tree.h"

#include "policy/cidr_tree_part.h"

#include <stdlib.h>

struct cidr_tree {
    struct tree4 *v4;
    struct tree6 *v6;
    struct tree_memory memory;
};

struct cidr_tree *cidr_tree_create(struct epochs *epochs)
{
    struct cidr_tree *t = calloc(1, sizeof *t);
    if (!t) return NULL;
    t->memory.epochs = epochs;
    t->v4 = tree4_create(&t->memory);
    t->v6 = tree6_create(&t->memory);
    if (t->v4 && t->v6) return t;
    cidr_tree_destroy(t);
    return NULL;
}

void cidr_tree_destroy(struct cidr_tree *t)
{
    if (!t) return;
    tree6_destroy(t->v6);
    tree4_destroy(t->v4);
    free(t);
}

static enum err change(struct cidr_tree *t, const struct cidr *c, int32_t by)
{
    const struct addr last = cidr_last(c);
    if (c->net.family == ADDR_V4) return tree4_change(t->v4, c->net.v4, last.v4, by);
    return tree6_change(t->v6, (struct key6){c->net.v6.hi, c->net.v6.lo},
                        (struct key6){last.v6.hi, last.v6.lo}, by);
}

enum err cidr_tree_add(struct cidr_tree *t, const struct cidr *c)
{
    return change(t, c, 1);
}

enum err cidr_tree_remove(struct cidr_tree *t, const struct cidr *c)
{
    return change(t, c, -1);
}

/* The prefixes of a load, by family. */
struct keys {
    uint64_t *v4;
    struct cidr_key6 *v6;
    size_t n4, n6;
};

static enum err keys_init(struct keys *k, const struct cidr *cidrs, size_t n)
{
    size_t n4 = 0;
    for (size_t i = 0; i < n; i++)
        n4 += cidrs[i].net.family == ADDR_V4;
    *k = (struct keys){.v4 = malloc(n4 * sizeof *k->v4 + 1), .v6 = malloc((n - n4) * sizeof *k->v6 + 1)};
    if (!k->v4 || !k->v6) return ERR_NOMEM;
    for (size_t i = 0; i < n; i++) {
        const struct addr *a = &cidrs[i].net;
        if (a->family == ADDR_V4)
            k->v4[k->n4++] = cidr_key4(a->v4, cidrs[i].len);
        else
            k->v6[k->n6++] = (struct cidr_key6){a->v6.hi, a->v6.lo, cidrs[i].len};
    }
    return cidr_sort4(k->v4, k->n4) || cidr_sort6(k->v6, k->n6) ? ERR_NOMEM : ERR_OK;
}

static void keys_deinit(struct keys *k)
{
    free(k->v4);
    free(k->v6);
}

/* Both families or neither. */
static enum err load(struct cidr_tree *t, const struct keys *k)
{
    if (tree4_load(t->v4, k->v4, k->n4)) return ERR_NOMEM;
    if (tree6_load(t->v6, k->v6, k->n6)) {
        tree4_load_cancel(t->v4);
        return ERR_NOMEM;
    }
    tree4_load_commit(t->v4);
    return ERR_OK;
}

enum err cidr_tree_build(struct cidr_tree *t, const struct cidr *cidrs, size_t n)
{
    if (!tree4_is_empty(t->v4) || !tree6_is_empty(t->v6)) return ERR_EXISTS;
    struct keys k;
    enum err e = keys_init(&k, cidrs, n);
    if (!e) e = load(t, &k);
    keys_deinit(&k);
    return e;
}

bool cidr_tree_has(const struct cidr_tree *t, const struct addr *a)
{
    if (a->family == ADDR_V4) return tree4_has(t->v4, a->v4);
    return a->family == ADDR_V6 && tree6_has(t->v6, (struct key6){a->v6.hi, a->v6.lo});
}

void cidr_tree_bytes(const struct cidr_tree *t, size_t *reader, size_t *writer)
{
    *reader = t->memory.reader_bytes;
    *writer = t->memory.writer_bytes;
}
