#include "base/arena.h"

#include <stdlib.h>
#include <string.h>

/* Under AddressSanitizer the bytes of a block that lies in the pool are poisoned, so a pointer kept from a
 * finished exchange is found although the memory was never given back to malloc. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_ASAN 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define ARENA_ASAN 1
#endif

#ifdef ARENA_ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n)   ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

struct arena_block {
    struct arena_block *next;
    size_t size;               /* bytes, this header included */
    _Alignas(16) char bytes[]; /* what the owner of the arena gets */
};

enum { PAYLOAD_BYTES = ARENA_BLOCK_BYTES - sizeof(struct arena_block), ALIGNMENT = 8 };

void arena_pool_init(struct arena_pool *pool, uint32_t nfree_max)
{
    *pool = (struct arena_pool){.nfree_max = nfree_max};
}

void arena_pool_deinit(struct arena_pool *pool)
{
    while (pool->free) {
        struct arena_block *block = pool->free;
        pool->free = block->next;
        free(block);
    }
    pool->nfree = 0;
}

static struct arena_block *pool_take(struct arena_pool *pool)
{
    struct arena_block *block = pool->free;
    if (!block) {
        block = malloc(ARENA_BLOCK_BYTES);
        if (block) block->size = ARENA_BLOCK_BYTES;
        return block;
    }
    pool->free = block->next;
    pool->nfree--;
    ASAN_UNPOISON_MEMORY_REGION(block->bytes, PAYLOAD_BYTES);
    return block;
}

static void pool_put(struct arena_pool *pool, struct arena_block *block)
{
    if (block->size != ARENA_BLOCK_BYTES || pool->nfree >= pool->nfree_max) {
        free(block);
        return;
    }
    ASAN_POISON_MEMORY_REGION(block->bytes, PAYLOAD_BYTES);
    block->next = pool->free;
    pool->free = block;
    pool->nfree++;
}

void arena_init(struct arena *a, struct arena_pool *pool, size_t total_max)
{
    *a = (struct arena){.pool = pool, .total_max = total_max};
}

static void block_own(struct arena *a, struct arena_block *block)
{
    block->next = a->blocks;
    a->blocks = block;
    a->total += block->size;
}

/* A block for this one allocation; the room of the newest pooled block stays in use. */
static void *large_alloc(struct arena *a, size_t n)
{
    size_t left = a->total_max - a->total;
    if (left < sizeof(struct arena_block) || n > left - sizeof(struct arena_block)) return NULL;
    struct arena_block *block = malloc(sizeof *block + n);
    if (!block) return NULL;
    block->size = sizeof *block + n;
    block_own(a, block);
    return block->bytes;
}

void *arena_alloc(struct arena *a, size_t n)
{
    if (n > PAYLOAD_BYTES) return large_alloc(a, n);
    n = n ? (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT : ALIGNMENT;
    if ((size_t)(a->end - a->at) < n) {
        if (a->total_max - a->total < ARENA_BLOCK_BYTES) return NULL;
        struct arena_block *block = pool_take(a->pool);
        if (!block) return NULL;
        block_own(a, block);
        a->at = block->bytes;
        a->end = (char *)block + ARENA_BLOCK_BYTES;
    }
    void *p = a->at;
    a->at += n;
    return p;
}

char *arena_dup(struct arena *a, const char *p, size_t n)
{
    if (n == SIZE_MAX) return NULL;
    char *copy = arena_alloc(a, n + 1);
    if (!copy) return NULL;
    if (n) memcpy(copy, p, n);
    copy[n] = '\0';
    return copy;
}

void arena_reset(struct arena *a)
{
    while (a->blocks) {
        struct arena_block *block = a->blocks;
        a->blocks = block->next;
        pool_put(a->pool, block);
    }
    a->at = a->end = NULL;
    a->total = 0;
}
