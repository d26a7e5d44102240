#include "policy/cidr_set.h"

#include "policy/cidr_stree.h"

#include <stdlib.h>

enum { FORM_SMALL, FORM_LARGE };

enum {
    ON_STACK = 2 * CIDR_SET_SMALL_MAX, /* longer inputs are sorted in heap memory */
    CIDRS_MAX = STREE_KEYS_MAX / 2,    /* each has two boundaries */
};

struct entry4 {
    uint32_t net, mask;
};

/* Line 0 serves IPv4, line 1 IPv6 and the writer, then the lines of both trees. */
struct tree {
    struct cidr_set head;
    uint32_t bytes; /* of the whole object */
    struct stree v4;
    uint32_t line6; /* number of the first line of the IPv6 tree, counted from `lines` */
    uint32_t low6;  /* number of the first line of the low halves */
    _Alignas(LINE_BYTES) struct stree v6;
    uint32_t count; /* prefixes */
    uint64_t hash;  /* of `lines` */
    _Alignas(LINE_BYTES) unsigned char lines[];
};
_Static_assert(sizeof(struct tree) == 2 * LINE_BYTES, "the heads of both trees are one cache line each");
_Static_assert(CIDR_SET_SMALL_BYTES_MAX ==
                   sizeof(struct cidr_set) +
                       CIDR_SET_SMALL_MAX * (sizeof(struct entry4) + sizeof(struct key6) + 1),
               "room for the largest small set");

/* --- look-up ------------------------------------------------------------------------------------ */

static const struct entry4 *small_v4(const struct cidr_set *s)
{
    return (const struct entry4 *)(s + 1);
}

/* Not aligned: the head is only as long as it must be. */
static const unsigned char *small_v6(const struct cidr_set *s)
{
    return (const unsigned char *)(small_v4(s) + s->n4);
}

static struct key6 small_net6(const struct cidr_set *s, unsigned i)
{
    struct key6 net;
    memcpy(&net, small_v6(s) + i * sizeof net, sizeof net);
    return net;
}

static const uint8_t *small_len6(const struct cidr_set *s)
{
    return small_v6(s) + s->n6 * sizeof(struct key6);
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

static bool small_has4(const struct cidr_set *s, uint32_t a)
{
    const struct entry4 *e = small_v4(s);
    unsigned found = 0;
    for (unsigned i = 0; i < s->n4; i++)
        found |= ((a ^ e[i].net) & e[i].mask) == 0;
    return found;
}

/* Every entry is looked at: a branch for each, mispredicted once, would cost more than eight of them. */
static bool small_has6(const struct cidr_set *s, struct key6 a)
{
    const uint8_t *len = small_len6(s);
    unsigned found = 0;
    for (unsigned i = 0; i < s->n6; i++) {
        /* The bits of both halves that count; no shift reaches 64, which would be undefined. */
        const uint64_t hi = len[i] >= 64 ? UINT64_MAX : ~(UINT64_MAX >> len[i]);
        const uint64_t lo = len[i] <= 64 ? 0 : ~(UINT64_MAX >> 1 >> (len[i] - 65));
        const struct key6 net = small_net6(s, i);
        found |= (((a.hi ^ net.hi) & hi) | ((a.lo ^ net.lo) & lo)) == 0;
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
        if (s->form == FORM_SMALL) return small_has4(s, a->v4);
        return stree_rank32(&tree_of(s)->v4, lines4(tree_of(s)), line_key32(a->v4)) & 1;
    }
    if (a->family == ADDR_V6) {
        const struct key6 key = {a->v6.hi, a->v6.lo};
        return s->form == FORM_SMALL ? small_has6(s, key) : tree_has6(tree_of(s), key);
    }
    return false;
}

/* --- what it is ----------------------------------------------------------------------------------- */

bool cidr_set_is_large(const struct cidr_set *s)
{
    return s->form == FORM_LARGE;
}

size_t cidr_set_bytes(const struct cidr_set *s)
{
    if (s->form == FORM_LARGE) return tree_of(s)->bytes;
    return sizeof *s + s->n4 * sizeof(struct entry4) + s->n6 * (sizeof(struct key6) + 1);
}

uint32_t cidr_set_count(const struct cidr_set *s)
{
    return s->form == FORM_LARGE ? tree_of(s)->count : (uint32_t)s->n4 + s->n6;
}

uint64_t cidr_set_hash(const struct cidr_set *s)
{
    return tree_of(s)->hash;
}

bool cidr_set_equal(const struct cidr_set *a, const struct cidr_set *b)
{
    return tree_of(a)->bytes == tree_of(b)->bytes && memcmp(a, b, tree_of(a)->bytes) == 0;
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

static struct cidr_set *build_small(const struct cidr *v, uint32_t n4, uint32_t n6, void *room)
{
    struct cidr_set *s = room;
    *s = (struct cidr_set){.form = FORM_SMALL, .n4 = (uint8_t)n4, .n6 = (uint8_t)n6};
    struct entry4 *e = (struct entry4 *)(s + 1);
    for (uint32_t i = 0; i < n4; i++)
        e[i] = (struct entry4){v[i].net.v4, ~(v[i].net.v4 ^ cidr_last(&v[i]).v4)};
    unsigned char *at = (unsigned char *)(e + n4);
    for (uint32_t i = 0; i < n6; i++) {
        const struct key6 net = {v[n4 + i].net.v6.hi, v[n4 + i].net.v6.lo};
        memcpy(at + i * sizeof net, &net, sizeof net);
        at[n6 * sizeof net + i] = v[n4 + i].len;
    }
    return s;
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

static uint64_t hash_words(const unsigned char *p, size_t n)
{
    uint64_t h = n, word;
    for (size_t i = 0; i < n; i += sizeof word) {
        memcpy(&word, p + i, sizeof word);
        h = (h ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        h ^= h >> 32;
    }
    return h;
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
    memset(t, 0, bytes); /* equal sets are equal byte for byte */
    t->head = (struct cidr_set){.form = FORM_LARGE, .is_wide = is_wide};
    t->bytes = (uint32_t)bytes;
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
    t->hash = hash_words(t->lines, (size_t)nlines * LINE_BYTES);
    return t;
}

static enum err build_large(const struct cidr *v, uint32_t n4, uint32_t n6, struct cidr_set **out)
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
            t->count = n4 + n6;
            *out = &t->head;
            e = ERR_OK;
        }
    }
    free(at6);
    free(at4);
    return e;
}

enum err cidr_set_build(const struct cidr *cidrs, uint32_t n, void *room, struct cidr_set **out)
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
    enum err e = ERR_OK;
    if (n4 <= CIDR_SET_SMALL_MAX && n6 <= CIDR_SET_SMALL_MAX)
        *out = build_small(v, n4, n6, room);
    else
        e = build_large(v, n4, n6, out);
    if (v != stack) free(v);
    return e;
}

