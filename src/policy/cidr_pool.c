#include "policy/cidr_pool.h"

#include <stdlib.h>

enum { SLOTS_FIRST = 16 };

static uint32_t pool_home(const struct cidr_pool *p, const struct cidr_set *s)
{
    return (uint32_t)(cidr_set_hash(s) >> 32) & (p->nslots - 1);
}

static uint32_t pool_next(const struct cidr_pool *p, uint32_t at)
{
    return (at + 1) & (p->nslots - 1);
}

/* The slot of the set with the same addresses, or the free one where it would go. There is one. */
static struct cidr_pool_slot *pool_slot_of(const struct cidr_pool *p, const struct cidr_set *s)
{
    uint32_t at = pool_home(p, s);
    while (p->slots[at].set && p->slots[at].set != s &&
           !(cidr_set_hash(p->slots[at].set) == cidr_set_hash(s) && cidr_set_equal(p->slots[at].set, s)))
        at = pool_next(p, at);
    return &p->slots[at];
}

void cidr_pool_deinit(struct cidr_pool *p)
{
    for (uint32_t i = 0; i < p->nslots; i++)
        cidr_set_destroy(p->slots[i].set);
    free(p->slots);
    *p = (struct cidr_pool){0};
}

struct cidr_set *cidr_pool_find(const struct cidr_pool *p, const struct cidr_set *s)
{
    return p->nslots ? pool_slot_of(p, s)->set : NULL;
}

enum err cidr_pool_reserve(struct cidr_pool *p)
{
    if ((uint64_t)(p->nsets + 1) * 4 <= (uint64_t)p->nslots * 3) return ERR_OK;
    struct cidr_pool larger = *p;
    larger.nslots = p->nslots ? 2 * p->nslots : SLOTS_FIRST;
    larger.slots = calloc(larger.nslots, sizeof *larger.slots);
    if (!larger.slots) return ERR_NOMEM;
    for (uint32_t i = 0; i < p->nslots; i++)
        if (p->slots[i].set) *pool_slot_of(&larger, p->slots[i].set) = p->slots[i];
    free(p->slots);
    *p = larger;
    return ERR_OK;
}

void cidr_pool_use(struct cidr_pool *p, struct cidr_set *s)
{
    struct cidr_pool_slot *slot = pool_slot_of(p, s);
    if (!slot->set) {
        slot->set = s;
        p->nsets++;
        p->set_bytes += cidr_set_bytes(s);
    }
    BUG_IF(slot->set != s, "two equal allowlists in one pool");
    slot->users++;
}

bool cidr_pool_drop(struct cidr_pool *p, const struct cidr_set *s)
{
    struct cidr_pool_slot *slot = pool_slot_of(p, s);
    BUG_IF(slot->set != s, "an allowlist that is not in its pool");
    if (--slot->users > 0) return false;
    p->nsets--;
    p->set_bytes -= cidr_set_bytes(s);

    /* Later sets of the run move up where they may, so that no search ends too early at the hole. */
    uint32_t mask = p->nslots - 1, hole = (uint32_t)(slot - p->slots);
    for (uint32_t at = pool_next(p, hole); p->slots[at].set; at = pool_next(p, at)) {
        uint32_t home = pool_home(p, p->slots[at].set);
        if (((at - home) & mask) < ((at - hole) & mask)) continue;
        p->slots[hole] = p->slots[at];
        hole = at;
    }
    p->slots[hole] = (struct cidr_pool_slot){0};
    return true;
}

uint32_t cidr_pool_users(const struct cidr_pool *p, const struct cidr_set *s)
{
    const struct cidr_pool_slot *slot = pool_slot_of(p, s);
    BUG_IF(slot->set != s, "an allowlist that is not in its pool");
    return slot->users;
}

size_t cidr_pool_bytes(const struct cidr_pool *p)
{
    return p->set_bytes + p->nslots * sizeof *p->slots;
}
