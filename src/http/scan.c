#include "http/scan.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* What one control byte means for the scan. */
enum step { STEP_ON, STEP_END, STEP_REFUSE };

static inline bool is_control(unsigned char c)
{
    return c < 0x20 || c == 0x7f;
}

/* Whether the byte after a CR or LF at the end of the bytes seen so far may stand there. Only the first
 * byte of a call needs it; inside a call after_cr() and after_lf() look ahead. */
static inline bool may_follow_lf(char c)
{
    /* SP, HTAB: obs-fold (RFC 9112 section 5.2). ':': an empty field name. */
    return c != ' ' && c != '\t' && c != ':';
}

/* The LF at p[k], behind its CR: the end of a line, or of the head. Looks at p[k + 1] if it has arrived, so
 * that bytes which are not control bytes never need to be looked at one by one. */
static inline enum step on_line_end(struct head_scan *s, const char *p, size_t n, size_t k)
{
    if (k < 2) return STEP_REFUSE; /* an empty start line */
    if (s->lf == k - 1) return STEP_END;
    s->lf = (uint32_t)k + 1;
    return k + 1 < n && !may_follow_lf(p[k + 1]) ? STEP_REFUSE : STEP_ON;
}

/* Judges the control byte p[k], a CR together with its LF; every earlier control byte has been judged.
 * `*next` is the first byte behind. */
static inline enum step on_control(struct head_scan *s, const char *p, size_t n, size_t k, size_t *next)
{
    *next = k + 1;
    switch (p[k]) {
    case '\r':
        if (k + 1 == n) {
            s->cr = (uint32_t)n;
            return STEP_ON;
        }
        *next = k + 2;
        return p[k + 1] == '\n' ? on_line_end(s, p, n, k + 1) : STEP_REFUSE;
    case '\n': return s->cr == k ? on_line_end(s, p, n, k) : STEP_REFUSE;
    case '\t': return STEP_ON;
    default: return STEP_REFUSE;
    }
}

/* The byte at s->at against what the bytes before it, of an earlier call, demand. */
static inline bool may_resume(const struct head_scan *s, const char *p, size_t n)
{
    if (s->at == 0 || s->at >= n) return true;
    if (s->cr == s->at) return p[s->at] == '\n';
    return s->lf != s->at || may_follow_lf(p[s->at]);
}

static enum scan_result scan_done(struct head_scan *s, size_t end)
{
    s->at = s->end = (uint32_t)end;
    return SCAN_DONE;
}

/* Byte by byte over p[from..n). */
static enum scan_result scan_bytes(struct head_scan *s, const char *p, size_t n, size_t from)
{
    for (size_t k = from, next; k < n; k = next) {
        enum step step = STEP_ON;
        next = k + 1;
        if (is_control((unsigned char)p[k])) step = on_control(s, p, n, k, &next);
        if (step == STEP_END) return scan_done(s, next);
        if (step == STEP_REFUSE) return SCAN_REFUSE;
    }
    s->at = (uint32_t)n;
    return SCAN_MORE;
}

enum scan_result head_scan_portable(struct head_scan *s, const char *p, size_t n)
{
    if (!may_resume(s, p, n)) return SCAN_REFUSE;
    return scan_bytes(s, p, n, s->at);
}

#ifdef __SSE2__

enum { BLOCK = 16 };

/* One bit for each control byte of p[0..16). */
static inline unsigned control_mask(const char *p)
{
    __m128i v = _mm_loadu_si128((const __m128i *)(const void *)p);
    __m128i low = _mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(0x1f)), v);
    __m128i del = _mm_cmpeq_epi8(v, _mm_set1_epi8(0x7f));
    return (unsigned)_mm_movemask_epi8(_mm_or_si128(low, del));
}

enum scan_result head_scan(struct head_scan *s, const char *p, size_t n)
{
    if (!may_resume(s, p, n)) return SCAN_REFUSE;

    size_t i = s->at;
    while (n - i >= BLOCK) {
        unsigned mask = control_mask(p + i);
        if (!mask) {
            i += BLOCK;
            continue;
        }
        enum step step = on_control(s, p, n, i + (size_t)__builtin_ctz(mask), &i);
        if (step == STEP_END) return scan_done(s, i);
        if (step == STEP_REFUSE) return SCAN_REFUSE;
    }
    return scan_bytes(s, p, n, i);
}

#else

enum scan_result head_scan(struct head_scan *s, const char *p, size_t n)
{
    return head_scan_portable(s, p, n);
}

#endif

size_t head_skip_crlf(const char *p, size_t n, unsigned pairs_max)
{
    size_t i = 0;
    while (pairs_max-- && n - i >= 2 && p[i] == '\r' && p[i + 1] == '\n')
        i += 2;
    return i;
}
