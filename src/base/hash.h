/* hash.h - FNV-1a, 64 bits, for keys that operators choose. It has no key, so whoever chooses what is hashed
 * can make collisions: for what clients send, see proxy/sources.c. Its low bits are weak: a table that takes
 * them mixes first.
 *
 * Example:  uint64_t h = hash_fnv1a(HASH_FNV1A_BASIS, id);
 *
 * Thread: [any, pure].
 */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include "base/span.h"

#define HASH_FNV1A_BASIS UINT64_C(0xcbf29ce484222325)

/* `hash` carried on over the bytes of `s`; HASH_FNV1A_BASIS to begin with. */
static inline uint64_t hash_fnv1a(uint64_t hash, struct span s)
{
    for (size_t i = 0; i < s.n; i++)
        hash = (hash ^ (uint8_t)s.p[i]) * UINT64_C(0x100000001b3);
    return hash;
}

#endif
