#include "proxy/verdict_cache.h"

#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_MAX = 120 }; /* longer Authorization values are looked up each time */

struct verdict_cache {
    uint64_t generation;
    uint64_t valid_until_ms;
    struct addr source;
    uint32_t partner;
    uint8_t slot;
    uint8_t env;
    uint8_t n;  /* bytes of key */
    char key[]; /* the Authorization value */
};

bool verdict_cache_find(const struct verdict_cache *v, const struct decide_query *q, uint64_t generation,
                        struct decision *out)
{
    if (!v || !q->has_route || !q->has_environment || q->is_misdirected || q->nauthorization != 1)
        return false;
    if (v->n != q->authorization.n || v->env != q->env || v->generation != generation) return false;
    if (q->wall_ms >= v->valid_until_ms || !addr_eq(&v->source, q->source)) return false;
    if (!bytes_equal_secret(v->key, q->authorization.p, v->n)) return false;
    *out = (struct decision){.deny = DENY_NONE, .slot = (enum token_slot)v->slot, .partner = v->partner};
    return true;
}

void verdict_cache_keep(struct verdict_cache **v, const struct decide_query *q, const struct decision *d)
{
    verdict_cache_drop(v);
    if (d->deny != DENY_NONE || q->authorization.n > KEY_MAX) return;
    struct verdict_cache *kept = *v = malloc(sizeof *kept + q->authorization.n);
    if (!kept) return;
    kept->generation = d->generation;
    kept->valid_until_ms = d->valid_until_ms;
    kept->source = *q->source;
    kept->partner = d->partner;
    kept->slot = (uint8_t)d->slot;
    kept->env = (uint8_t)q->env;
    kept->n = (uint8_t)q->authorization.n;
    memcpy(kept->key, q->authorization.p, q->authorization.n);
}

void verdict_cache_drop(struct verdict_cache **v)
{
    if (*v) OPENSSL_cleanse((*v)->key, (*v)->n);
    free(*v);
    *v = NULL;
}
