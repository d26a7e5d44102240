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

/* Compares in constant time, which depends on `n` only: for secrets and their digests. Eight bytes at a time,
 * because CRYPTO_memcmp() goes byte by byte, which shows in a profile at one call per request. */
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

/* The value of a hexadecimal digit of either case, 0 to 15; -1 for any other character. */
static inline int ascii_hex_value(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c = ascii_lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Writes `n` bytes as 2 * n lower-case hexadecimal digits, without a NUL. */
static inline void ascii_hex_write(char *out, const uint8_t *bytes, size_t n)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
}

#define SPAN_EACH(byte) ((byte)*UINT64_C(0x0101010101010101)) /* in all eight bytes of a word */

/* 0x80 in place of each of eight bytes that is an ASCII letter. */
static inline uint64_t ascii_letters8(uint64_t v)
{
    uint64_t low = (v | SPAN_EACH(0x20)) & SPAN_EACH(0x7f); /* adding to these carries into no other byte */
    return (low + SPAN_EACH(0x80 - 'a')) & ~(low + SPAN_EACH(0x7f - 'z')) & ~v & SPAN_EACH(0x80);
}

/* The first four and the last four of 4 to 8 bytes: some of them perhaps twice. */
static inline uint64_t bytes_ends4(const char *p, size_t n)
{
    uint32_t first, last;
    memcpy(&first, p, 4);
    memcpy(&last, p + n - 4, 4);
    return (uint64_t)first << 32 | last;
}

/* Eight bytes of each, equal but for ASCII case. */
static inline bool words_ieq(uint64_t x, uint64_t y)
{
    uint64_t differ = x ^ y; /* 0x20 is what a small letter has and its capital has not */
    if (differ == 0) return true;
    return !(differ & ~SPAN_EACH(0x20)) && !(differ << 2 & ~ascii_letters8(x));
}

/* True when the eight bytes at `a` and at `b` are equal but for ASCII case. */
static inline bool bytes_ieq8(const char *a, const char *b)
{
    uint64_t x, y;
    memcpy(&x, a, 8);
    memcpy(&y, b, 8);
    return words_ieq(x, y);
}

/* Equal but for ASCII case. */
static inline bool span_ieq(struct span a, struct span b)
{
    if (a.n != b.n) return false;
    if (a.n < 4) {
        for (size_t i = 0; i < a.n; i++)
            if (ascii_lower(a.p[i]) != ascii_lower(b.p[i])) return false;
        return true;
    }
    if (a.n < 8) return words_ieq(bytes_ends4(a.p, a.n), bytes_ends4(b.p, b.n));
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