void cidr_set_destroy(struct cidr_set *s)
{
    if (s && s->form == FORM_LARGE) free(s);
}

/* --- walk --------------------------------------------------------------------------------------- */

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

/* Takes the largest prefix that starts where the range does and ends inside. */
static struct cidr cut_off(struct cidr_walk *w)
{
    const unsigned bits = w->first.family == ADDR_V4 ? 32 : 128;
    struct cidr c = {.net = w->first, .len = (uint8_t)(bits - trailing_zeros(&w->first))};
    struct addr end = cidr_last(&c);
    while (is_after(&end, &w->last)) {
        c.len++;
        end = cidr_last(&c);
    }
    w->is_inside = !addr_eq(&end, &w->last);
    w->first = end;
    step(&w->first, 1);
    return c;
}

static bool next_small(struct cidr_walk *w, struct cidr *out)
{
    const struct cidr_set *s = w->set;
    const unsigned i = w->at++;
    if (i < s->n4) {
        const struct entry4 *e = &small_v4(s)[i];
        *out = (struct cidr){.net = {.family = ADDR_V4, .v4 = e->net},
                             .len = (uint8_t)(e->mask ? 32 - __builtin_ctz(e->mask) : 0)};
        return true;
    }
    if (i >= (unsigned)s->n4 + s->n6) return false;
    const struct key6 net = small_net6(s, i - s->n4);
    *out = (struct cidr){.net = {.family = ADDR_V6, .v6 = {net.hi, net.lo}}, .len = small_len6(s)[i - s->n4]};
    return true;
}

static struct addr bound4(const struct tree *t, uint32_t i)
{
    return (struct addr){.family = ADDR_V4, .v4 = i < t->v4.nkeys ? line_value32(sorted4(t)[i]) : 0};
}

static struct addr bound6(const struct tree *t, uint32_t i)
{
    if (i >= t->v6.nkeys) return (struct addr){.family = ADDR_V6};
    return (struct addr){.family = ADDR_V6, .v6 = {sorted6(t)[i], t->head.is_wide ? lows6(t)[i] : 0}};
}

/* Goes to the next range: from one boundary to before the next, or to the end of the address space. */
static bool next_range(struct cidr_walk *w)
{
    const struct tree *t = tree_of(w->set);
    const uint32_t from6 = t->v4.nkeys + (t->v4.nkeys & 1); /* a last range without an end counts as two */
    if (w->at < t->v4.nkeys) {
        w->first = bound4(t, w->at);
        w->last = bound4(t, w->at + 1);
    } else if (w->at - from6 < t->v6.nkeys) {
        w->first = bound6(t, w->at - from6);
        w->last = bound6(t, w->at - from6 + 1);
    } else {
        return false;
    }
    w->at += 2;
    step(&w->last, -1);
    return true;
}

struct cidr_walk cidr_walk_of(const struct cidr_set *s)
{
    return (struct cidr_walk){.set = s};
}

bool cidr_walk_next(struct cidr_walk *w, struct cidr *out)
{
    if (w->set->form == FORM_SMALL) return next_small(w, out);
    if (!w->is_inside && !next_range(w)) return false;
    *out = cut_off(w);
    return true;
}
