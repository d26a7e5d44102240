#include "proofctl/names.h"

#include <stdlib.h>

enum err names_add(struct names *n, struct span name)
{
    if (memchr(name.p, 0, name.n)) return ERR_OK;
    enum err e = bytes_reserve(&n->text, name.n + 1);
    if (e) return e;
    memcpy(n->text.p + n->text.n, name.p, name.n);
    n->text.p[n->text.n + name.n] = '\0';
    n->text.n += name.n + 1;
    n->n++;
    return ERR_OK;
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

enum err names_sort(struct names *n)
{
    free(n->list);
    n->list = calloc(n->n + 1, sizeof *n->list);
    if (!n->list) return ERR_NOMEM;
    const char *name = n->text.p;
    for (size_t i = 0; i < n->n; i++) {
        n->list[i] = name;
        name += strlen(name) + 1;
    }
    qsort(n->list, n->n, sizeof *n->list, compare);
    size_t kept = 0;
    for (size_t i = 0; i < n->n; i++)
        if (kept == 0 || strcmp(n->list[kept - 1], n->list[i]) != 0) n->list[kept++] = n->list[i];
    n->n = kept;
    return ERR_OK;
}

void names_deinit(struct names *n)
{
    bytes_deinit(&n->text);
    free(n->list);
    *n = (struct names){0};
}
