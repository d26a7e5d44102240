#include "store/stage.h"

#include "base/hash.h"

enum { SLOTS_FIRST = 1024 };

/* A record that another version has replaced carries this instead of its flags. */
enum { FLAGS_OVERTAKEN = 0x80, FLAGS_OFFSET = 5, VERSION_OFFSET = 8 };

void stage_init(struct stage *s, struct redis_hasher *hasher)
{
    *s = (struct stage){.hasher = hasher};
}

void stage_deinit(struct stage *s)
{
    blocks_deinit(&s->records);
    blocks_unmap(s->slots, s->nslots * sizeof *s->slots);
    stage_init(s, s->hasher);
}

static struct packed look(const char *at)
{
    struct packed r;
    uint32_t bytes;
    memcpy(&bytes, at, sizeof bytes);
    BUG_IF(packed_look(span_of(at, bytes), &r, NULL), "a packed record of our own is damaged");
    return r;
}

/* With a final mix, because the table takes the low bits. */
static size_t hash_of(struct span id)
{
    uint64_t h = hash_fnv1a(HASH_FNV1A_BASIS, id);
    return (size_t)(h ^ h >> 32);
}

/* The slot that has the id, or the free one where it belongs. There is always a free one. */
static char **slot_of(const struct stage *s, struct span id)
{
    size_t i = hash_of(id) & (s->nslots - 1);
    while (s->slots[i] && !span_eq(look(s->slots[i]).id, id))
        i = (i + 1) & (s->nslots - 1);
    return &s->slots[i];
}

static const char *find(const struct stage *s, struct span id)
{
    return s->nslots ? *slot_of(s, id) : NULL;
}

uint64_t stage_version(const struct stage *s, struct span id)
{
    const char *at = find(s, id);
    return at ? look(at).version : 0;
}

bool stage_has(const struct stage *s, struct span id)
{
    const char *at = find(s, id);
    return at && !(look(at).flags & PACKED_DELETED);
}

/* Keeps a quarter of the slots free. */
static enum err make_room_in_table(struct stage *s)
{
    if ((s->nused + 1) * 4 <= s->nslots * 3) return ERR_OK;
    struct stage larger = *s;
    larger.nslots = s->nslots ? 2 * s->nslots : SLOTS_FIRST;
    larger.slots = blocks_map(larger.nslots * sizeof *larger.slots);
    if (!larger.slots) return ERR_NOMEM;
    for (size_t i = 0; i < s->nslots; i++)
        if (s->slots[i]) *slot_of(&larger, look(s->slots[i]).id) = s->slots[i];
    blocks_unmap(s->slots, s->nslots * sizeof *s->slots);
    *s = larger;
    return ERR_OK;
}

static void account(struct stage *s, const struct packed *r, bool is_in)
{
    if (r->flags & PACKED_DELETED) return;
    s->count = is_in ? s->count + 1 : s->count - 1;
    s->digest ^= redis_hasher_record(s->hasher, r->id, r->version);
}

enum err stage_put(struct stage *s, struct span packed, enum stage_change *change)
{
    struct packed fresh = look(packed.p);
    bool had = false, has = !(fresh.flags & PACKED_DELETED);
    *change = STAGE_SAME;
    enum err e = make_room_in_table(s);
    if (e) return e;
    char **slot = slot_of(s, fresh.id);
    struct packed old = {0};
    if (*slot) {
        old = look(*slot);
        had = !(old.flags & PACKED_DELETED);
        if (old.version > fresh.version || (old.version == fresh.version && had)) return ERR_OK;
    }
    bool fits = *slot && old.bytes == fresh.bytes;
    char *at = fits ? *slot : blocks_add(&s->records, fresh.bytes);
    if (!at) return ERR_NOMEM;
    if (*slot) {
        account(s, &old, false);
        (*slot)[FLAGS_OFFSET] = (char)FLAGS_OVERTAKEN; /* written over when it fits */
    } else {
        s->nused++;
    }
    memcpy(at, packed.p, fresh.bytes);
    *slot = at;
    account(s, &fresh, true);
    if (had != has) *change = has ? STAGE_ADDED : STAGE_REMOVED;
    return ERR_OK;
}

void stage_forget(struct stage *s, struct span id)
{
    char *at = s->nslots ? *slot_of(s, id) : NULL;
    if (!at) return;
    struct packed r = look(at);
    account(s, &r, false);
    static const uint64_t oldest = 1;
    at[FLAGS_OFFSET] = PACKED_DELETED;
    memcpy(at + VERSION_OFFSET, &oldest, sizeof oldest);
}

void stage_each(const struct stage *s, void (*fn)(const struct packed *r, void *arg), void *arg)
{
    for (size_t i = 0; i < s->nslots; i++) {
        if (!s->slots[i]) continue;
        struct packed r = look(s->slots[i]);
        if (!(r.flags & PACKED_DELETED)) fn(&r, arg);
    }
}

/* Its flags are gone then: it cannot be looked at. */
static bool is_overtaken(const char *at)
{
    return (unsigned char)at[FLAGS_OFFSET] == FLAGS_OVERTAKEN;
}

bool stage_next(struct stage *s, struct packed *out)
{
    blocks_unmap(s->slots, s->nslots * sizeof *s->slots); /* they would point to freed blocks */
    s->slots = NULL;
    s->nslots = 0;
    for (const char *at; (at = blocks_front(&s->records, &s->at)) != NULL;) {
        uint32_t bytes;
        memcpy(&bytes, at, sizeof bytes);
        blocks_skip(&s->at, bytes);
        if (is_overtaken(at)) continue;
        *out = look(at);
        if (!(out->flags & PACKED_DELETED)) return true;
    }
    return false;
}

bool stage_peek(const struct stage *s, struct packed *out)
{
    const char *at = blocks_peek(&s->records, s->at);
    if (!at || is_overtaken(at)) return false;
    *out = look(at);
    return true;
}
