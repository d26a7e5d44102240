#include "policy/cidr_set.h"

#include "policy/cidr_stree.h"

#include <stdlib.h>

enum { FORM_TINY, FORM_TREE };

enum {
    TINY_MAX = 8,            /* merged prefixes of one family that are still scanned */
    ON_STACK = 2 * TINY_MAX, /* longer inputs are sorted in heap memory */
    CIDRS_MAX = 1 << 27,     /* two boundaries each fill STREE_KEYS_MAX */
};

struct cidr_set {
    uint8_t form;
    uint8_t n4, n6;  /* tiny: entries */
    uint8_t is_wide; /* tree: IPv6 boundaries have low halves */
    uint32_t bytes;  /* of the whole object */
};

struct entry4 {
    uint32_t net, mask;
};

/* Line 0 serves IPv4, line 1 (with `bytes6`) IPv6, then the lines of both trees. */
struct tree {
    struct cidr_set head;
    struct stree v4;
    uint32_t line6; /* number of the first line of the IPv6 tree, counted from `lines` */
    uint32_t low6;  /* number of the first line of the low halves */
    _Alignas(LINE_BYTES) struct stree v6;
    _Alignas(LINE_BYTES) unsigned char lines[];
};

/* --- look-up ------------------------------------------------------------------------------------ */

static const struct entry4 *tiny_v4(const struct cidr_set *s)
{
    return (const struct entry4 *)(s + 1);
}

static const struct key6 *tiny_v6(const struct cidr_set *s)
{
    return (const struct key6 *)(tiny_v4(s) + s->n4);
}

static const uint8_t *tiny_len6(const struct cidr_set *s)
{
    return (const uint8_t *)(tiny_v6(s) + s->n6);
}

static const struct tree *tree_of(const struct cidr_set *s)
{
    return (const struct tree *)s;
}

static const int32_t *lines4(const struct tree *t)
{
    return (const int32_t *)t->lines;
}

static const uint64_t *lines6(const struct tree *t)
{
    return (const uint64_t *)(t->lines + (size_t)t->line6 * LINE_BYTES);
}

/* The boundaries in order. */
static const int32_t *sorted4(const struct tree *t)
{
    return lines4(t) + stree_leaf_line(&t->v4) * LINE_KEYS_32;
}

static const uint64_t *sorted6(const struct tree *t)
{
    return lines6(t) + stree_leaf_line(&t->v6) * LINE_KEYS_64;
}

/* Their low halves, with is_wide. */
static const uint64_t *lows6(const struct tree *t)
{
    return (const uint64_t *)(t->lines + (size_t)t->low6 * LINE_BYTES);
}

static bool tiny_has4(const struct cidr_set *s, uint32_t a)
{
    const struct entry4 *e = tiny_v4(s);
    unsigned found = 0;
    for (unsigned i = 0; i < s->n4; i++)
        found |= ((a ^ e[i].net) & e[i].mask) == 0;
    return found;
}

/* Every entry is looked at: a branch for each, mispredicted once, would cost more than eight of them. */
static bool tiny_has6(const struct cidr_set *s, struct key6 a)
{
    const struct key6 *net = tiny_v6(s);
    const uint8_t *len = tiny_len6(s);
    unsigned found = 0;
    for (unsigned i = 0; i < s->n6; i++) {
        /* The bits of both halves that count; no shift reaches 64, which would be undefined. */
        const uint64_t hi = len[i] >= 64 ? UINT64_MAX : ~(UINT64_MAX >> len[i]);
        const uint64_t lo = len[i] <= 64 ? 0 : ~(UINT64_MAX >> 1 >> (len[i] - 65));
        found |= (((a.hi ^ net[i].hi) & hi) | ((a.lo ^ net[i].lo) & lo)) == 0;
    }
    return found;
}

static bool tree_has6(const struct tree *t, struct key6 a)
{
    return (t->head.is_wide ? stree_rank128(&t->v6, lines6(t), lows6(t), a)
                            : stree_rank64(&t->v6, lines6(t), a.hi)) &
           1;
}

