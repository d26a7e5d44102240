/* span.h - a borrowed run of bytes: pointer and length, not NUL-terminated, not owned.
 *
 * The one type in which parsers hand out pieces of their input. Comparisons that ignore case are
 * ASCII only (RFC 9110 field names, host names, schemes).
 *
 * Thread: [any, pure].
 */
#ifndef BASE_SPAN_H
#define BASE_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct span {
    const char *p; /* may be NULL only when n is 0 */
    size_t n;      /* bytes */
};

/* A span over a string literal. */
#define SPAN(lit) ((struct span){(lit), sizeof(lit) - 1})

static inline struct span span_of(const char *p, size_t n)
{
    return (struct span){p, n};
}

static inline struct span span_str(const char *s)
{
    return (struct span){s, strlen(s)};
}

static inline bool span_eq(struct span a, struct span b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

/* Equal, in a time that depends on the length only: for what must not be guessed piece by piece. Eight bytes
 * at a time; CRYPTO_memcmp() takes a step per byte, which is felt at once per request. */
static inline bool bytes_equal_secret(const char *a, const char *b, size_t n)
{
    uint64_t differ = 0;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        uint64_t x, y;
        memcpy(&x, a + i, 8);
        memcpy(&y, b + i, 8);
        differ |= x ^ y;
    }
    for (; i < n; i++)
        differ |= (uint64_t)(uint8_t)(a[i] ^ b[i]);
    return differ == 0;
}

/* One ASCII letter to lower case; everything else unchanged. */
static inline char ascii_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
}

/* The same for eight bytes at once. */
static inline uint64_t ascii_lower8(uint64_t v)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    uint64_t low = v & 0x7f * ones; /* adding to these carries no bit into the next byte */
    uint64_t is_upper = (low + (0x80 - 'A') * ones) & ~(low + (0x7f - 'Z') * ones) & ~v & 0x80 * ones;
    return v | is_upper >> 2; /* 0x80 >> 2 is the bit that makes a letter small */
}

/* Eight bytes at each place, equal but for ASCII case. */
static inline bool bytes_ieq8(const char *a, const char *b)
{
    uint64_t x, y;
    memcpy(&x, a, 8);
    memcpy(&y, b, 8);
    return x == y || ascii_lower8(x) == ascii_lower8(y);
}

/* Equal but for ASCII case. */
static inline bool span_ieq(struct span a, struct span b)
{
    if (a.n != b.n) return false;
    if (a.n < 8) {
        for (size_t i = 0; i < a.n; i++)
            if (ascii_lower(a.p[i]) != ascii_lower(b.p[i])) return false;
        return true;
    }
    for (size_t i = 0; i < a.n - 8; i += 8)
        if (!bytes_ieq8(a.p + i, b.p + i)) return false;
    return bytes_ieq8(a.p + a.n - 8, b.p + b.n - 8); /* may look at some bytes twice */
}

static inline bool span_starts(struct span s, struct span prefix)
{
    return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}

/* Without leading and trailing SP and HTAB (RFC 9110 section 5.6.3, OWS). */
static inline struct span span_trim(struct span s)
{
    while (s.n && (s.p[0] == ' ' || s.p[0] == '\t'))
        s.p++, s.n--;
    while (s.n && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t'))
        s.n--;
    return s;
}

/* Parses 1 to 19 decimal digits, nothing else. False (and *out untouched) otherwise. */
bool span_to_u64(struct span s, uint64_t *out);

/* Copies `s` and a NUL into `out` (capacity `cap` bytes). False, and an empty string, when it does not fit
 * or contains a NUL byte. */
bool span_to_cstr(struct span s, char *out, size_t cap);

#endif
