#include "proxy/input.h"

#include <openssl/crypto.h>
#include <stdlib.h>

void input_drop(struct input **i)
{
    if (*i) OPENSSL_cleanse((*i)->p, (*i)->cap);
    free(*i);
    *i = NULL;
}

void input_use(struct input **i, size_t n)
{
    (*i)->at += (uint32_t)n;
    (*i)->n -= (uint32_t)n;
    if ((*i)->n == 0) input_drop(i);
}

/* Room for `n` bytes more, and at least twice what is there: a head may come byte by byte. */
static enum err grow(struct input **i, size_t n)
{
    struct span rest = input_rest(*i);
    size_t cap = n < rest.n ? 2 * rest.n : rest.n + n;
    struct input *grown = malloc(sizeof *grown + cap);
    if (!grown) return ERR_NOMEM;
    *grown = (struct input){.n = (uint32_t)rest.n, .cap = (uint32_t)cap};
    if (rest.n) memcpy(grown->p, rest.p, rest.n);
    input_drop(i);
    *i = grown;
    return ERR_OK;
}

enum err input_keep(struct input **i, const char *p, size_t n)
{
    bool fits = *i && (*i)->at + (*i)->n + n <= (*i)->cap;
    if (!fits && grow(i, n)) return ERR_NOMEM;
    memcpy((*i)->p + (*i)->at + (*i)->n, p, n);
    (*i)->n += (uint32_t)n;
    return ERR_OK;
}
