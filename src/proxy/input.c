#include "proxy/input.h"

#include <openssl/crypto.h>
#include <stdlib.h>

static void free_bytes(struct input *i)
{
    if (i->p) OPENSSL_cleanse(i->p, i->cap);
    free(i->p);
}

void input_drop(struct input *i)
{
    free_bytes(i);
    *i = (struct input){0};
}

void input_use(struct input *i, size_t n)
{
    i->at += (uint32_t)n;
    i->n -= (uint32_t)n;
    if (i->n == 0) input_drop(i);
}

/* At least twice what is there: a head may come byte by byte. */
static enum err grow(struct input *i, size_t n)
{
    size_t cap = i->n + n;
    if (cap < 2 * (size_t)i->n) cap = 2 * (size_t)i->n;
    char *grown = malloc(cap);
    if (!grown) return ERR_NOMEM;
    if (i->n) memcpy(grown, i->p + i->at, i->n);
    free_bytes(i);
    i->p = grown;
    i->at = 0;
    i->cap = (uint32_t)cap;
    return ERR_OK;
}

enum err input_keep(struct input *i, const char *p, size_t n)
{
    if (i->at + i->n + n > i->cap && grow(i, n)) return ERR_NOMEM;
    memcpy(i->p + i->at + i->n, p, n);
    i->n += (uint32_t)n;
    return ERR_OK;
}
