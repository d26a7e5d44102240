/* key_bucket.h - one cache line of a key_table: three entries, and what is known of those that did not fit.
 *
 *   | value[3] | beyond           | key[3][2]   |
 *   | u32 x 3  | u16 bits, count  | u64 x 3 x 2 |
 *
 * Private to key_table.c. Thread: functions with a const bucket [any reader inside a turn]; the others
 * [control, the one writer].
 */
#ifndef POLICY_KEY_BUCKET_H
#define POLICY_KEY_BUCKET_H

#include "policy/key_table.h"

#include <stdatomic.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#if defined(__SANITIZE_THREAD__) /* gcc */
#define BUCKET_PLAIN_LOADS 0
#elif defined(__has_feature)
#define BUCKET_PLAIN_LOADS !__has_feature(thread_sanitizer) /* clang */
#else
#define BUCKET_PLAIN_LOADS 1
#endif

enum {
    BUCKET_SLOTS = 3,
    SLOT_BITS = 4, /* of a bucket in a map of the slots of several */
};

/* In place of value + 1. */
static const uint32_t SLOT_EMPTY = 0;
static const uint32_t SLOT_TOMBSTONE = UINT32_MAX;

/* The two halves of `beyond`. A count that has reached the largest it can be stays there. */
enum { BEYOND_COUNT = 0xffff, BEYOND_MAP_BITS = 16 };

struct bucket {
    _Alignas(64) _Atomic uint32_t value[BUCKET_SLOTS];
    _Atomic uint32_t beyond; /* entries that belong here or before, and live in a later bucket */
    _Atomic uint64_t key[BUCKET_SLOTS][2];
};
_Static_assert(sizeof(struct bucket) == 64, "a bucket is one cache line");

/* What of a key is compared first, in all slots of a bucket at once. */
static inline uint32_t tag_of(struct key128 k)
{
    return (uint32_t)k.part[0];
}

/* The key's bit in `beyond`. */
static inline uint32_t beyond_bit(struct key128 k)
{
    return UINT32_C(1) << (BEYOND_MAP_BITS + k.part[0] % BEYOND_MAP_BITS);
}

/* Bit i is set where slot i may hold the key: for slot_has() to say. */
static inline uint32_t tagged_slots_portable(const struct bucket *bucket, struct key128 k)
{
    uint32_t slots = 0;
    for (unsigned i = 0; i < BUCKET_SLOTS; i++) {
        const uint64_t first = atomic_load_explicit(&bucket->key[i][0], memory_order_relaxed);
        slots |= (uint32_t)((uint32_t)first == tag_of(k)) << i;
    }
    return slots;
}

/* The same by plain loads of what the writer stores atomically. A key that was there before the look-up began
 * is seen by any kind of load, and what else is seen costs no more than a call of slot_has(). Fewer
 * operations wait for the memory, so that the processor gets further ahead: with a million prefixes it takes
 * three quarters of the time. ThreadSanitizer gets the form that it can follow. */
static inline uint32_t tagged_slots(const struct bucket *bucket, struct key128 k)
{
#if defined(__SSE2__) && BUCKET_PLAIN_LOADS
    const __m128i *key = (const __m128i *)(const void *)bucket->key;
    const __m128i first_two = _mm_unpacklo_epi32(_mm_load_si128(key), _mm_load_si128(key + 1));
    const __m128i tags = _mm_unpacklo_epi64(first_two, _mm_load_si128(key + 2)); /* the fourth is none */
    const __m128i equal = _mm_cmpeq_epi32(tags, _mm_set1_epi32((int)tag_of(k)));
    return (uint32_t)_mm_movemask_ps(_mm_castsi128_ps(equal)) & ((1u << BUCKET_SLOTS) - 1);
#else
    return tagged_slots_portable(bucket, k);
#endif
}

/* The value is read before the key: a slot gets a new key only after all readers that could have seen its old
 * value are gone, so a value that is not a tombstone belongs to the key that is read after it. */
static inline bool slot_has(const struct bucket *bucket, unsigned slot, struct key128 k, uint32_t *value)
{
    *value = atomic_load_explicit(&bucket->value[slot], memory_order_acquire);
    return *value != SLOT_EMPTY && *value != SLOT_TOMBSTONE &&
           atomic_load_explicit(&bucket->key[slot][0], memory_order_relaxed) == k.part[0] &&
           atomic_load_explicit(&bucket->key[slot][1], memory_order_relaxed) == k.part[1];
}

/* Not 0: the key may be in a later bucket. */
static inline uint32_t bits_beyond(const struct bucket *bucket, struct key128 k)
{
    return atomic_load_explicit(&bucket->beyond, memory_order_relaxed) & beyond_bit(k);
}

/* A key that is put into a later bucket passes this one. */
static inline void beyond_add(struct bucket *bucket, struct key128 k)
{
    uint32_t b = atomic_load_explicit(&bucket->beyond, memory_order_relaxed);
    if ((b & BEYOND_COUNT) != BEYOND_COUNT) b++;
    atomic_store_explicit(&bucket->beyond, b | beyond_bit(k), memory_order_relaxed);
}

/* Such a key is gone. Its bit may be another key's as well, so bits go when the last key does. */
static inline void beyond_remove(struct bucket *bucket)
{
    uint32_t b = atomic_load_explicit(&bucket->beyond, memory_order_relaxed);
    if ((b & BEYOND_COUNT) != BEYOND_COUNT) b--;
    atomic_store_explicit(&bucket->beyond, b & BEYOND_COUNT ? b : 0, memory_order_relaxed);
}

#endif
