/* bytes.h - a run of bytes that grows, owned: where records are put together.
 *
 * Example:  struct bytes b = {0};
 *           if (bytes_add(&b, p, n)) ...   b.p, b.n
 *           bytes_deinit(&b);
 *
 * Thread: [any, pure].
 */
#ifndef STORE_BYTES_H
#define STORE_BYTES_H

#include "base/err.h"
#include "base/span.h"

/* Starts zeroed. */
struct bytes {
    char *p; /* owned */
    size_t n, cap;
};

/* Makes room for `more` bytes behind the `n` that are there. Errors: ERR_NOMEM (nothing changed). */
enum err bytes_reserve(struct bytes *b, size_t more);

/* Errors: ERR_NOMEM (nothing changed). */
enum err bytes_add(struct bytes *b, const void *p, size_t n);

/* Wipes, frees, and leaves it zeroed. */
void bytes_deinit(struct bytes *b);

#endif
