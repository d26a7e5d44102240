#include "policy/cidr_tree_part.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    SLOTS = 1 << 16,     /* one for each value of the first 16 bits */
    SLOT_SIZE = 1 << 16, /* addresses in one */
    LEAF_LINES_MAX = 1 + LINE_KEYS_16,
    BITMAP_BYTES = SLOT_SIZE / 8,
    DIFFS_SPARE = 8, /* room for the next few changes */
};

/* A root entry: a 64-byte aligned pointer, and in its low bits the kind of chunk and whether the slot's
 * last address is in (LAST_IN). For ALIKE all addresses answer as the last one does, and there is no chunk.
 */
enum { ALIKE = 0, LINE = 1, LEAVES = 2, BITMAP = 3, KIND_MASK = 3, LAST_IN = 4, TAG_MASK = LINE_BYTES - 1 };

/* How the count changes from address to address within one slot. A flexible array of `cap` differences is
 * followed by their `cap` places, ascending. */
struct diffs {
    uint32_t n, cap;
    uint32_t chunk_bytes; /* of the chunk that readers see */
    uint32_t fresh_bytes; /* of the one that they are about to see */
    int32_t by[];         /* never 0 */
};

/* One allocation of zeros, which is an empty tree; the kernel backs only the pages that are used. */
struct tree4 {
    _Atomic(uintptr_t) root[SLOTS];
    /* The writer's. */
    struct tree_memory *memory;
    int32_t cover[SLOTS]; /* prefixes of /16 and shorter that cover the slot */
    struct diffs *diffs[SLOTS];
    uintptr_t fresh[SLOTS];     /* root entries that are not published yet */
    uint16_t bounds[SLOT_SIZE]; /* of the chunk that is being built */
};

/* --- readers ------------------------------------------------------------------------------------ */

bool tree4_has(const struct tree4 *t, uint32_t a)
{
    const uintptr_t entry = atomic_load_explicit(&t->root[a >> 16], memory_order_acquire);
    const uint16_t x = (uint16_t)a;
    const unsigned kind = entry & KIND_MASK;
    if (kind == ALIKE || x == UINT16_MAX) return entry & LAST_IN;
    const uint16_t *line = (const uint16_t *)(entry & ~(uintptr_t)TAG_MASK);
    if (kind == LINE) return line_rank16(line, x) & 1;
    if (kind == BITMAP) return line[x / 16] >> x % 16 & 1;
    /* A leaf holds an even number of keys, so those before it do not matter. */
    return line_rank16(line + (1 + line_rank16(line, x)) * LINE_KEYS_16, x) & 1;
}

/* --- chunks ------------------------------------------------------------------------------------- */

static uint16_t *places(struct diffs *d)
{
    return (uint16_t *)(d->by + d->cap);
}

/* Writes the places where the count becomes 0 or ceases to be. Returns how many. (At place 0 nothing ends:
 * a prefix that ends before it belongs to the slot before.) */
static uint32_t find_bounds(struct tree4 *t, uint32_t slot)
{
    struct diffs *d = t->diffs[slot];
    int32_t count = t->cover[slot];
    uint32_t n = 0;
    if (count > 0) t->bounds[n++] = 0;
    for (uint32_t i = 0; d && i < d->n; i++) {
        const bool was_in = count > 0;
        count += d->by[i];
        if ((count > 0) != was_in) t->bounds[n++] = places(d)[i];
    }
    return n;
}

static void fill_line(uint16_t *line, const uint16_t *keys, uint32_t n)
{
    memcpy(line, keys, n * sizeof *line);
    memset(line + n, 0xff, (LINE_KEYS_16 - n) * sizeof *line);
}

