#include "policy/cidr_tree.h"

#include "policy/cidr_hash6.h"
#include "policy/cidr_tree_part.h"

#include <stdlib.h>

struct cidr_tree {
    struct tree4 *v4;
    struct tree6 *v6;
    struct hash6 hash6;
    struct tree_memory memory;
};

struct cidr_tree *cidr_tree_create(struct epochs *epochs)
{
    struct cidr_tree *t = calloc(1, sizeof *t);
    if (!t) return NULL;
    t->memory.epochs = epochs;
    t->v4 = tree4_create(&t->memory);
    t->v6 = tree6_create(&t->memory);
    if (!hash6_init(&t->hash6, epochs) && t->v4 && t->v6) return t;
    cidr_tree_destroy(t);
    return NULL;
}

void cidr_tree_destroy(struct cidr_tree *t)
{
    if (!t) return;
    hash6_deinit(&t->hash6);
    tree6_destroy(t->v6);
    tree4_destroy(t->v4);
    free(t);
}

static struct cidr_key6 key6_of(const struct cidr *c)
{
    return (struct cidr_key6){c->net.v6.hi, c->net.v6.lo, c->len};
}

static enum err change(struct cidr_tree *t, const struct cidr *c, int32_t by)
{
    const struct addr last = cidr_last(c);
    if (c->net.family == ADDR_V4) return tree4_change(t->v4, c->net.v4, last.v4, by);
    if (hash6_takes(c->len)) {
        const struct cidr_key6 prefix = key6_of(c);
        return by > 0 ? hash6_add(&t->hash6, &prefix) : hash6_remove(&t->hash6, &prefix);
    }
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

/* The prefixes of a load, by where they go. */
struct keys {
    uint64_t *v4;
    struct cidr_key6 *v6, *hash6;
    size_t n4, n6, nhash6, cap4, cap6, caphash6;
};

enum { KEYS_FIRST = 1024 };

/* Makes room for one element more; a large block is moved by the kernel, not copied. */
static bool grow(void **v, size_t n, size_t *cap, size_t size)
{
    if (n < *cap) return true;
    size_t larger = *cap ? 2 * *cap : KEYS_FIRST;
    void *p = realloc(*v, larger * size);
    if (!p) return false;
    *v = p;
    *cap = larger;
    return true;
}

static enum err keys_read(struct keys *k, cidr_next_fn next, void *arg)
{
    for (struct cidr c; next(arg, &c);) {
        if (!grow((void **)&k->v4, k->n4, &k->cap4, sizeof *k->v4) ||
            !grow((void **)&k->v6, k->n6, &k->cap6, sizeof *k->v6) ||
            !grow((void **)&k->hash6, k->nhash6, &k->caphash6, sizeof *k->hash6))
            return ERR_NOMEM;
        if (c.net.family == ADDR_V4)
            k->v4[k->n4++] = cidr_key4(c.net.v4, c.len);
        else if (hash6_takes(c.len))
            k->hash6[k->nhash6++] = key6_of(&c);
        else
            k->v6[k->n6++] = key6_of(&c);
    }
    return cidr_sort4(k->v4, k->n4) || cidr_sort6(k->v6, k->n6) ? ERR_NOMEM : ERR_OK;
}

static void keys_deinit(struct keys *k)
{
    free(k->v4);
    free(k->v6);
    free(k->hash6);
}

/* All or nothing. */
static enum err load(struct cidr_tree *t, const struct keys *k)
{
    if (hash6_reserve(&t->hash6, k->hash6, k->nhash6)) return ERR_NOMEM;
    if (tree4_load(t->v4, k->v4, k->n4)) return ERR_NOMEM;
    if (tree6_load(t->v6, k->v6, k->n6)) {
        tree4_load_cancel(t->v4);
        return ERR_NOMEM;
    }
    tree4_load_commit(t->v4);
    hash6_load(&t->hash6, k->hash6, k->nhash6);
    return ERR_OK;
}

enum err cidr_tree_build(struct cidr_tree *t, cidr_next_fn next, void *arg)
{
    if (!tree4_is_empty(t->v4) || !tree6_is_empty(t->v6) || !hash6_is_empty(&t->hash6)) return ERR_EXISTS;
    struct keys k = {0};
    enum err e = keys_read(&k, next, arg);
    if (!e) e = load(t, &k);
    keys_deinit(&k);
    return e;
}

bool cidr_tree_has(const struct cidr_tree *t, const struct addr *a)
{
    if (a->family == ADDR_V4) return tree4_has(t->v4, a->v4);
    if (a->family != ADDR_V6) return false;
    const struct key6 key = {a->v6.hi, a->v6.lo};
    return hash6_has(&t->hash6, key) || tree6_has(t->v6, key);
}

void cidr_tree_bytes(const struct cidr_tree *t, size_t *reader, size_t *writer)
{
    *reader = t->memory.reader_bytes + hash6_bytes(&t->hash6);
    *writer = t->memory.writer_bytes;
}
