#include "proxy/sources.h"

#include "base/random.h"

#include <uv.h>

#include <stdlib.h>

enum {
    CHAINS = 1 << 15, /* 256 KiB of address space, in memory as far as they are used */
    SHARDS = 64,      /* a power of two: several times the workers, so that they seldom meet */
    CACHE_LINE = 64,
};

struct source {
    struct source *next; /* of its chain */
    struct addr network;
    uint32_t connections; /* at least one */
};

/* Has a line of the cache for itself: other shards are other workers' business. */
struct shard {
    _Alignas(CACHE_LINE) uv_mutex_t lock;
    uint32_t nsources; /* lock */
};

struct sources {
    /* set once */
    uint64_t key[2];
    unsigned nlocks; /* that have been made */

    struct source **chains; /* shared: each by the lock of its shard */
    struct shard shards[SHARDS];
};

struct sources *sources_create(void)
{
    struct sources *s = aligned_alloc(CACHE_LINE, sizeof *s);
    if (!s) return NULL;
    *s = (struct sources){.chains = calloc(CHAINS, sizeof *s->chains)};
    if (!s->chains || random_bytes(s->key, sizeof s->key)) goto fail;
    for (; s->nlocks < SHARDS; s->nlocks++)
        if (uv_mutex_init(&s->shards[s->nlocks].lock)) goto fail;
    return s;
fail:
    sources_destroy(s);
    return NULL;
}

void sources_destroy(struct sources *s)
{
    if (!s) return;
    for (unsigned i = 0; i < s->nlocks; i++) {
        BUG_IF(s->shards[i].nsources, "a connection is counted after the end of all workers");
        uv_mutex_destroy(&s->shards[i].lock);
    }
    free(s->chains);
    free(s);
}

/* --- where an address is --------------------------------------------------------------------------- */

static uint64_t rotl(uint64_t v, unsigned by)
{
    return v << by | v >> (64 - by);
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1], v[1] = rotl(v[1], 13) ^ v[0], v[0] = rotl(v[0], 32);
    v[2] += v[3], v[3] = rotl(v[3], 16) ^ v[2];
    v[0] += v[3], v[3] = rotl(v[3], 21) ^ v[0];
    v[2] += v[1], v[1] = rotl(v[1], 17) ^ v[2], v[2] = rotl(v[2], 32);
}

/* SipHash-1-3 of two words: what is counted together has no more. */
static uint32_t chain_of(const struct sources *s, const struct addr *network)
{
    uint64_t words[2] = {network->family, network->family == ADDR_V4 ? network->v4 : network->v6.hi};
    uint64_t v[4] = {s->key[0] ^ 0x736f6d6570736575u, s->key[1] ^ 0x646f72616e646f6du,
                     s->key[0] ^ 0x6c7967656e657261u, s->key[1] ^ 0x7465646279746573u};
    for (unsigned i = 0; i < 2; i++) {
        v[3] ^= words[i];
        sip_round(v);
        v[0] ^= words[i];
    }
    v[2] ^= 0xff;
    for (unsigned i = 0; i < 3; i++)
        sip_round(v);
    return (uint32_t)(v[0] ^ v[1] ^ v[2] ^ v[3]) & (CHAINS - 1);
}

/* What is counted together. */
static struct addr network_of(const struct addr *a)
{
    struct addr network = *a;
    if (network.family == ADDR_V6) network.v6.lo = 0;
    return network;
}

/* --- counting -------------------------------------------------------------------------------------- */

/* Where an address belongs; its shard is locked until leave(). */
struct place {
    struct addr network;
    struct shard *shard;
    struct source **link; /* what points to its source, or where a new one begins: *link is NULL */
};

static struct place enter(struct sources *s, const struct addr *a)
{
    struct place p = {.network = network_of(a)};
    uint32_t chain = chain_of(s, &p.network);
    p.shard = &s->shards[chain & (SHARDS - 1)];
    uv_mutex_lock(&p.shard->lock);
    p.link = &s->chains[chain];
    while (*p.link && !addr_eq(&(*p.link)->network, &p.network))
        p.link = &(*p.link)->next;
    return p;
}

static void leave(const struct place *p)
{
    uv_mutex_unlock(&p->shard->lock);
}

static enum err add_locked(const struct place *p, uint32_t max)
{
    if (*p->link == NULL) {
        struct source *source = malloc(sizeof *source);
        if (!source) return ERR_NOMEM;
        *source = (struct source){.network = p->network};
        *p->link = source;
        p->shard->nsources++;
    } else if (max && (*p->link)->connections >= max) {
        return ERR_LIMIT;
    }
    (*p->link)->connections++;
    return ERR_OK;
}

enum err sources_add(struct sources *s, const struct addr *a, uint32_t max)
{
    const struct place p = enter(s, a);
    enum err e = add_locked(&p, max);
    leave(&p);
    return e;
}

void sources_remove(struct sources *s, const struct addr *a)
{
    const struct place p = enter(s, a);
    struct source *source = *p.link;
    BUG_IF(!source, "a source is removed that was never added");
    bool is_last = --source->connections == 0;
    if (is_last) {
        *p.link = source->next;
        p.shard->nsources--;
    }
    leave(&p);
    if (is_last) free(source);
}

uint32_t sources_connections(struct sources *s, const struct addr *a)
{
    const struct place p = enter(s, a);
    uint32_t n = *p.link ? (*p.link)->connections : 0;
    leave(&p);
    return n;
}

uint32_t sources_count(struct sources *s)
{
    uint32_t n = 0;
    for (unsigned i = 0; s && i < SHARDS; i++) {
        uv_mutex_lock(&s->shards[i].lock);
        n += s->shards[i].nsources;
        uv_mutex_unlock(&s->shards[i].lock);
    }
    return n;
}
