#include "base/outbuf.h"

#include "base/utf8.h"

#include <stdarg.h>
#include <stdio.h>

enum { HEX_DIGITS_MAX = 16 };

static const char hex_digits[] = "0123456789abcdef";

/* 00 to 99. */
static const char digit_pairs[] =
    "00010203040506070809101112131415161718192021222324252627282930313233343536373839"
    "40414243444546474849505152535455565758596061626364656667686970717273747576777879"
    "8081828384858687888990919293949596979899";

void outbuf_str(struct outbuf *o, const char *s)
{
    outbuf_bytes(o, s, strlen(s));
}

/* How many decimal digits `v` has. Most numbers of an access log line have one. */
static size_t decimal_length(uint64_t v)
{
    size_t n = 1;
    if (v < 10) return n;
    for (; v >= 10000; v /= 10000)
        n += 4;
    return n + (v >= 10) + (v >= 100) + (v >= 1000);
}

/* Writes the `n` digits of `v`, two at a time. */
static void decimal_write(char *room, size_t n, uint64_t v)
{
    for (; v >= 100; v /= 100)
        memcpy(&room[n -= 2], &digit_pairs[v % 100 * 2], 2);
    if (n == 2)
        memcpy(room, &digit_pairs[v * 2], 2);
    else
        room[0] = (char)('0' + v);
}

void outbuf_u64(struct outbuf *o, uint64_t v)
{
    size_t n = decimal_length(v);
    char *room = outbuf_take(o, n);
    if (room) decimal_write(room, n, v);
}

void outbuf_hex(struct outbuf *o, uint64_t v)
{
    char digits[HEX_DIGITS_MAX];
    char *at = digits + sizeof digits;
    do
        *--at = hex_digits[v & 15];
    while (v >>= 4);
    outbuf_bytes(o, at, (size_t)(digits + sizeof digits - at));
}

void outbuf_milli(struct outbuf *o, uint64_t v)
{
    uint64_t whole = v / 1000;
    unsigned rest = (unsigned)(v % 1000);
    size_t n = decimal_length(whole);
    char *room = outbuf_take(o, n + 4);
    if (!room) return;
    decimal_write(room, n, whole);
    room[n] = '.';
    room[n + 1] = (char)('0' + rest / 100);
    memcpy(room + n + 2, &digit_pairs[rest % 100 * 2], 2);
}

void outbuf_fmt(struct outbuf *o, const char *format, ...)
{
    if (o->overflow) return;
    size_t room = o->cap - o->n;
    va_list ap;
    va_start(ap, format);
    int n = vsnprintf(o->p + o->n, room, format, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= room)
        outbuf_fail(o);
    else
        o->n += (size_t)n;
}

static bool is_json_plain(unsigned char c)
{
    return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

static void json_escape(struct outbuf *o, unsigned char c)
{
    char text[] = {'\\', 'u', '0', '0', hex_digits[c >> 4], hex_digits[c & 15]};
    switch (c) {
    case '"':
    case '\\': text[1] = (char)c; break;
    case '\b': text[1] = 'b'; break;
    case '\f': text[1] = 'f'; break;
    case '\n': text[1] = 'n'; break;
    case '\r': text[1] = 'r'; break;
    case '\t': text[1] = 't'; break;
    default: outbuf_bytes(o, text, 6); return;
    }
    outbuf_bytes(o, text, 2);
}

void outbuf_json(struct outbuf *o, struct span s)
{
    outbuf_char(o, '"');
    const unsigned char *p = (const unsigned char *)s.p;
    for (size_t i = 0; i < s.n;) {
        uint32_t code; /* not used: valid bytes are copied */
        size_t run = 0;
        while (i + run < s.n && is_json_plain(p[i + run]))
            run++;
        if (run == 0 && p[i] >= 0x80) run = utf8_decode(s.p + i, s.n - i, &code);
        if (run) {
            outbuf_bytes(o, s.p + i, run);
            i += run;
        } else {
            json_escape(o, p[i++]);
        }
    }
    outbuf_char(o, '"');
}
