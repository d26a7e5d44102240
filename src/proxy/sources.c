#include "proxy/sources.h"

#include "base/random.h"

#include <stdlib.h>

enum { SLOTS_MIN = 256 };

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

/* SipHash-1-3 of three words: an address is at most that. */
static uint64_t hash(const struct sources *s, const struct addr *a)
{
    uint64_t words[3] = {a->family, a->family == ADDR_V4 ? a->v4 : a->v6.hi,
                         a->family == ADDR_V6 ? a->v6.lo : 0};
    uint64_t v[4] = {s->key[0] ^ 0x736f6d6570736575u, s->key[1] ^ 0x646f72616e646f6du,
                     s->key[0] ^ 0x6c7967656e657261u, s->key[1] ^ 0x7465646279746573u};
    for (unsigned i = 0; i < 3; i++) {
        v[3] ^= words[i];
        sip_round(v);
        v[0] ^= words[i];
    }
    v[2] ^= 0xff;
    for (unsigned i = 0; i < 3; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

enum err sources_init(struct sources *s)
{
    *s = (struct sources){.nslots = SLOTS_MIN};
    if (random_bytes(s->key, sizeof s->key)) return ERR_IO;
    s->slots = calloc(s->nslots, sizeof *s->slots);
    return s->slots ? ERR_OK : ERR_NOMEM;
}

void sources_deinit(struct sources *s)
{
    free(s->slots);
    s->slots = NULL;
}

/* The slot of `a`, or the free one where it belongs. The table is never full. */
static uint32_t find(const struct sources *s, const struct addr *a)
{
    uint32_t i = (uint32_t)hash(s, a) & (s->nslots - 1);
    while (s->slots[i].connections && !addr_eq(&s->slots[i].addr, a))
        i = (i + 1) & (s->nslots - 1);
    return i;
}

static enum err grow(struct sources *s)
{
    struct sources bigger = *s;
    bigger.nslots = s->nslots * 2;
    bigger.slots = calloc(bigger.nslots, sizeof *bigger.slots);
    if (!bigger.slots) return ERR_NOMEM;
    for (uint32_t i = 0; i < s->nslots; i++)
        if (s->slots[i].connections) bigger.slots[find(&bigger, &s->slots[i].addr)] = s->slots[i];
    free(s->slots);
    *s = bigger;
    return ERR_OK;
}

/* What is counted together. */
static struct addr network_of(const struct addr *a)
{
    struct addr net = *a;
    if (net.family == ADDR_V6) net.v6.lo = 0;
    return net;
}

enum err sources_add(struct sources *s, const struct addr *source, uint32_t max)
{
    const struct addr net = network_of(source), *a = &net;
    uint32_t i = find(s, a);
    if (s->slots[i].connections == 0) {
        if ((s->used + 1) * 4 > s->nslots * 3) {
            if (grow(s)) return ERR_NOMEM;
            i = find(s, a);
        }
        s->slots[i] = (struct source_slot){.addr = *a};
        s->used++;
    } else if (max && s->slots[i].connections >= max) {
        return ERR_LIMIT;
    }
    s->slots[i].connections++;
    return ERR_OK;
}

void sources_remove(struct sources *s, const struct addr *source)
{
    const struct addr net = network_of(source), *a = &net;
    uint32_t mask = s->nslots - 1;
    uint32_t hole = find(s, a);
    BUG_IF(s->slots[hole].connections == 0, "a source is removed that was never added");
    if (--s->slots[hole].connections) return;
    s->used--;
    for (uint32_t i = (hole + 1) & mask; s->slots[i].connections; i = (i + 1) & mask) {
        uint32_t home = (uint32_t)hash(s, &s->slots[i].addr) & mask;
        if (((i - home) & mask) < ((i - hole) & mask)) continue; /* it may not move before its home */
        s->slots[hole] = s->slots[i];
        s->slots[i].connections = 0;
        hole = i;
    }
}
