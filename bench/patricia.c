#include "patricia.h"

#include <stdlib.h>

/* An address, its first bit on top. */
struct bits {
    uint64_t hi, lo;
};

struct node {
    struct bits key; /* right up to `len` */
    uint32_t child[2];
    uint8_t len;
    bool is_prefix; /* otherwise only a fork */
};

struct patricia {
    struct node *nodes; /* owned; child 0 = none, so the first one is not used */
    uint32_t n, cap;
    uint32_t root;
};

static struct bits bits_of(const struct addr *a)
{
    if (a->family == ADDR_V4) return (struct bits){(uint64_t)a->v4 << 32, 0};
    return (struct bits){a->v6.hi, a->v6.lo};
}

static unsigned bit_at(struct bits b, unsigned at)
{
    return (unsigned)((at < 64 ? b.hi >> (63 - at) : b.lo >> (127 - at)) & 1);
}

static unsigned common(struct bits a, struct bits b)
{
    if (a.hi != b.hi) return (unsigned)__builtin_clzll(a.hi ^ b.hi);
    return a.lo != b.lo ? 64 + (unsigned)__builtin_clzll(a.lo ^ b.lo) : 128;
}

struct patricia *patricia_create(void)
{
    struct patricia *t = calloc(1, sizeof *t);
    if (t) t->n = 1;
    return t;
}

void patricia_destroy(struct patricia *t)
{
    if (!t) return;
    free(t->nodes);
    free(t);
}

/* Room for the two nodes that a prefix needs at most. */
static bool reserve(struct patricia *t)
{
    if (t->n + 2 <= t->cap) return true;
    uint32_t cap = t->cap ? t->cap * 2 : 64;
    struct node *grown = realloc(t->nodes, cap * sizeof *grown);
    if (!grown) return false;
    t->nodes = grown;
    t->cap = cap;
    return true;
}

static uint32_t new_node(struct patricia *t, struct bits key, unsigned len, bool is_prefix)
{
    t->nodes[t->n] = (struct node){.key = key, .len = (uint8_t)len, .is_prefix = is_prefix};
    return t->n++;
}

bool patricia_add(struct patricia *t, const struct cidr *c)
{
    if (!reserve(t)) return false;
    struct bits key = bits_of(&c->net);
    uint32_t *link = &t->root;
    unsigned same = 0;
    while (*link) {
        struct node *node = &t->nodes[*link];
        same = common(key, node->key);
        if (same > c->len) same = c->len;
        if (same < node->len) break;
        if (node->len == c->len) {
            node->is_prefix = true;
            return true;
        }
        link = &node->child[bit_at(key, node->len)];
    }
    uint32_t below = *link;
    if (!below || same == c->len) {
        *link = new_node(t, key, c->len, true);
    } else {
        *link = new_node(t, key, same, false);
        t->nodes[*link].child[bit_at(key, same)] = new_node(t, key, c->len, true);
    }
    if (below) t->nodes[*link].child[bit_at(t->nodes[below].key, same)] = below;
    return true;
}

bool patricia_has(const struct patricia *t, const struct addr *a)
{
    struct bits key = bits_of(a);
    for (uint32_t at = t->root; at;) {
        const struct node *node = &t->nodes[at];
        if (common(key, node->key) < node->len) return false;
        if (node->is_prefix) return true;
        at = node->child[bit_at(key, node->len)];
    }
    return false;
}

size_t patricia_bytes(const struct patricia *t)
{
    return sizeof *t + t->n * sizeof *t->nodes;
}