bool cidr_set_has(const struct cidr_set *s, const struct addr *a)
{
    if (a->family == ADDR_V4) {
        if (s->form == FORM_TINY) return tiny_has4(s, a->v4);
        return stree_rank32(&tree_of(s)->v4, lines4(tree_of(s)), line_key32(a->v4)) & 1;
    }
    if (a->family == ADDR_V6) {
        const struct key6 key = {a->v6.hi, a->v6.lo};
        return s->form == FORM_TINY ? tiny_has6(s, key) : tree_has6(tree_of(s), key);
    }
    return false;
}

size_t cidr_set_bytes(const struct cidr_set *s)
{
    return s->bytes;
}
/* --- merging ------------------------------------------------------------------------------------ */

static void sort_cidrs(struct cidr *v, uint32_t n)
{
    if (n > ON_STACK) {
        qsort(v, n, sizeof *v, cidr_compare);
        return;
    }
    for (uint32_t i = 1; i < n; i++) {
        const struct cidr c = v[i];
        uint32_t j = i;
        for (; j > 0 && cidr_compare(&v[j - 1], &c) > 0; j--)
            v[j] = v[j - 1];
        v[j] = c;
    }
}

/* Turns `a` into the parent of both when `b` is its upper sibling. */
static bool join_siblings(struct cidr *a, const struct cidr *b)
{
    if (a->net.family != b->net.family || a->len != b->len || a->len == 0) return false;
    const struct cidr parent = {.net = a->net, .len = (uint8_t)(a->len - 1)};
    if (!cidr_contains(&parent, &a->net) || !cidr_contains(&parent, &b->net)) return false;
    *a = parent;
    return true;
}

/* Sorted prefixes in, disjoint canonical ones out, in place. Returns how many are left. */
static uint32_t merge_cidrs(struct cidr *v, uint32_t n)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (kept && cidr_contains(&v[kept - 1], &v[i].net)) continue;
        v[kept++] = v[i];
        while (kept >= 2 && join_siblings(&v[kept - 2], &v[kept - 1]))
            kept--;
    }
    return kept;
}

/* --- build -------------------------------------------------------------------------------------- */

static enum err build_tiny(const struct cidr *v, uint32_t n4, uint32_t n6, struct cidr_set **out)
{
    const size_t bytes =
        sizeof(struct cidr_set) + n4 * sizeof(struct entry4) + n6 * (sizeof(struct key6) + 1);
    struct cidr_set *s = malloc(bytes);
    if (!s) return ERR_NOMEM;
    *s = (struct cidr_set){.form = FORM_TINY, .n4 = (uint8_t)n4, .n6 = (uint8_t)n6, .bytes = (uint32_t)bytes};
    struct entry4 *e = (struct entry4 *)(s + 1);
    for (uint32_t i = 0; i < n4; i++)
        e[i] = (struct entry4){v[i].net.v4, ~(v[i].net.v4 ^ cidr_last(&v[i]).v4)};
    struct key6 *net = (struct key6 *)(e + n4);
    uint8_t *len = (uint8_t *)(net + n6);
    for (uint32_t i = 0; i < n6; i++) {
        net[i] = (struct key6){v[n4 + i].net.v6.hi, v[n4 + i].net.v6.lo};
        len[i] = v[n4 + i].len;
    }
    *out = s;
    return ERR_OK;
}

/* Writes the boundaries of `n` disjoint sorted prefixes, 2 n at most; neighbours that touch become one
 * range. The end of the address space is no boundary. */
static uint32_t bounds4(const struct cidr *v, uint32_t n, uint32_t *out)
{
    uint32_t k = 0;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t last = cidr_last(&v[i]).v4;
        if (k && out[k - 1] == v[i].net.v4)
            k--;
        else
            out[k++] = v[i].net.v4;
        if (last != UINT32_MAX) out[k++] = last + 1;
    }
    return k;
}

