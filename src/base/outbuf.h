/* outbuf.h - append-only writer into memory of a fixed size that the caller owns.
 *
 * Heads, log lines and metric pages are written with it. Overflow is remembered, not reported at every
 * call: write everything, then look at `overflow` once.
 *
 * Example:  struct outbuf o = outbuf_of(mem, sizeof mem);
 *           outbuf_span(&o, SPAN("X: ")); outbuf_u64(&o, 42);
 *           if (o.overflow) return ERR_LIMIT;
 *
 * Thread: [any, pure].
 */
#ifndef BASE_OUTBUF_H
#define BASE_OUTBUF_H

#include "base/span.h"

struct outbuf {
    char *p;       /* borrowed memory */
    size_t n;      /* bytes written */
    size_t cap;    /* how far it may be written: after an overflow no further than it was */
    bool overflow; /* something did not fit; nothing was written since */
};

static inline struct outbuf outbuf_of(char *p, size_t cap)
{
    return (struct outbuf){p, 0, cap, false};
}

/* Something does not fit: from now on nothing does. */
static inline void outbuf_fail(struct outbuf *o)
{
    o->overflow = true;
    o->cap = o->n;
}

/* Room for `n` bytes, which count as written: the caller fills them. NULL when they do not fit. */
static inline char *outbuf_take(struct outbuf *o, size_t n)
{
    if (n > o->cap - o->n) {
        outbuf_fail(o);
        return NULL;
    }
    char *room = o->p + o->n;
    o->n += n;
    return room;
}

static inline void outbuf_bytes(struct outbuf *o, const char *p, size_t n)
{
    char *room = outbuf_take(o, n);
    if (room && n) memcpy(room, p, n);
}

static inline void outbuf_span(struct outbuf *o, struct span s)
{
    outbuf_bytes(o, s.p, s.n);
}

static inline void outbuf_char(struct outbuf *o, char c)
{
    outbuf_bytes(o, &c, 1);
}

void outbuf_str(struct outbuf *o, const char *s);
void outbuf_u64(struct outbuf *o, uint64_t v);
/* Lower-case hexadecimal without leading zeros. */
void outbuf_hex(struct outbuf *o, uint64_t v);
/* `v` thousandths as a decimal fraction with three digits: 1234 -> "1.234". */
void outbuf_milli(struct outbuf *o, uint64_t v);
/* Like printf; needs one byte of room more than it writes. */
void outbuf_fmt(struct outbuf *o, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* A JSON string with its quotes: ", \, controls escaped; bytes >= 0x80 that are not valid UTF-8 become
 * \u00XX. */
void outbuf_json(struct outbuf *o, struct span s);

#endif
