#include "policy/cidr_part6.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    LOADED = 96,     /* differences in a part after a bulk load: room for changes */
    JOIN_MAX = 64,   /* neighbours with so few together are joined; far from PART6_MAX: no flapping */
    PARTS_SPARE = 8, /* room for a few more */
    OPEN_MAX = 129,  /* prefixes of different length that can be nested */
};

/* Which chunk? Immutable but for the slots. One allocation. */
struct chunk_map {
    struct stree keys; /* over the high halves of the first addresses of parts 1, 2, ... */
    uint32_t nparts;
    size_t bytes;
    uint64_t *lo;                   /* the low halves */
    _Atomic(struct chunk6 *) *slot; /* nparts */
    _Alignas(LINE_BYTES) uint64_t lines[];
};

struct tree6 {
    _Atomic(struct chunk_map *) map;
    /* The writer's. */
    struct tree_memory *memory;
    struct part6 **parts; /* as many as the map has */
    uint32_t parts_cap;
};

/* --- readers ------------------------------------------------------------------------------------ */

static const uint64_t *map_hi(const struct chunk_map *m)
{
    return m->lines + stree_leaf_line(&m->keys) * LINE_KEYS_64;
}

static uint32_t find_part(const struct chunk_map *m, struct key6 a)
{
    if (m->nparts == 1) return 0;
    return key6_refine(map_hi(m), m->lo, stree_rank64(&m->keys, m->lines, a.hi), a);
}

bool tree6_has(const struct tree6 *t, struct key6 a)
{
    const struct chunk_map *m = atomic_load_explicit(&t->map, memory_order_acquire);
    return chunk6_has(atomic_load_explicit(&m->slot[find_part(m, a)], memory_order_acquire), a);
}

/* --- map ---------------------------------------------------------------------------------------- */

static struct chunk_map *map_of(const struct tree6 *t)
{
    return atomic_load_explicit(&t->map, memory_order_relaxed);
}