static void fill_leaves(uint16_t *line, const uint16_t *keys, uint32_t n, uint32_t nleaves)
{
    for (uint32_t i = 0; i < LINE_KEYS_16; i++)
        line[i] = i + 1 < nleaves ? keys[(i + 1) * LINE_KEYS_16] : UINT16_MAX;
    for (uint32_t i = 0; i < nleaves; i++) {
        const uint32_t left = n - i * LINE_KEYS_16;
        fill_line(line + (i + 1) * LINE_KEYS_16, keys + i * LINE_KEYS_16,
                  left < LINE_KEYS_16 ? left : LINE_KEYS_16);
    }
}

static void fill_bitmap(uint16_t *words, const uint16_t *bounds, uint32_t n)
{
    memset(words, 0, BITMAP_BYTES);
    for (uint32_t i = 0; i < n; i += 2) {
        const uint32_t end = i + 1 < n ? bounds[i + 1] : SLOT_SIZE;
        for (uint32_t x = bounds[i]; x < end; x++)
            words[x / 16] = (uint16_t)(words[x / 16] | 1u << x % 16);
    }
}

/* Builds what readers shall see of a slot into fresh[slot]. False when memory is out. */
static bool make_chunk(struct tree4 *t, uint32_t slot)
{
    const uint32_t n = find_bounds(t, slot);
    const uintptr_t last_in = n & 1 ? LAST_IN : 0;
    if (n == 0 || (n == 1 && t->bounds[0] == 0)) {
        t->fresh[slot] = ALIKE | last_in;
        if (t->diffs[slot]) t->diffs[slot]->fresh_bytes = 0;
        return true;
    }
    const uint32_t nleaves = (n + LINE_KEYS_16 - 1) / LINE_KEYS_16;
    const unsigned kind = nleaves == 1 ? LINE : nleaves <= LEAF_LINES_MAX ? LEAVES : BITMAP;
    const uint32_t bytes = kind == LINE     ? LINE_BYTES
                           : kind == LEAVES ? (1 + nleaves) * LINE_BYTES
                                            : BITMAP_BYTES;
    uint16_t *line = aligned_alloc(LINE_BYTES, bytes);
    if (!line) return false;
    if (kind == LINE)
        fill_line(line, t->bounds, n);
    else if (kind == LEAVES)
        fill_leaves(line, t->bounds, n, nleaves);
    else
        fill_bitmap(line, t->bounds, n);
    t->fresh[slot] = (uintptr_t)line | kind | last_in;
    t->diffs[slot]->fresh_bytes = bytes;
    return true;
}

static void *chunk_of(uintptr_t entry)
{
    return (void *)(entry & ~(uintptr_t)TAG_MASK);
}

static void drop_fresh(struct tree4 *t, uint32_t slot)
{
    free(chunk_of(t->fresh[slot]));
    t->fresh[slot] = 0;
}

/* Shows fresh[slot] to readers and retires what they saw before. */
static void publish_slot(struct tree4 *t, uint32_t slot)
{
    struct diffs *d = t->diffs[slot];
    const uint32_t old_bytes = d ? d->chunk_bytes : 0;
    void *old = chunk_of(atomic_load_explicit(&t->root[slot], memory_order_relaxed));
    atomic_store_explicit(&t->root[slot], t->fresh[slot], memory_order_release);
    t->fresh[slot] = 0;
    if (d) {
        t->memory->reader_bytes += d->fresh_bytes;
        t->memory->reader_bytes -= old_bytes;
        d->chunk_bytes = d->fresh_bytes;
    }
    /* Without memory for its record the chunk is freed on the spot, after a wait: nothing to do here. */
    if (old) (void)epochs_retire(t->memory->epochs, old, old_bytes, free);
}

/* --- differences -------------------------------------------------------------------------------- */

static size_t diffs_bytes(uint32_t cap)
{
    return sizeof(struct diffs) + cap * (sizeof(int32_t) + sizeof(uint16_t));
}

