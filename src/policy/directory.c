#include "policy/directory.h"

#include "policy/pages.h"

#include <stdlib.h>
#include <string.h>

enum { NAMES_MIN = 64 };

static struct directory_block *block_of(const struct directory *d, uint32_t index)
{
    return atomic_load_explicit(&d->top[index >> DIRECTORY_BLOCK_BITS], memory_order_relaxed);
}

enum err directory_init(struct directory *d)
{
    for (size_t i = 0; i < DIRECTORY_BLOCKS_MAX; i++)
        atomic_init(&d->top[i], NULL);
    d->nindices = 0;
    d->first_free = PARTNER_INDEX_NONE;
    d->nnames = 0;
    d->names_max = NAMES_MIN;
    d->names = pages_alloc(NAMES_MIN * sizeof(*d->names));
    return d->names ? ERR_OK : ERR_NOMEM;
}

void directory_deinit(struct directory *d)
{
    for (uint32_t i = 0; i < d->nindices; i++)
        partner_view_destroy(directory_view(d, i));
    for (size_t i = 0; i < DIRECTORY_BLOCKS_MAX; i++)
        free(atomic_load_explicit(&d->top[i], memory_order_relaxed));
    free(d->names);
    d->names = NULL;
}

union directory_entry *directory_entry(struct directory *d, uint32_t index)
{
    return &block_of(d, index)->entries[index & (DIRECTORY_BLOCK - 1)];
}

enum err directory_claim(struct directory *d, uint32_t *index)
{
    if (d->first_free != PARTNER_INDEX_NONE) {
        *index = d->first_free;
        d->first_free = directory_entry(d, *index)->next_free;
    } else {
        uint32_t at = d->nindices >> DIRECTORY_BLOCK_BITS;
        if (at == DIRECTORY_BLOCKS_MAX) return ERR_LIMIT;
        if (!block_of(d, d->nindices)) {
            struct directory_block *b = calloc(1, sizeof(*b));
            if (!b) return ERR_NOMEM;
            atomic_store_explicit(&d->top[at], b, memory_order_release);
        }
        *index = d->nindices++;
    }
    *directory_entry(d, *index) = (union directory_entry){0};
    return ERR_OK;
}

void directory_release(struct directory *d, uint32_t index)
{
    directory_entry(d, index)->next_free = d->first_free;
    d->first_free = index;
}

struct partner_view *directory_publish(struct directory *d, uint32_t index, struct partner_view *v)
{
    struct partner_view *_Atomic *slot = &block_of(d, index)->views[index & (DIRECTORY_BLOCK - 1)];
    struct partner_view *old = atomic_load_explicit(slot, memory_order_relaxed);
    atomic_store_explicit(slot, v, memory_order_release);
    return old;
}

/* --- names ------------------------------------------------------------------------------------------- */

static uint64_t hash_add(uint64_t h, uint64_t word)
{
    h = (h ^ word) * 0x9e3779b97f4a7c15ULL;
    return h ^ h >> 32;
}

/* Eight bytes at a time, the last eight of them perhaps for the second time; each step keeps different words
 * apart. Ids are chosen by the operator: no flooding to fear. */
static uint32_t name_hash(struct span id)
{
    uint64_t h = id.n, word = 0;
    for (size_t i = 0; i + sizeof word < id.n; i += sizeof word) {
        memcpy(&word, id.p + i, sizeof word);
        h = hash_add(h, word);
    }
    if (id.n >= sizeof word)
        memcpy(&word, id.p + id.n - sizeof word, sizeof word);
    else
        memcpy(&word, id.p, id.n);
    return (uint32_t)(hash_add(h, word) * 0x9e3779b97f4a7c15ULL >> 32);
}

/* No power of two of slots: a table can be as large as it has to be. */
static uint32_t name_home(uint32_t hash, uint32_t names_max)
{
    return (uint32_t)((uint64_t)hash * names_max >> 32);
}

static uint32_t name_after(uint32_t at, uint32_t names_max)
{
    return at + 1 == names_max ? 0 : at + 1;
}

/* How far a slot is behind another. */
static uint32_t name_distance(uint32_t from, uint32_t to, uint32_t names_max)
{
    return to >= from ? to - from : to + names_max - from;
}

/* The slot that holds this name, or the empty one where it would go. */
static uint32_t name_slot(const struct directory *d, struct span id, uint32_t hash)
{
    for (uint32_t at = name_home(hash, d->names_max);; at = name_after(at, d->names_max)) {
        const struct directory_name *n = &d->names[at];
        if (n->index_plus1 == 0) return at;
        if (n->hash == hash && span_eq(partner_view_id(directory_view(d, n->index_plus1 - 1)), id)) return at;
    }
}

uint32_t directory_find(const struct directory *d, struct span id)
{
    return d->names[name_slot(d, id, name_hash(id))].index_plus1 - 1; /* 0 - 1: PARTNER_INDEX_NONE */
}

void directory_prefetch(const struct directory *d, struct span id)
{
    __builtin_prefetch(&d->names[name_home(name_hash(id), d->names_max)]);
}

enum err directory_reserve(struct directory *d, uint32_t n)
{
    /* At most three quarters of the slots in use; then half of the names more than there are, at least. */
    if (((uint64_t)d->nnames + n) * 4 <= (uint64_t)d->names_max * 3) return ERR_OK;
    uint64_t most = (uint64_t)d->nnames + (n > d->nnames / 2 ? n : d->nnames / 2);
    if (most > PARTNER_INDEX_NONE / 2) return ERR_NOMEM;
    uint32_t names_max = (uint32_t)(most * 4 / 3 + NAMES_MIN);
    struct directory_name *names = pages_alloc((size_t)names_max * sizeof(*names));
    if (!names) return ERR_NOMEM;
    for (uint32_t i = 0; i < d->names_max; i++) {
        if (d->names[i].index_plus1 == 0) continue;
        uint32_t at = name_home(d->names[i].hash, names_max);
        while (names[at].index_plus1 != 0)
            at = name_after(at, names_max);
        names[at] = d->names[i];
    }
    free(d->names);
    d->names = names;
    d->names_max = names_max;
    return ERR_OK;
}

void directory_bind(struct directory *d, uint32_t index)
{
    struct span id = partner_view_id(directory_view(d, index));
    uint32_t hash = name_hash(id);
    d->names[name_slot(d, id, hash)] = (struct directory_name){.hash = hash, .index_plus1 = index + 1};
    d->nnames++;
}

void directory_unbind(struct directory *d, uint32_t index)
{
    struct span id = partner_view_id(directory_view(d, index));
    uint32_t max = d->names_max;
    uint32_t hole = name_slot(d, id, name_hash(id));
    BUG_IF(d->names[hole].index_plus1 != index + 1, "a partner without its name");

    /* Later names of the run move up where they may, so that no search ends too early at the hole. */
    for (uint32_t at = name_after(hole, max); d->names[at].index_plus1 != 0; at = name_after(at, max)) {
        uint32_t home = name_home(d->names[at].hash, max);
        if (name_distance(home, at, max) < name_distance(hole, at, max)) continue;
        d->names[hole] = d->names[at];
        hole = at;
    }
    d->names[hole] = (struct directory_name){0};
    d->nnames--;
}

size_t directory_bytes(const struct directory *d)
{
    size_t nblocks = ((size_t)d->nindices + DIRECTORY_BLOCK - 1) >> DIRECTORY_BLOCK_BITS;
    return nblocks * sizeof(struct directory_block) + (size_t)d->names_max * sizeof(*d->names);
}
