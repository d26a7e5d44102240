#include "store/bytes.h"

#include <stdlib.h>

enum { BYTES_FIRST = 512 };

enum err bytes_reserve(struct bytes *b, size_t more)
{
    if (b->cap - b->n >= more) return ERR_OK;
    size_t cap = b->cap ? b->cap : BYTES_FIRST;
    while (cap - b->n < more)
        cap *= 2;
    char *larger = realloc(b->p, cap);
    if (!larger) return ERR_NOMEM;
    b->p = larger;
    b->cap = cap;
    return ERR_OK;
}

enum err bytes_add(struct bytes *b, const void *p, size_t n)
{
    enum err e = bytes_reserve(b, n);
    if (e) return e;
    if (n) memcpy(b->p + b->n, p, n);
    b->n += n;
    return ERR_OK;
}

void bytes_deinit(struct bytes *b)
{
    if (b->p) explicit_bzero(b->p, b->n);
    free(b->p);
    *b = (struct bytes){0};
}
