/* cidr_line.h - how many of the sorted keys in one 64-byte cache line are <= x?
 *
 * The one inner loop of every address matcher: all keys of the line are compared at once and the answers
 * counted, without a branch. SSE2 (part of x86-64), with a portable form that tests hold against it.
 * There is no SSE2 comparison of 64-bit numbers: the middle key tells which four of the eight are counted one
 * by one. Five loads instead of eight, because what waits for memory fills the processor's load queue, and
 * the next look-up cannot start behind a full one.
 *
 * Unused places of a line hold the largest key. They count for x = largest key, so callers answer that one
 * address on their own.
 *
 * Private to cidr_set and cidr_tree. Thread: [any, pure].
 */
#ifndef POLICY_CIDR_LINE_H
#define POLICY_CIDR_LINE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum {
    LINE_BYTES = 64,
    LINE_KEYS_16 = LINE_BYTES / 2,
    LINE_KEYS_32 = LINE_BYTES / 4,
    LINE_KEYS_64 = LINE_BYTES / 8,
};

/* SSE2 compares signed numbers only: 32-bit keys are stored with their top bit flipped, which turns the
 * unsigned order into the signed one. */
static inline int32_t line_key32(uint32_t x)
{
    return (int32_t)(x ^ UINT32_C(0x80000000));
}

static inline uint32_t line_value32(int32_t key)
{
    return (uint32_t)key ^ UINT32_C(0x80000000);
}

static inline uint32_t line_rank16_portable(const uint16_t *line, uint16_t x)
{
    uint32_t n = 0;
    for (size_t i = 0; i < LINE_KEYS_16; i++)
        n += line[i] <= x;
    return n;
}

static inline uint32_t line_rank32_portable(const int32_t *line, int32_t x)
{
    uint32_t n = 0;
    for (size_t i = 0; i < LINE_KEYS_32; i++)
        n += line[i] <= x;
    return n;
}

/* Keeps the compiler from turning a sum of comparisons into SSE2 arithmetic, which takes three times as long
 * as one compare and one add-with-carry a key. */
#define LINE_STAY_SCALAR(n) __asm__("" : "+r"(n))

/* The first of the four keys that are left to count, once `is_upper` says whether the middle key is <= x. The
 * middle key itself is among the lower four and not <= x then, so all four can be counted. */
static inline uint32_t line_half64(uint32_t is_upper)
{
    LINE_STAY_SCALAR(is_upper); /* no branch: it would be mispredicted half of the time */
    return is_upper * (LINE_KEYS_64 / 2);
}

static inline uint32_t line_rank64(const uint64_t *line, uint64_t x)
{
    const uint32_t first = line_half64(line[LINE_KEYS_64 / 2 - 1] <= x);
    uint32_t n = first;
    for (size_t i = 0; i < LINE_KEYS_64 / 2; i++) {
        n += line[first + i] <= x;
        LINE_STAY_SCALAR(n);
    }
    return n;
}

#ifdef __SSE2__

/* 16 keys: bit i is set when key i is <= x. The saturated difference key - x is 0 exactly then. */
static inline uint32_t line_mask16(const __m128i *v, __m128i x)
{
    const __m128i zero = _mm_setzero_si128();
    const __m128i a = _mm_cmpeq_epi16(_mm_subs_epu16(_mm_load_si128(v), x), zero);
    const __m128i b = _mm_cmpeq_epi16(_mm_subs_epu16(_mm_load_si128(v + 1), x), zero);
    return (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(a, b));
}

/* `line`: 32 sorted keys, 64-byte aligned. */
static inline uint32_t line_rank16(const uint16_t *line, uint16_t x)
{
    const __m128i *v = (const __m128i *)line;
    const __m128i needle = _mm_set1_epi16((short)x);
    const uint64_t mask = line_mask16(v, needle) | line_mask16(v + 2, needle) << 16;
    return (uint32_t)__builtin_ctzll(~mask);
}

/* `line`: 16 sorted keys made by line_key32(), 64-byte aligned. `x` likewise. */
static inline uint32_t line_rank32(const int32_t *line, int32_t x)
{
    const __m128i *v = (const __m128i *)line;
    const __m128i needle = _mm_set1_epi32(x);
    const __m128i a = _mm_packs_epi32(_mm_cmpgt_epi32(_mm_load_si128(v), needle),
                                      _mm_cmpgt_epi32(_mm_load_si128(v + 1), needle));
    const __m128i b = _mm_packs_epi32(_mm_cmpgt_epi32(_mm_load_si128(v + 2), needle),
                                      _mm_cmpgt_epi32(_mm_load_si128(v + 3), needle));
    const uint32_t greater = (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(a, b));
    return (uint32_t)__builtin_ctz(greater | UINT32_C(1) << LINE_KEYS_32);
}

#else

static inline uint32_t line_rank16(const uint16_t *line, uint16_t x)
{
    return line_rank16_portable(line, x);
}

static inline uint32_t line_rank32(const int32_t *line, int32_t x)
{
    return line_rank32_portable(line, x);
}

#endif

#endif
