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

/* Zeros are an empty one. */
struct input {
    char *p;        /* owned */
    uint32_t at, n; /* bytes that are not used yet: p[at .. at + n) */
    uint32_t cap;
};

static inline struct span input_rest(const struct input *i)
{
    return span_of(i->p + i->at, i->n);
}

/* Appends a copy. Nothing is bounded here: the caller stops reading in time. Errors: ERR_NOMEM. */
enum err input_keep(struct input *i, const char *p, size_t n);

/* The first `n` bytes are used. */
void input_use(struct input *i, size_t n);

void input_drop(struct input *i);

#endif