static uint32_t bounds6(const struct cidr *v, uint32_t n, struct key6 *out, bool *is_wide)
{
    uint32_t k = 0;
    *is_wide = false;
    for (uint32_t i = 0; i < n; i++) {
        const struct key6 first = {v[i].net.v6.hi, v[i].net.v6.lo};
        const struct addr last = cidr_last(&v[i]);
        const struct key6 end = {last.v6.hi + (last.v6.lo == UINT64_MAX), last.v6.lo + 1};
        if (k && out[k - 1].hi == first.hi && out[k - 1].lo == first.lo)
            k--;
        else
            out[k++] = first;
        if (end.hi != 0 || end.lo != 0) out[k++] = end;
        *is_wide |= v[i].len > 64;
    }
    return k;
}

static uint32_t lines_for(size_t bytes)
{
    return (uint32_t)((bytes + LINE_BYTES - 1) / LINE_BYTES);
}

static struct tree *lay_out(const uint32_t *at4, uint32_t nb4, const struct key6 *at6, uint32_t nb6,
                            bool is_wide)
{
    struct stree v4, v6;
    const uint32_t line6 = stree_plan(&v4, nb4, LINE_KEYS_32);
    const uint32_t low6 = line6 + stree_plan(&v6, nb6, LINE_KEYS_64);
    const uint32_t nlines = low6 + (is_wide ? lines_for((size_t)nb6 * sizeof(uint64_t)) : 0);
    const size_t bytes = sizeof(struct tree) + (size_t)nlines * LINE_BYTES;
    struct tree *t = bytes <= UINT32_MAX ? aligned_alloc(LINE_BYTES, bytes) : NULL;
    if (!t) return NULL;
    t->head = (struct cidr_set){.form = FORM_TREE, .is_wide = is_wide, .bytes = (uint32_t)bytes};
    t->v4 = v4;
    t->v6 = v6;
    t->line6 = line6;
    t->low6 = low6;
    int32_t *keys4 = (int32_t *)t->lines;
    for (uint32_t i = 0; i < nb4; i++)
        keys4[stree_leaf_line(&v4) * LINE_KEYS_32 + i] = line_key32(at4[i]);
    stree_finish32(&v4, keys4);
    uint64_t *keys6 = (uint64_t *)(t->lines + (size_t)line6 * LINE_BYTES);
    uint64_t *lows = (uint64_t *)(t->lines + (size_t)low6 * LINE_BYTES);
    for (uint32_t i = 0; i < nb6; i++) {
        keys6[stree_leaf_line(&v6) * LINE_KEYS_64 + i] = at6[i].hi;
        if (is_wide) lows[i] = at6[i].lo;
    }
    stree_finish64(&v6, keys6);
    return t;
}

static enum err build_tree(const struct cidr *v, uint32_t n4, uint32_t n6, struct cidr_set **out)
{
    enum err e = ERR_NOMEM;
    bool is_wide;
    uint32_t *at4 = malloc((size_t)n4 * 2 * sizeof *at4 + 1); /* + 1: never asks for nothing */
    struct key6 *at6 = malloc((size_t)n6 * 2 * sizeof *at6 + 1);
    if (at4 && at6) {
        const uint32_t nb4 = bounds4(v, n4, at4);
        const uint32_t nb6 = bounds6(v + n4, n6, at6, &is_wide);
        struct tree *t = lay_out(at4, nb4, at6, nb6, is_wide);
        if (t) {
            *out = &t->head;
            e = ERR_OK;
        }
    }
    free(at6);
    free(at4);
    return e;
}

enum err cidr_set_build(const struct cidr *cidrs, uint32_t n, struct cidr_set **out)
{
    if (n > CIDRS_MAX) return ERR_NOMEM;
    struct cidr stack[ON_STACK];
    struct cidr *v = n > ON_STACK ? malloc(n * sizeof *v) : stack;
    if (!v) return ERR_NOMEM;
    if (n) memcpy(v, cidrs, n * sizeof *v);
    sort_cidrs(v, n);
    n = merge_cidrs(v, n);
    uint32_t n4 = 0;
    while (n4 < n && v[n4].net.family == ADDR_V4)
        n4++;
    const uint32_t n6 = n - n4;
    const enum err e =
        n4 <= TINY_MAX && n6 <= TINY_MAX ? build_tiny(v, n4, n6, out) : build_tree(v, n4, n6, out);
    if (v != stack) free(v);
    return e;
}

