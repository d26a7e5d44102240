#include "policy/key_table.h"

#include "policy/key_bucket.h"
#include "policy/pages.h"

#include <stdlib.h>
#include <string.h>

enum { BUCKETS_MIN = 16 };

/* What readers see; replaced as a whole when it grows. */
struct body {
    size_t nbuckets;
    size_t nused; /* slots that are not SLOT_EMPTY; writer only */
    struct bucket buckets[];
};

struct key_table {
    struct body *_Atomic body;
    struct epochs *epochs; /* borrowed */
    size_t count;
};

/* Where an entry is, and what its value was when it was seen there. */
struct place {
    struct bucket *bucket;
    unsigned slot;
    uint32_t value;
};

/* --- bodies ------------------------------------------------------------------------------------- */

static size_t home_of(const struct body *b, struct key128 k)
{
    return (size_t)(((unsigned __int128)k.part[0] * b->nbuckets) >> 64);
}

static size_t next_of(const struct body *b, size_t at)
{
    return at + 1 == b->nbuckets ? 0 : at + 1;
}

static size_t body_bytes(size_t nbuckets)
{
    return sizeof(struct body) + nbuckets * sizeof(struct bucket);
}

static struct body *body_create(size_t nbuckets)
{
    struct body *b = pages_alloc(body_bytes(nbuckets));
    if (!b) return NULL;
    b->nbuckets = nbuckets;
    return b;
}

static bool search(const struct body *b, struct key128 k, struct place *out)
{
    size_t at = home_of(b, k);
    for (size_t probes = 0; probes < b->nbuckets; probes++) {
        const struct bucket *bucket = &b->buckets[at];
        for (uint32_t slots = tagged_slots(bucket, k); slots; slots &= slots - 1) {
            *out = (struct place){.bucket = (struct bucket *)bucket, .slot = (unsigned)__builtin_ctz(slots)};
            if (slot_has(bucket, out->slot, k, &out->value)) return true;
        }
        if (!bits_beyond(bucket, k)) return false;
        at = next_of(b, at);
    }
    return false;
}

/* A tombstone's slot is free once the stamp that key_table_remove() left in its key has passed. */
static bool is_free(struct epochs *epochs, const struct bucket *bucket, unsigned slot)
{
    uint32_t value = atomic_load_explicit(&bucket->value[slot], memory_order_relaxed);
    if (value == SLOT_EMPTY) return true;
    return value == SLOT_TOMBSTONE &&
           epochs_passed(epochs, atomic_load_explicit(&bucket->key[slot][0], memory_order_relaxed));
}

/* Puts a key that is not there into the first free slot from its home on. There is one: see has_room(). */
static void insert(struct body *b, struct epochs *epochs, struct key128 k, uint32_t value)
{
    size_t at = home_of(b, k);
    for (size_t probes = 0; probes < b->nbuckets; probes++) {
        struct bucket *bucket = &b->buckets[at];
        for (unsigned i = 0; i < BUCKET_SLOTS; i++) {
            if (!is_free(epochs, bucket, i)) continue;
            if (atomic_load_explicit(&bucket->value[i], memory_order_relaxed) == SLOT_EMPTY) b->nused++;
            atomic_store_explicit(&bucket->key[i][0], k.part[0], memory_order_relaxed);
            atomic_store_explicit(&bucket->key[i][1], k.part[1], memory_order_relaxed);
            atomic_store_explicit(&bucket->value[i], value, memory_order_release);
            return;
        }
        beyond_add(bucket, k);
        at = next_of(b, at);
    }
    BUG_IF(true, "key table without a free slot");
}

/* At most 0.72 of the slots in use: 30 bytes per key at that load, and one key in seven lies in a second
 * bucket. Tombstones count, so an empty slot always remains. */
static bool has_room(const struct body *b, size_t n)
{
    return (b->nused + n) * 100 <= b->nbuckets * BUCKET_SLOTS * 72;
}

/* Moves everything into a new body with room for `n` entries more, and at least for half as many as there
 * are. Then 0.70 of its slots are in use. */
static enum err rebuild(struct key_table *t, size_t n)
{
    struct body *old = atomic_load_explicit(&t->body, memory_order_relaxed);
    size_t most = t->count + (n > t->count / 2 ? n : t->count / 2);
    size_t nbuckets = most * 10 / (7 * BUCKET_SLOTS) + 1;
    struct body *b = body_create(nbuckets < BUCKETS_MIN ? BUCKETS_MIN : nbuckets);
    if (!b) return ERR_NOMEM;

    for (size_t at = 0; at < old->nbuckets; at++) {
        const struct bucket *from = &old->buckets[at];
        for (unsigned i = 0; i < BUCKET_SLOTS; i++) {
            uint32_t value = atomic_load_explicit(&from->value[i], memory_order_relaxed);
            if (value == SLOT_EMPTY || value == SLOT_TOMBSTONE) continue;
            struct key128 k = {{atomic_load_explicit(&from->key[i][0], memory_order_relaxed),
                                atomic_load_explicit(&from->key[i][1], memory_order_relaxed)}};
            insert(b, t->epochs, k, value);
        }
    }
    atomic_store_explicit(&t->body, b, memory_order_release);
    (void)epochs_retire(t->epochs, old, body_bytes(old->nbuckets), free); /* frees `old` in any case */
    return ERR_OK;
}