/* Moves a slot's differences to a block of `cap`, or frees it when `cap` is 0. */
static bool diffs_resize(struct tree4 *t, uint32_t slot, uint32_t cap)
{
    struct diffs *old = t->diffs[slot];
    struct diffs *d = NULL;
    if (cap) {
        d = malloc(diffs_bytes(cap));
        if (!d) return false;
        *d = (struct diffs){.cap = cap};
        t->memory->writer_bytes += diffs_bytes(cap);
    }
    if (old && d) {
        d->n = old->n;
        d->chunk_bytes = old->chunk_bytes;
        memcpy(d->by, old->by, old->n * sizeof *d->by);
        memcpy(places(d), places(old), old->n * sizeof(uint16_t));
    }
    if (old) t->memory->writer_bytes -= diffs_bytes(old->cap);
    free(old);
    t->diffs[slot] = d;
    return true;
}

static bool diffs_reserve(struct tree4 *t, uint32_t slot, uint32_t more)
{
    const struct diffs *d = t->diffs[slot];
    if (d && d->cap - d->n >= more) return true;
    return diffs_resize(t, slot, (d ? d->n + d->n / 8 : 0) + more + DIFFS_SPARE - 2);
}

/* Gives memory back after removals; keeping it would do no harm, so failure does not matter. */
static void diffs_trim(struct tree4 *t, uint32_t slot)
{
    const struct diffs *d = t->diffs[slot];
    if (d && d->n == 0)
        (void)diffs_resize(t, slot, 0);
    else if (d && d->cap > 2 * d->n + 2 * DIFFS_SPARE)
        (void)diffs_resize(t, slot, d->n + DIFFS_SPARE);
}

/* Index of the first difference at or after `place`. Gallops from the end, where bulk loads insert. */
static uint32_t diffs_find(struct diffs *d, uint32_t place)
{
    const uint16_t *at = places(d);
    uint32_t step = 1, upper = d->n;
    while (step <= upper && at[upper - step] >= place) {
        upper -= step;
        step *= 2;
    }
    uint32_t lower = step <= upper ? upper - step + 1 : 0;
    while (lower < upper) {
        const uint32_t middle = lower + (upper - lower) / 2;
        if (at[middle] < place)
            lower = middle + 1;
        else
            upper = middle;
    }
    return lower;
}

/* Moves the differences from index `from` on to index `to`. */
static void diffs_shift(struct diffs *d, uint32_t from, uint32_t to)
{
    const uint32_t n = d->n - from;
    if (n) {
        memmove(d->by + to, d->by + from, n * sizeof *d->by);
        memmove(places(d) + to, places(d) + from, n * sizeof *places(d));
    }
    d->n = to + n;
}

/* Adds to the difference at one place. There is room. */
static void diffs_add(struct diffs *d, uint32_t place, int32_t by)
{
    const uint32_t i = diffs_find(d, place);
    if (i < d->n && places(d)[i] == place) {
        d->by[i] += by;
        if (d->by[i] == 0) diffs_shift(d, i + 1, i);
        return;
    }
    diffs_shift(d, i, i + 1);
    d->by[i] = by;
    places(d)[i] = (uint16_t)place;
}

/* Counts a prefix in or out. Prefixes longer than /16 need room for two differences in their slot. */
static void count_prefix(struct tree4 *t, uint32_t first, uint32_t last, int32_t by)
{
    if (last - first >= SLOT_SIZE - 1) {
        for (uint32_t slot = first >> 16; slot <= last >> 16; slot++)
            t->cover[slot] += by;
        return;
    }
    struct diffs *d = t->diffs[first >> 16];
    diffs_add(d, first & 0xffff, by);
    if ((last & 0xffff) != 0xffff) diffs_add(d, (last & 0xffff) + 1, -by);
}

/* Is every address from `first` to `last`, both in this slot, counted at least once? */
static bool is_slot_counted(struct tree4 *t, uint32_t slot, uint32_t first, uint32_t last)
{
    struct diffs *d = t->diffs[slot];
    int32_t count = t->cover[slot];
    uint32_t i = 0;
    for (; d && i < d->n && places(d)[i] <= first; i++)
        count += d->by[i];
    for (; d && count > 0 && i < d->n && places(d)[i] <= last; i++)
        count += d->by[i];
    return count > 0;
}