void cidr_set_destroy(struct cidr_set *s)
{
    free(s);
}

/* --- walk --------------------------------------------------------------------------------------- */

struct visitor {
    void (*fn)(const struct cidr *c, void *arg);
    void *arg;
};

/* How many low bits of the address are zero. */
static unsigned trailing_zeros(const struct addr *a)
{
    if (a->family == ADDR_V4) return a->v4 ? (unsigned)__builtin_ctz(a->v4) : 32;
    if (a->v6.lo) return (unsigned)__builtin_ctzll(a->v6.lo);
    return a->v6.hi ? 64 + (unsigned)__builtin_ctzll(a->v6.hi) : 128;
}

static bool is_after(const struct addr *a, const struct addr *b)
{
    if (a->family == ADDR_V4) return a->v4 > b->v4;
    return a->v6.hi != b->v6.hi ? a->v6.hi > b->v6.hi : a->v6.lo > b->v6.lo;
}

static void step(struct addr *a, int by)
{
    if (a->family == ADDR_V4) {
        a->v4 += (uint32_t)by;
        return;
    }
    const uint64_t lo = a->v6.lo + (uint64_t)by;
    if (by > 0)
        a->v6.hi += lo == 0;
    else
        a->v6.hi -= lo == UINT64_MAX;
    a->v6.lo = lo;
}

/* Cuts a range into prefixes, always the largest that starts here and ends inside. */
static void visit_range(struct addr first, const struct addr *last, const struct visitor *visit)
{
    const unsigned bits = first.family == ADDR_V4 ? 32 : 128;
    for (;;) {
        struct cidr c = {.net = first, .len = (uint8_t)(bits - trailing_zeros(&first))};
        first = cidr_last(&c);
        while (is_after(&first, last)) {
            c.len++;
            first = cidr_last(&c);
        }
        visit->fn(&c, visit->arg);
        if (addr_eq(&first, last)) return;
        step(&first, 1);
    }
}

static void visit_tiny(const struct cidr_set *s, const struct visitor *visit)
{
    for (unsigned i = 0; i < s->n4; i++) {
        const struct entry4 *e = &tiny_v4(s)[i];
        const struct cidr c = {.net = {.family = ADDR_V4, .v4 = e->net},
                               .len = (uint8_t)__builtin_popcount(e->mask)};
        visit->fn(&c, visit->arg);
    }
    for (unsigned i = 0; i < s->n6; i++) {
        const struct key6 *k = &tiny_v6(s)[i];
        const struct cidr c = {.net = {.family = ADDR_V6, .v6 = {k->hi, k->lo}}, .len = tiny_len6(s)[i]};
        visit->fn(&c, visit->arg);
    }
}

static void visit_tree(const struct tree *t, const struct visitor *visit)
{
    const int32_t *at4 = sorted4(t);
    for (uint32_t i = 0; i < t->v4.nkeys; i += 2) {
        const struct addr first = {.family = ADDR_V4, .v4 = line_value32(at4[i])};
        struct addr end = {.family = ADDR_V4, .v4 = i + 1 < t->v4.nkeys ? line_value32(at4[i + 1]) : 0};
        step(&end, -1);
        visit_range(first, &end, visit);
    }
    const uint64_t *hi = sorted6(t);
    const uint64_t *lo = lows6(t);
    const bool is_wide = t->head.is_wide;
    for (uint32_t i = 0; i < t->v6.nkeys; i += 2) {
        const struct addr first = {.family = ADDR_V6, .v6 = {hi[i], is_wide ? lo[i] : 0}};
        struct addr end = {.family = ADDR_V6};
        if (i + 1 < t->v6.nkeys)
            end = (struct addr){.family = ADDR_V6, .v6 = {hi[i + 1], is_wide ? lo[i + 1] : 0}};
        step(&end, -1);
        visit_range(first, &end, visit);
    }
}

void cidr_set_each(const struct cidr_set *s, void (*fn)(const struct cidr *c, void *arg), void *arg)
{
    const struct visitor visit = {fn, arg};
    if (s->form == FORM_TINY)
        visit_tiny(s, &visit);
    else
        visit_tree(tree_of(s), &visit);
}
