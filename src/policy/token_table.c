#include "policy/token_table.h"

#include "policy/pages.h"

#include <stdlib.h>
#include <string.h>

enum { BUCKET_SLOTS = 3, BUCKETS_MIN = 16 };

/* Values of `owner` besides partner index + 1. */
static const uint32_t EMPTY = 0;
static const uint32_t TOMBSTONE = UINT32_MAX;

struct bucket {
    _Alignas(64) _Atomic uint32_t owner[BUCKET_SLOTS];
    _Atomic uint32_t nbeyond; /* entries that belong here or before, and live in a later bucket */
    _Atomic uint64_t key[BUCKET_SLOTS][2];
};
_Static_assert(sizeof(struct bucket) == 64, "a bucket is one cache line");

/* What readers see; replaced as a whole when it grows. */
struct body {
    size_t nbuckets;
    size_t nused; /* slots that are not EMPTY; writer only */
    struct bucket buckets[];
};

struct token_table {
    struct body *_Atomic body;
    struct epochs *epochs; /* borrowed */
    size_t count;
};

struct key {
    uint64_t part[2];
};

/* Where an entry is, and what its owner was when it was seen there. */
struct place {
    struct bucket *bucket;
    int slot;
    uint32_t owner;
};

static struct key key_of(const uint8_t digest[static TOKEN_DIGEST_BYTES])
{
    struct key k;
    _Static_assert(sizeof(k) == TOKEN_KEY_BYTES, "the key is the start of the digest");
    memcpy(&k, digest, sizeof(k));
    return k;
}

static size_t home_of(const struct body *b, struct key k)
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

/* The owner is read before the key: a slot gets a new key only after all readers that could have seen its old
 * owner are gone, so an owner that is not a tombstone belongs to the key that is read after it. */
static bool search(const struct body *b, struct key k, struct place *out)
{
    size_t at = home_of(b, k);
    for (size_t probes = 0; probes < b->nbuckets; probes++) {
        const struct bucket *bucket = &b->buckets[at];
        for (int i = 0; i < BUCKET_SLOTS; i++) {
            uint32_t owner = atomic_load_explicit(&bucket->owner[i], memory_order_acquire);
            if (owner == EMPTY || owner == TOMBSTONE) continue;
            if (atomic_load_explicit(&bucket->key[i][0], memory_order_relaxed) != k.part[0]) continue;
            if (atomic_load_explicit(&bucket->key[i][1], memory_order_relaxed) != k.part[1]) continue;
            *out = (struct place){(struct bucket *)bucket, i, owner};
            return true;
        }
        if (atomic_load_explicit(&bucket->nbeyond, memory_order_relaxed) == 0) return false;
        at = next_of(b, at);
    }
    return false;
}

/* A tombstone's slot is free once the stamp that token_table_remove() left in its key has passed. */
static bool is_free(struct epochs *epochs, const struct bucket *bucket, int slot)
{
    uint32_t owner = atomic_load_explicit(&bucket->owner[slot], memory_order_relaxed);
    if (owner == EMPTY) return true;
    return owner == TOMBSTONE &&
           epochs_passed(epochs, atomic_load_explicit(&bucket->key[slot][0], memory_order_relaxed));
}

static void count_beyond(struct bucket *bucket, int change)
{
    uint32_t n = atomic_load_explicit(&bucket->nbeyond, memory_order_relaxed);
    atomic_store_explicit(&bucket->nbeyond, n + (uint32_t)change, memory_order_relaxed);
}

/* Puts a key that is not there into the first free slot from its home on. There is one: see has_room(). */
static void insert(struct body *b, struct epochs *epochs, struct key k, uint32_t owner)
{
    size_t at = home_of(b, k);
    for (size_t probes = 0; probes < b->nbuckets; probes++) {
        struct bucket *bucket = &b->buckets[at];
        for (int i = 0; i < BUCKET_SLOTS; i++) {
            if (!is_free(epochs, bucket, i)) continue;
            if (atomic_load_explicit(&bucket->owner[i], memory_order_relaxed) == EMPTY) b->nused++;
            atomic_store_explicit(&bucket->key[i][0], k.part[0], memory_order_relaxed);
            atomic_store_explicit(&bucket->key[i][1], k.part[1], memory_order_relaxed);
            atomic_store_explicit(&bucket->owner[i], owner, memory_order_release);
            return;
        }
        count_beyond(bucket, 1);
        at = next_of(b, at);
    }
    BUG_IF(true, "token table without a free slot");
}

/* At most 0.72 of the slots in use: 30 bytes per token at that load, and one look-up in seven goes on to a
 * second bucket. Tombstones count, so an empty slot always remains. */
static bool has_room(const struct body *b, size_t n)
{
    return (b->nused + n) * 100 <= b->nbuckets * BUCKET_SLOTS * 72;
}

/* Moves everything into a new body with room for `n` entries more, and at least for half as many as there
 * are. Then 0.70 of its slots are in use. */
