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

/* IPv4 from the front, IPv6 behind. Returns how many are IPv4. */
static size_t split_families(const struct cidr *cidrs, size_t n, struct cidr_key *keys)
{
    size_t n4 = 0, n6 = n;
    for (size_t i = 0; i < n; i++) {
        const struct addr *a = &cidrs[i].net;
        const bool is_v4 = a->family == ADDR_V4;
        struct cidr_key *k = is_v4 ? &keys[n4++] : &keys[--n6];
        k->hi = is_v4 ? (uint64_t)a->v4 << 32 : a->v6.hi;
        k->lo = is_v4 ? 0 : a->v6.lo;
        k->len = cidrs[i].len;
    }
    return n4;
}

enum err cidr_tree_build(struct cidr_tree *t, const struct cidr *cidrs, size_t n)
{
    if (!tree4_is_empty(t->v4) || !tree6_is_empty(t->v6)) return ERR_EXISTS;
    if (n == 0) return ERR_OK;
    struct cidr_key *keys = malloc(n * sizeof *keys);
    if (!keys) return ERR_NOMEM;
    const size_t n4 = split_families(cidrs, n, keys);
    enum err e = cidr_sort(keys, n4);
    if (!e) e = cidr_sort(keys + n4, n - n4);
    if (!e) e = tree4_load(t->v4, keys, n4);
    if (!e) {
        e = tree6_load(t->v6, keys + n4, n - n4);
        if (e)
            tree4_load_cancel(t->v4);
        else
            tree4_load_commit(t->v4);
    }
    free(keys);
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
