/* arena.h - memory of one exchange: bump allocation, freed all at once.
 *
 * Blocks come from the owner's pool of equal blocks (so a busy worker never calls malloc for a request)
 * and go back to it on reset. An allocation larger than a block gets a block of its own from malloc.
 * The total per arena is bounded.
 *
 * Thread: [worker] an arena and its pool belong to one thread.
 */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include <stddef.h>
#include <stdint.h>

enum { ARENA_BLOCK_BYTES = 4096 }; /* one pooled block, header included */

struct arena_block;

/* Free blocks of one worker. */
struct arena_pool {
    struct arena_block *free; /* singly linked */
    uint32_t nfree;           /* blocks in `free` */
    uint32_t nfree_max;       /* more than this go back to malloc */
};

struct arena {
    struct arena_pool *pool;
    struct arena_block *blocks; /* newest first; owned */
    char *at, *end;             /* free room of the newest pooled block */
    size_t total;               /* bytes of all blocks */
    size_t total_max;
};

/* `nfree_max`: blocks that are kept for the next arena instead of being freed. */
void arena_pool_init(struct arena_pool *pool, uint32_t nfree_max);

/* Frees the blocks that were kept. No arena of the pool may have any. */
void arena_pool_deinit(struct arena_pool *pool);

/* Empty, without memory. `total_max`: bytes of all its blocks together; more is refused. */
void arena_init(struct arena *a, struct arena_pool *pool, size_t total_max);

/* `n` bytes aligned to 8, uninitialised; NULL when the bound is met or memory is out.
 * Owns: the arena; valid until arena_reset(). */
void *arena_alloc(struct arena *a, size_t n);

/* A copy of `n` bytes and a NUL after them; NULL as arena_alloc(). */
char *arena_dup(struct arena *a, const char *p, size_t n);

/* Gives every block back. The arena can be used again. */
void arena_reset(struct arena *a);

#endif