static enum err rebuild(struct token_table *t, size_t n)
{
    struct body *old = atomic_load_explicit(&t->body, memory_order_relaxed);
    size_t most = t->count + (n > t->count / 2 ? n : t->count / 2);
    size_t nbuckets = most * 10 / (7 * BUCKET_SLOTS) + 1;
    struct body *b = body_create(nbuckets < BUCKETS_MIN ? BUCKETS_MIN : nbuckets);
    if (!b) return ERR_NOMEM;

    for (size_t at = 0; at < old->nbuckets; at++) {
        const struct bucket *from = &old->buckets[at];
        for (int i = 0; i < BUCKET_SLOTS; i++) {
            uint32_t owner = atomic_load_explicit(&from->owner[i], memory_order_relaxed);
            if (owner == EMPTY || owner == TOMBSTONE) continue;
            struct key k = {{atomic_load_explicit(&from->key[i][0], memory_order_relaxed),
                             atomic_load_explicit(&from->key[i][1], memory_order_relaxed)}};
            insert(b, t->epochs, k, owner);
        }
    }
    atomic_store_explicit(&t->body, b, memory_order_release);
    (void)epochs_retire(t->epochs, old, body_bytes(old->nbuckets), free); /* frees `old` in any case */
    return ERR_OK;
}

struct token_table *token_table_create(struct epochs *epochs)
{
    struct token_table *t = malloc(sizeof(*t));
    if (!t) return NULL;
    struct body *b = body_create(BUCKETS_MIN);
    if (!b) {
        free(t);
        return NULL;
    }
    *t = (struct token_table){.epochs = epochs};
    atomic_init(&t->body, b);
    return t;
}

void token_table_destroy(struct token_table *t)
{
    if (!t) return;
    free(atomic_load_explicit(&t->body, memory_order_relaxed));
    free(t);
}

enum err token_table_reserve(struct token_table *t, uint32_t n)
{
    if (has_room(atomic_load_explicit(&t->body, memory_order_relaxed), n)) return ERR_OK;
    return rebuild(t, n);
}

enum err token_table_add(struct token_table *t, const uint8_t digest[static TOKEN_DIGEST_BYTES],
                         uint32_t partner)
{
    BUG_IF(partner > TOKEN_PARTNER_MAX, "partner index out of range");
    struct key k = key_of(digest);
    struct place there;
    if (search(atomic_load_explicit(&t->body, memory_order_relaxed), k, &there)) return ERR_EXISTS;
    enum err e = token_table_reserve(t, 1);
    if (e) return e;
    insert(atomic_load_explicit(&t->body, memory_order_relaxed), t->epochs, k, partner + 1);
    t->count++;
    return ERR_OK;
}

enum err token_table_assign(struct token_table *t, const uint8_t digest[static TOKEN_DIGEST_BYTES],
                            uint32_t partner)
{
    BUG_IF(partner > TOKEN_PARTNER_MAX, "partner index out of range");
    struct place p;
    if (!search(atomic_load_explicit(&t->body, memory_order_relaxed), key_of(digest), &p))
        return ERR_NOT_FOUND;
    atomic_store_explicit(&p.bucket->owner[p.slot], partner + 1, memory_order_release);
    return ERR_OK;
}

enum err token_table_remove(struct token_table *t, const uint8_t digest[static TOKEN_DIGEST_BYTES])
{
    struct body *b = atomic_load_explicit(&t->body, memory_order_relaxed);
    struct key k = key_of(digest);
    struct place p;
    if (!search(b, k, &p)) return ERR_NOT_FOUND;

    atomic_store_explicit(&p.bucket->owner[p.slot], TOMBSTONE, memory_order_release);
    for (size_t at = home_of(b, k); &b->buckets[at] != p.bucket; at = next_of(b, at))
        count_beyond(&b->buckets[at], -1);
    /* A reader that saw the owner just now may compare this half of the key with its own: no match means that
     * the token is gone, which is true. */
    atomic_store_explicit(&p.bucket->key[p.slot][0], epochs_stamp(t->epochs), memory_order_relaxed);
    t->count--;
    return ERR_OK;
}

bool token_table_find(const struct token_table *t, const uint8_t digest[static TOKEN_DIGEST_BYTES],
                      uint32_t *partner)
{
    struct place p;
    if (!search(atomic_load_explicit(&t->body, memory_order_acquire), key_of(digest), &p)) return false;
    *partner = p.owner - 1;
    return true;
}

void token_table_prefetch(const struct token_table *t, const uint8_t digest[static TOKEN_DIGEST_BYTES])
{
    const struct body *b = atomic_load_explicit(&t->body, memory_order_acquire);
    __builtin_prefetch(&b->buckets[home_of(b, key_of(digest))]);
}

size_t token_table_count(const struct token_table *t)
{
    return t->count;
}

size_t token_table_bytes(const struct token_table *t)
{
    return sizeof(*t) + body_bytes(atomic_load_explicit(&t->body, memory_order_relaxed)->nbuckets);
}
