#include "proxy/generation.h"

#include <stdlib.h>

struct generation *generation_create(uint64_t number, struct config *config)
{
    struct generation *g = malloc(sizeof *g);
    if (!g) return NULL;
    *g = (struct generation){.number = number, .config = config};
    atomic_init(&g->refs, 1);
    return g;
}

struct generation *generation_ref(struct generation *g)
{
    /* The caller holds a reference already, so nothing has to be ordered. */
    (void)atomic_fetch_add_explicit(&g->refs, 1, memory_order_relaxed);
    return g;
}

void generation_unref(struct generation *g)
{
    /* Acquire and release: what other threads did with it happens before it is freed. */
    if (!g || atomic_fetch_sub_explicit(&g->refs, 1, memory_order_acq_rel) != 1) return;
    tls_contexts_deinit(&g->tls);
    config_unref(g->config);
    free(g);
}
