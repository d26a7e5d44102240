/* blocks.h - memory for millions of small records, in pieces that go back to the system one by one.
 *
 *   first -> [ record record record ... ] -> [ record ... ] -> last
 *
 * Records are added at the end and given up from the front, so that memory is returned here as fast as the
 * records grow elsewhere; malloc() would keep it. All of it is zeroed at first, and aligned to 8 bytes.
 *
 * Thread: [any]; one at a time.
 */
#ifndef STORE_BLOCKS_H
#define STORE_BLOCKS_H

#include <stddef.h>

struct block;

/* Starts zeroed. */
struct blocks {
    struct block *first, *last; /* owned */
};

/* Zeroed memory straight from the system; NULL when there is none. */
void *blocks_map(size_t n);

/* Gives back `n` bytes that blocks_map() gave; NULL is fine. */
void blocks_unmap(void *p, size_t n);

/* Room for `n` bytes at the end; NULL when memory is out. It stays in its place until it is given up. */
char *blocks_add(struct blocks *b, size_t n);

/* Goes through the records in order: `*at` starts as 0 and is moved over what has been given out; each record
 * is `n` bytes as given to blocks_add(). NULL at the end. Blocks that lie behind are given up. */
char *blocks_front(struct blocks *b, size_t *at);
void blocks_skip(size_t *at, size_t n);

/* The record at `at` where it lies in the first block, else NULL. Gives nothing up. */
const char *blocks_peek(const struct blocks *b, size_t at);

/* Gives up the blocks before the one that `p` lies in. */
void blocks_drop_before(struct blocks *b, const char *p);

void blocks_deinit(struct blocks *b);

#endif
