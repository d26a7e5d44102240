#include "store/blocks.h"

#include "base/err.h"

#include <sys/mman.h>

enum { BLOCK_BYTES = 1 << 20, ALIGNMENT = 8 };

struct block {
    struct block *next;
    size_t n, cap; /* bytes used, bytes of the mapping */
    char bytes[];
};

void *blocks_map(size_t n)
{
    void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

void blocks_unmap(void *p, size_t n)
{
    if (p) BUG_IF(munmap(p, n), "a mapping of our own cannot be unmapped");
}

static size_t rounded(size_t n)
{
    return (n + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
}

char *blocks_add(struct blocks *b, size_t n)
{
    n = rounded(n);
    if (!b->last || b->last->cap - sizeof *b->last - b->last->n < n) {
        size_t cap = sizeof *b->last + n;
        if (cap < BLOCK_BYTES) cap = BLOCK_BYTES;
        struct block *fresh = blocks_map(cap);
        if (!fresh) return NULL;
        fresh->cap = cap;
        if (b->last)
            b->last->next = fresh;
        else
            b->first = fresh;
        b->last = fresh;
    }
    char *at = b->last->bytes + b->last->n;
    b->last->n += n;
    return at;
}

static void drop_first(struct blocks *b)
{
    struct block *first = b->first;
    b->first = first->next;
    if (!b->first) b->last = NULL;
    blocks_unmap(first, first->cap);
}

char *blocks_front(struct blocks *b, size_t *at)
{
    while (b->first && *at == b->first->n) {
        drop_first(b);
        *at = 0;
    }
    return b->first ? b->first->bytes + *at : NULL;
}

void blocks_skip(size_t *at, size_t n)
{
    *at += rounded(n);
}

const char *blocks_peek(const struct blocks *b, size_t at)
{
    return b->first && at < b->first->n ? b->first->bytes + at : NULL;
}

void blocks_drop_before(struct blocks *b, const char *p)
{
    while (b->first && (p < b->first->bytes || p >= b->first->bytes + b->first->n))
        drop_first(b);
}

void blocks_deinit(struct blocks *b)
{
    while (b->first)
        drop_first(b);
}