/* --- changes ------------------------------------------------------------------------------------ */

/* Builds the chunks of all slots that have to change, or none. */
static bool make_slot_chunks(struct tree4 *t, uint32_t first_slot, uint32_t last_slot)
{
    for (uint32_t slot = first_slot; slot <= last_slot; slot++) {
        if (make_chunk(t, slot)) continue;
        while (slot-- > first_slot)
            drop_fresh(t, slot);
        return false;
    }
    return true;
}

enum err tree4_change(struct tree4 *t, uint32_t first, uint32_t last, int32_t by)
{
    const uint32_t first_slot = first >> 16, last_slot = last >> 16;
    for (uint32_t slot = first_slot; by < 0 && slot <= last_slot; slot++)
        if (!is_slot_counted(t, slot, first & 0xffff, last & 0xffff)) return ERR_NOT_FOUND;
    if (last - first < SLOT_SIZE - 1 && !diffs_reserve(t, first_slot, 2)) return ERR_NOMEM;
    count_prefix(t, first, last, by);
    if (!make_slot_chunks(t, first_slot, last_slot)) {
        count_prefix(t, first, last, -by);
        diffs_trim(t, first_slot);
        return ERR_NOMEM;
    }
    for (uint32_t slot = first_slot; slot <= last_slot; slot++)
        publish_slot(t, slot);
    diffs_trim(t, first_slot);
    return ERR_OK;
}

static bool is_used(const struct tree4 *t, uint32_t slot)
{
    return t->cover[slot] != 0 || t->diffs[slot];
}

bool tree4_is_empty(const struct tree4 *t)
{
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        if (is_used(t, slot)) return false;
    return true;
}

static uint32_t slot_of(uint64_t key)
{
    return cidr_key4_first(key) >> 16;
}

/* Counts the prefixes in that start in one slot: v[0..n). */
static bool load_slot(struct tree4 *t, const uint64_t *v, size_t n)
{
    uint32_t ninside = 0;
    for (size_t i = 0; i < n; i++)
        ninside += cidr_key4_len(v[i]) > 16;
    /* Never more places than addresses, however many prefixes. */
    const uint32_t room = ninside < SLOT_SIZE / 2 ? 2 * ninside : SLOT_SIZE;
    if (ninside && !diffs_reserve(t, slot_of(v[0]), room)) return false;
    for (size_t i = 0; i < n; i++)
        count_prefix(t, cidr_key4_first(v[i]), cidr_key4_last(v[i]), 1);
    diffs_trim(t, slot_of(v[0]));
    return true;
}

enum err tree4_load(struct tree4 *t, const uint64_t *v, size_t n)
{
    for (size_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && slot_of(v[end]) == slot_of(v[i]);)
            end++;
        if (!load_slot(t, v + i, end - i)) {
            tree4_load_cancel(t);
            return ERR_NOMEM;
        }
    }
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        if (is_used(t, slot) && !make_chunk(t, slot)) {
            tree4_load_cancel(t);
            return ERR_NOMEM;
        }
    return ERR_OK;
}

void tree4_load_commit(struct tree4 *t)
{
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        if (is_used(t, slot)) publish_slot(t, slot);
}

void tree4_load_cancel(struct tree4 *t)
{
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        if (!is_used(t, slot)) continue;
        drop_fresh(t, slot);
        (void)diffs_resize(t, slot, 0);
        t->cover[slot] = 0;
    }
}

struct tree4 *tree4_create(struct tree_memory *memory)
{
    struct tree4 *t = calloc(1, sizeof *t);
    if (!t) return NULL;
    t->memory = memory;
    memory->reader_bytes += sizeof t->root;
    memory->writer_bytes += sizeof *t - sizeof t->root;
    return t;
}

void tree4_destroy(struct tree4 *t)
{
    if (!t) return;
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        free(chunk_of(atomic_load_explicit(&t->root[slot], memory_order_relaxed)));
        free(t->diffs[slot]);
    }
    free(t);
}
