/* directory.h - partner index -> view for readers; partner id -> index for the writer.
 *
 *   top[4096] --> block of 4096 views --> struct partner_view            readers: two loads, no lock
 *                 block of 4096 entries (mark-and-sweep generation, flags)  writer only, next to it
 *   names: open addressing {hash of the id, index + 1}, linear probing         writer only
 *
 * Blocks never move and are never given back, so an index, once known, needs no protection: readers follow it
 * at any time. An index is used again only after directory_release(), which is called when a grace period is
 * over. An index can exist without a name (policy.c: the last view of a partner that is being replaced).
 *
 * Thread: directory_view [any reader inside a turn, and the writer]; the rest [control, the one writer].
 */
#ifndef POLICY_DIRECTORY_H
#define POLICY_DIRECTORY_H

#include "policy/partner_view.h"

#include <stdatomic.h>

enum {
    DIRECTORY_BLOCK_BITS = 12,
    DIRECTORY_BLOCK = 1 << DIRECTORY_BLOCK_BITS,
    DIRECTORY_BLOCKS_MAX = 4096, /* 16.7 million partners */
    DIRECTORY_SEEN_MAX = (1 << 30) - 1,
};

enum { PARTNER_INDEX_NONE = UINT32_MAX };

/* What the writer notes about an index in use; of a free index, the next free one. */
union directory_entry {
    struct {
        uint32_t seen : 30;     /* the synchronisation in which it was last applied */
        uint32_t is_robbed : 1; /* a token of its view went to another partner since */
        uint32_t is_ghost : 1;  /* has no name; kept until the end of the synchronisation */
    };
    uint32_t next_free;
};

struct directory_block {
    struct partner_view *_Atomic views[DIRECTORY_BLOCK];
    union directory_entry entries[DIRECTORY_BLOCK]; /* writer only */
};

struct directory_name {
    uint32_t hash;
    uint32_t index_plus1; /* 0: empty */
};

struct directory {
    struct directory_block *_Atomic top[DIRECTORY_BLOCKS_MAX];

    /* writer only */
    uint32_t nindices;            /* indices below this have been in use */
    uint32_t first_free;          /* of a list through entries; PARTNER_INDEX_NONE at its end */
    struct directory_name *names; /* owned */
    uint32_t nnames, names_max;   /* in use, and slots */
};

/* Errors: ERR_NOMEM. */
enum err directory_init(struct directory *d);
/* Destroys all views. No reader may be left. */
void directory_deinit(struct directory *d);

/* The view behind an index; NULL when there is none. Any index may be asked for. */
static inline struct partner_view *directory_view(const struct directory *d, uint32_t index)
{
    if (index >> DIRECTORY_BLOCK_BITS >= DIRECTORY_BLOCKS_MAX) return NULL;
    const struct directory_block *b =
        atomic_load_explicit(&d->top[index >> DIRECTORY_BLOCK_BITS], memory_order_acquire);
    return b ? atomic_load_explicit(&b->views[index & (DIRECTORY_BLOCK - 1)], memory_order_acquire) : NULL;
}

/* The index of this id, or PARTNER_INDEX_NONE. */
uint32_t directory_find(const struct directory *d, struct span id);

/* Fetches what directory_find() of this id will look at first. */
void directory_prefetch(const struct directory *d, struct span id);

/* The note about an index that is in use. */
union directory_entry *directory_entry(struct directory *d, uint32_t index);

/* Takes an index that nobody uses. It has no view, no name and an empty note.
 * Errors: ERR_NOMEM, ERR_LIMIT (nothing changed). */
enum err directory_claim(struct directory *d, uint32_t *index);
/* Gives it back. No reader may know it any more. */
void directory_release(struct directory *d, uint32_t index);

/* Makes room, so that the next `n` directory_bind() cannot fail. Errors: ERR_NOMEM (nothing changed). */
enum err directory_reserve(struct directory *d, uint32_t n);
/* Gives an index, whose view is published, the name of its view. Needs directory_reserve() before. */
void directory_bind(struct directory *d, uint32_t index);
/* Takes the name away; the view must still be published. */
void directory_unbind(struct directory *d, uint32_t index);

/* Readers see `v` (or NULL) from now on. Returns what they saw before. */
struct partner_view *directory_publish(struct directory *d, uint32_t index, struct partner_view *v);

/* Bytes of blocks and names. */
size_t directory_bytes(const struct directory *d);

#endif
