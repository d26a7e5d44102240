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

struct generation *generation_retain(struct generation *g)
{
    /* Whoever retains has a reference already, so nothing needs to be ordered. */
    (void)atomic_fetch_add_explicit(&g->refs, 1, memory_order_relaxed);
    return g;
}

void generation_release(struct generation *g)
{
    /* What the others did with it happens before it is freed. */
    if (!g || atomic_fetch_sub_explicit(&g->refs, 1, memory_order_acq_rel) != 1) return;
    tls_contexts_deinit(&g->tls);
    config_destroy(g->config);
    free(g);
}