static struct chunk_map *map_create(uint32_t nparts)
{
    struct stree keys;
    const size_t nwords = (size_t)stree_plan(&keys, nparts - 1, LINE_KEYS_64) * LINE_KEYS_64;
    const size_t words = nwords * sizeof(uint64_t) + nparts * (sizeof(uint64_t) + sizeof(struct chunk6 *));
    const size_t bytes = (sizeof(struct chunk_map) + words + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES;
    struct chunk_map *m = aligned_alloc(LINE_BYTES, bytes);
    if (!m) return NULL;
    m->keys = keys;
    m->nparts = nparts;
    m->bytes = bytes;
    m->lo = m->lines + nwords;
    m->slot = (_Atomic(struct chunk6 *) *)(m->lo + nparts);
    return m;
}

static struct chunk6 *get_chunk(const struct chunk_map *m, uint32_t i)
{
    return atomic_load_explicit(&m->slot[i], memory_order_relaxed);
}

static void put_chunk(struct tree6 *t, struct chunk_map *m, uint32_t i, struct chunk6 *c)
{
    t->memory->reader_bytes += chunk6_bytes(c);
    atomic_store_explicit(&m->slot[i], c, memory_order_release);
}

static void put_first(struct chunk_map *m, uint32_t i, struct key6 first)
{
    m->lines[stree_leaf_line(&m->keys) * LINE_KEYS_64 + i - 1] = first.hi;
    m->lo[i - 1] = first.lo;
}

/* Takes over `n` parts of an older map, from part `from` there to part `to` here. */
static void copy_parts(struct chunk_map *m, uint32_t to, const struct chunk_map *old, uint32_t from,
                       uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        atomic_store_explicit(&m->slot[to + i], get_chunk(old, from + i), memory_order_relaxed);
    for (uint32_t i = from ? 0 : 1; i < n; i++) /* part 0 has no first address: it begins where all begin */
        put_first(m, to + i, (struct key6){map_hi(old)[from + i - 1], old->lo[from + i - 1]});
}

/* Without memory for its record the object is freed on the spot, after a wait: nothing to do here. */
static void retire_bytes(struct tree6 *t, void *p, size_t bytes)
{
    t->memory->reader_bytes -= bytes;
    (void)epochs_retire(t->memory->epochs, p, bytes, free);
}

static void retire_chunk(struct tree6 *t, struct chunk6 *c)
{
    retire_bytes(t, c, chunk6_bytes(c));
}

/* Readers go to `m` from now on. The old one, and the chunks only it has, are the caller's to retire. */
static void publish_map(struct tree6 *t, struct chunk_map *m)
{
    stree_finish64(&m->keys, m->lines);
    t->memory->reader_bytes += m->bytes;
    atomic_store_explicit(&t->map, m, memory_order_release);
}

/* --- split and join ----------------------------------------------------------------------------- */

static bool reserve_parts(struct tree6 *t, uint32_t n)
{
    if (n <= t->parts_cap) return true;
    const uint32_t cap = n + n / 4 + PARTS_SPARE;
    struct part6 **parts = realloc(t->parts, cap * sizeof *parts);
    if (!parts) return false;
    t->memory->writer_bytes += (cap - t->parts_cap) * sizeof *parts;
    t->parts = parts;
    t->parts_cap = cap;
    return true;
}

/* Cuts a part in two without changing what is in. False when memory is out. */
static bool split_part(struct tree6 *t, uint32_t i)
{
    struct part6 *left = t->parts[i];
    struct chunk_map *old = map_of(t);
    const uint32_t after = old->nparts - i - 1;
    const uint32_t half = left->n / 2;
    struct chunk_map *m = map_create(old->nparts + 1);
    struct part6 *right = part6_create(t->memory, left->n - half + PARTS_SPARE);
    struct chunk6 *left_chunk = part6_chunk(left, 0, half);
    struct chunk6 *right_chunk = part6_chunk(left, half, left->n);
    if (!m || !right || !left_chunk || !right_chunk || !reserve_parts(t, old->nparts + 1)) {
        free(right_chunk);
        free(left_chunk);
        part6_destroy(t->memory, right);
        free(m);
        return false;
    }
    copy_parts(m, 0, old, 0, i + 1);
    copy_parts(m, i + 2, old, i + 1, after);
    put_first(m, i + 1, (struct key6){left->hi[half], left->lo[half]});
    put_chunk(t, m, i, left_chunk);
    put_chunk(t, m, i + 1, right_chunk);

    memmove(t->parts + i + 2, t->parts + i + 1, after * sizeof(struct part6 *));
    t->parts[i + 1] = right;
    right->cover = part6_count(left, half);
    part6_append(right, left, half, left->n);
    left->n = half;

    publish_map(t, m);
    retire_chunk(t, get_chunk(old, i));
    retire_bytes(t, old, old->bytes);
    return true;
}

/* Joins part `i` with the next when both are small. When memory is out they stay two. */
static void join_parts(struct tree6 *t, uint32_t i)
{
    struct chunk_map *old = map_of(t);
    if (i + 1 >= old->nparts || t->parts[i]->n + t->parts[i + 1]->n > JOIN_MAX) return;
    struct part6 *left = t->parts[i], *right = t->parts[i + 1];
    const uint32_t after = old->nparts - i - 2;
    struct chunk_map *m = map_create(old->nparts - 1);
    struct part6 *both = part6_create(t->memory, left->n + right->n + PARTS_SPARE);
    struct chunk6 *chunk = NULL;
    if (both) {
        both->cover = left->cover;
        part6_append(both, left, 0, left->n);
        part6_append(both, right, 0, right->n);
        chunk = part6_chunk(both, 0, both->n);
    }
    if (!m || !chunk) {
        part6_destroy(t->memory, both);
        free(m);
        return;
    }
    copy_parts(m, 0, old, 0, i + 1);
    copy_parts(m, i + 1, old, i + 2, after);
    put_chunk(t, m, i, chunk);

    t->parts[i] = both;
    memmove(t->parts + i + 1, t->parts + i + 2, after * sizeof(struct part6 *));
    part6_destroy(t->memory, left);
    part6_destroy(t->memory, right);

    publish_map(t, m);
    retire_chunk(t, get_chunk(old, i));
    retire_chunk(t, get_chunk(old, i + 1));
    retire_bytes(t, old, old->bytes);
}

/* --- changes ------------------------------------------------------------------------------------ */

static bool is_before(struct key6 a, struct key6 b)
{
    return a.hi < b.hi || (a.hi == b.hi && a.lo < b.lo);
}

/* The address after `a`. False when there is none. */
static bool next_address(struct key6 a, struct key6 *next)
{
    *next = (struct key6){a.hi + (a.lo == UINT64_MAX), a.lo + 1};
    return next->hi != 0 || next->lo != 0;
}

/* Is every address from `first` to `last` counted at least once? */
static bool is_counted(const struct tree6 *t, struct key6 first, struct key6 last)
{
    const struct chunk_map *m = map_of(t);
    const uint32_t from = find_part(m, first);
    int32_t count = t->parts[from]->cover;
    for (uint32_t i = from; i < m->nparts; i++) {
        const struct part6 *p = t->parts[i];
        for (uint32_t k = 0; k < p->n; k++) {
            const struct key6 place = {p->hi[k], p->lo[k]};
            if (is_before(last, place)) return count > 0;
            if (is_before(first, place) && count <= 0) return false;
            count += p->by[k];
        }
    }
    return count > 0;
}

/* Sees to it that the part of `a` has room for two more differences. */
static bool make_room(struct tree6 *t, struct key6 a)
{
    const uint32_t i = find_part(map_of(t), a);
    if (t->parts[i]->n + 2 > PART6_MAX) return split_part(t, i);
    return part6_reserve(t->memory, t->parts[i], 2);
}

/* A prefix, where it falls: parts [from, to]. */
struct reach {
    struct key6 first, end; /* `end` is the address after the last */
    bool has_end;
    uint32_t from, to;
};

static void reach_count(struct tree6 *t, const struct reach *r, int32_t by)
{
    part6_add(t->parts[r->from], r->first, by);
    for (uint32_t i = r->from + 1; i <= r->to; i++)
        t->parts[i]->cover += by;
    if (r->has_end) part6_add(t->parts[r->to], r->end, -by);
}

static bool reach_make_chunks(struct tree6 *t, const struct reach *r)
{
    for (uint32_t i = r->from; i <= r->to; i++) {
        struct part6 *p = t->parts[i];
        p->fresh = part6_chunk(p, 0, p->n);
        if (p->fresh) continue;
        while (i-- > r->from) {
            free(t->parts[i]->fresh);
            t->parts[i]->fresh = NULL;
        }
        return false;
    }
    return true;
}

static void reach_publish(struct tree6 *t, const struct reach *r)
{
    struct chunk_map *m = map_of(t);
    for (uint32_t i = r->from; i <= r->to; i++) {
        struct chunk6 *old = get_chunk(m, i);
        put_chunk(t, m, i, t->parts[i]->fresh);
        t->parts[i]->fresh = NULL;
        retire_chunk(t, old);
    }
}

static void join_around(struct tree6 *t, uint32_t i)
{
    join_parts(t, i);
    if (i > 0) join_parts(t, i - 1);
}

enum err tree6_change(struct tree6 *t, struct key6 first, struct key6 last, int32_t by)
{
    struct reach r = {.first = first};
    r.has_end = next_address(last, &r.end);
    if (by < 0 && !is_counted(t, first, last)) return ERR_NOT_FOUND;
    if (!make_room(t, first) || (r.has_end && !make_room(t, r.end))) return ERR_NOMEM;
    const struct chunk_map *m = map_of(t);
    r.from = find_part(m, first);
    r.to = r.has_end ? find_part(m, r.end) : m->nparts - 1;
    reach_count(t, &r, by);
    if (!reach_make_chunks(t, &r)) {
        reach_count(t, &r, -by);
        return ERR_NOMEM;
    }
    reach_publish(t, &r);
    if (by < 0) {
        join_around(t, r.to);
        join_around(t, r.from);
    }
    return ERR_OK;
}

bool tree6_is_empty(const struct tree6 *t)
{
    for (uint32_t i = 0; i < map_of(t)->nparts; i++)
        if (t->parts[i]->n > 0) return false;
    return true;
}

/* --- bulk load ---------------------------------------------------------------------------------- */

struct loaded {
    struct part6 *part;
    struct key6 first;
};

/* The parts of a load, filled from left to right. */
struct load {
    struct tree_memory *memory;
    struct loaded *v;
    uint32_t n, cap;
    struct {
        struct key6 last;
        int32_t count;
    } open[OPEN_MAX]; /* prefixes that the sweep is inside of, the innermost on top */
    uint32_t nopen;
};

static bool add_part(struct load *l, struct key6 first)
{
    if (l->n == l->cap) {
        const uint32_t cap = l->cap ? 2 * l->cap : 64;
        struct loaded *v = realloc(l->v, cap * sizeof *v);
        if (!v) return false;
        l->v = v;
        l->cap = cap;
    }
    struct part6 *p = part6_create(l->memory, LOADED);
    if (!p) return false;
    if (l->n) p->cover = part6_count(l->v[l->n - 1].part, l->v[l->n - 1].part->n);
    l->v[l->n++] = (struct loaded){.part = p, .first = first};
    return true;
}

static bool push(struct load *l, struct key6 a, int32_t by)
{
    const struct part6 *p = l->v[l->n - 1].part;
    const bool is_same = p->n && p->hi[p->n - 1] == a.hi && p->lo[p->n - 1] == a.lo;
    if (p->n >= LOADED && !is_same && !add_part(l, a)) return false;
    part6_push(l->v[l->n - 1].part, a, by);
    return true;
}

/* Leaves all prefixes that end before `a`, or just all. */
static bool close_before(struct load *l, const struct key6 *a)
{
    struct key6 end;
    while (l->nopen && (!a || is_before(l->open[l->nopen - 1].last, *a))) {
        l->nopen--;
        if (next_address(l->open[l->nopen].last, &end) && !push(l, end, -l->open[l->nopen].count))
            return false;
    }
    return true;
}

/* Prefixes are nested or apart, so a stack of those that are open yields all ends in order. */
static bool sweep(struct load *l, const struct cidr_key6 *v, size_t n)
{
    if (!add_part(l, (struct key6){0, 0})) return false;
    for (size_t i = 0; i < n; i++) {
        const struct key6 first = {v[i].hi, v[i].lo};
        const struct key6 last = cidr_key6_last(&v[i]);
        if (!close_before(l, &first) || !push(l, first, 1)) return false;
        const bool is_open =
            l->nopen && l->open[l->nopen - 1].last.hi == last.hi && l->open[l->nopen - 1].last.lo == last.lo;
        if (!is_open) {
            l->open[l->nopen].last = last;
            l->open[l->nopen++].count = 0;
        }
        l->open[l->nopen - 1].count++;
    }
    return close_before(l, NULL);
}

/* Swaps the parts in. Everything is allocated. */
static void take_over(struct tree6 *t, const struct load *l, struct chunk_map *m)
{
    struct chunk_map *old = map_of(t);
    for (uint32_t i = 0; i < old->nparts; i++)
        part6_destroy(t->memory, t->parts[i]);

    for (uint32_t i = 0; i < l->n; i++) {
        struct part6 *p = l->v[i].part;
        if (i) put_first(m, i, l->v[i].first);
        put_chunk(t, m, i, p->fresh);
        p->fresh = NULL;
        t->parts[i] = p;
    }
    publish_map(t, m);
    for (uint32_t i = 0; i < old->nparts; i++)
        retire_chunk(t, get_chunk(old, i));
    retire_bytes(t, old, old->bytes);
}

enum err tree6_load(struct tree6 *t, const struct cidr_key6 *v, size_t n)
{
    struct load l = {.memory = t->memory};
    struct chunk_map *m = NULL;
    bool is_done = sweep(&l, v, n) && reserve_parts(t, l.n);
    for (uint32_t i = 0; is_done && i < l.n; i++) {
        l.v[i].part->fresh = part6_chunk(l.v[i].part, 0, l.v[i].part->n);
        is_done = l.v[i].part->fresh != NULL;
    }
    if (is_done) m = map_create(l.n);
    if (m)
        take_over(t, &l, m);
    else
        for (uint32_t i = 0; i < l.n; i++)
            part6_destroy(t->memory, l.v[i].part);
    free(l.v);
    return m ? ERR_OK : ERR_NOMEM;
}

/* --- life --------------------------------------------------------------------------------------- */

struct tree6 *tree6_create(struct tree_memory *memory)
{
    struct tree6 *t = calloc(1, sizeof *t);
    if (!t) return NULL;
    t->memory = memory;
    struct chunk_map *m = map_create(1);
    struct part6 *p = part6_create(memory, PARTS_SPARE);
    struct chunk6 *c = p ? part6_chunk(p, 0, 0) : NULL;
    if (!m || !c || !reserve_parts(t, 1)) {
        free(c);
        part6_destroy(memory, p);
        free(m);
        free(t);
        return NULL;
    }
    t->parts[0] = p;
    put_chunk(t, m, 0, c);
    publish_map(t, m);
    return t;
}

void tree6_destroy(struct tree6 *t)
{
    if (!t) return;
    struct chunk_map *m = map_of(t);
    for (uint32_t i = 0; i < m->nparts; i++) {
        free(get_chunk(m, i));
        part6_destroy(t->memory, t->parts[i]);
    }
    free(m);
    free(t->parts);
    free(t);
}
