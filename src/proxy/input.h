/* input.h - what a client has sent and nobody has used yet. Empty, it owns no memory.
 *
 * It may hold tokens, so that memory is wiped before it is freed.
 *
 * Thread: [worker].
 */
#ifndef PROXY_INPUT_H
#define PROXY_INPUT_H

#include "base/err.h"
#include "base/span.h"

#include <stdint.h>

/* Made with the first byte that is kept; NULL is an empty one. */
struct input {
    uint32_t at, n; /* bytes that are not used yet: p[at .. at + n); n > 0 */
    uint32_t cap;
    char p[];
};

static inline struct span input_rest(const struct input *i)
{
    return i ? span_of(i->p + i->at, i->n) : (struct span){0};
}

/* Appends a copy; n > 0. Nothing is bounded here: the caller stops reading in time. Errors: ERR_NOMEM. */
enum err input_keep(struct input **i, const char *p, size_t n);

/* The first `n` bytes are used; not of an empty one. */
void input_use(struct input **i, size_t n);

/* Harmless with an empty one. */
void input_drop(struct input **i);

#endif