struct key_table *key_table_create(struct epochs *epochs)
{
    struct key_table *t = malloc(sizeof(*t));
    if (!t) return NULL;
    struct body *b = body_create(BUCKETS_MIN);
    if (!b) {
        free(t);
        return NULL;
    }
    *t = (struct key_table){.epochs = epochs};
    atomic_init(&t->body, b);
    return t;
}

void key_table_destroy(struct key_table *t)
{
    if (!t) return;
    free(atomic_load_explicit(&t->body, memory_order_relaxed));
    free(t);
}

enum err key_table_reserve(struct key_table *t, uint32_t n)
{
    if (has_room(atomic_load_explicit(&t->body, memory_order_relaxed), n)) return ERR_OK;
    return rebuild(t, n);
}

enum err key_table_add(struct key_table *t, struct key128 k, uint32_t value)
{
    BUG_IF(value > KEY_TABLE_VALUE_MAX, "value out of range");
    struct place there;
    if (search(atomic_load_explicit(&t->body, memory_order_relaxed), k, &there)) return ERR_EXISTS;
    enum err e = key_table_reserve(t, 1);
    if (e) return e;
    insert(atomic_load_explicit(&t->body, memory_order_relaxed), t->epochs, k, value + 1);
    t->count++;
    return ERR_OK;
}

enum err key_table_assign(struct key_table *t, struct key128 k, uint32_t value)
{
    BUG_IF(value > KEY_TABLE_VALUE_MAX, "value out of range");
    struct place p;
    if (!search(atomic_load_explicit(&t->body, memory_order_relaxed), k, &p)) return ERR_NOT_FOUND;
    atomic_store_explicit(&p.bucket->value[p.slot], value + 1, memory_order_release);
    return ERR_OK;
}

enum err key_table_remove(struct key_table *t, struct key128 k)
{
    struct body *b = atomic_load_explicit(&t->body, memory_order_relaxed);
    struct place p;
    if (!search(b, k, &p)) return ERR_NOT_FOUND;

    atomic_store_explicit(&p.bucket->value[p.slot], SLOT_TOMBSTONE, memory_order_release);
    for (size_t at = home_of(b, k); &b->buckets[at] != p.bucket; at = next_of(b, at))
        beyond_remove(&b->buckets[at]);
    /* A reader that saw the value just now may compare this half of the key with its own: no match means that
     * the key is gone, which is true. */
    atomic_store_explicit(&p.bucket->key[p.slot][0], epochs_stamp(t->epochs), memory_order_relaxed);
    t->count--;
    return ERR_OK;
}

/* What readers are given. */
static const struct body *body_of(const struct key_table *t)
{
    return atomic_load_explicit(&t->body, memory_order_acquire);
}

bool key_table_find(const struct key_table *t, struct key128 k, uint32_t *value)
{
    struct place p;
    if (!search(body_of(t), k, &p)) return false;
    *value = p.value - 1;
    return true;
}

/* No branch depends on memory before all tables have been asked. Without loops, which the compiler does not
 * unroll: 17 instead of 22 ns when nothing misses the cache. */
bool key_table_have_any(struct key_table *const tables[static KEY_TABLE_ASKED],
                        const struct key128 keys[static KEY_TABLE_ASKED])
{
    const struct body *const body[KEY_TABLE_ASKED] = {
        body_of(tables[0]),
        body_of(tables[1]),
        body_of(tables[2]),
        body_of(tables[3]),
    };
    const struct bucket *const home[KEY_TABLE_ASKED] = {
        &body[0]->buckets[home_of(body[0], keys[0])],
        &body[1]->buckets[home_of(body[1], keys[1])],
        &body[2]->buckets[home_of(body[2], keys[2])],
        &body[3]->buckets[home_of(body[3], keys[3])],
    };
    const uint32_t beyond = bits_beyond(home[0], keys[0]) | bits_beyond(home[1], keys[1]) |
                            bits_beyond(home[2], keys[2]) | bits_beyond(home[3], keys[3]);
    uint32_t slots = tagged_slots(home[0], keys[0]) | tagged_slots(home[1], keys[1]) << SLOT_BITS |
                     tagged_slots(home[2], keys[2]) << 2 * SLOT_BITS |
                     tagged_slots(home[3], keys[3]) << 3 * SLOT_BITS;
    uint32_t value;
    for (; slots; slots &= slots - 1) {
        const unsigned at = (unsigned)__builtin_ctz(slots);
        if (slot_has(home[at / SLOT_BITS], at % SLOT_BITS, keys[at / SLOT_BITS], &value)) return true;
    }
    struct place p;
    for (unsigned i = 0; beyond && i < KEY_TABLE_ASKED; i++)
        if (search(body[i], keys[i], &p)) return true;
    return false;
}

void key_table_prefetch(const struct key_table *t, struct key128 k)
{
    const struct body *b = body_of(t);
    __builtin_prefetch(&b->buckets[home_of(b, k)]);
}

size_t key_table_count(const struct key_table *t)
{
    return t->count;
}

size_t key_table_bytes(const struct key_table *t)
{
    return sizeof(*t) + body_bytes(atomic_load_explicit(&t->body, memory_order_relaxed)->nbuckets);
}
