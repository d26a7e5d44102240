/* scan.h - finds the end of an HTTP/1.1 head and refuses what no honest sender writes, before llhttp.
 *
 * One pass, 16 bytes at a time (SSE2; a portable loop elsewhere, tested to agree), stopping only at
 * control bytes. It exists because every released llhttp accepts something that another parser on the
 * way reads differently: bare CR, bare LF, obs-fold, empty field names, NUL.
 *
 * Resumable: the same object continues where it stopped when more bytes were appended to the same head
 * (the bytes may have moved; offsets are kept, not pointers).
 *
 * Thread: [any, pure].
 */
#ifndef HTTP_SCAN_H
#define HTTP_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum scan_result {
    SCAN_MORE = 0,   /* no end of head yet */
    SCAN_DONE = 1,   /* `end` is the length of the head, CRLF CRLF included */
    SCAN_REFUSE = 2, /* bare CR or LF, NUL or another control byte, obs-fold, empty field name */
};

struct head_scan {
    uint32_t at;  /* first byte not looked at yet */
    uint32_t end; /* set with SCAN_DONE */
    uint32_t cr;  /* offset + 1 of a CR whose LF had not come yet; 0 = none */
    uint32_t lf;  /* offset + 1 of the last LF; 0 = none */
};

static inline void head_scan_init(struct head_scan *s)
{
    *s = (struct head_scan){0};
}

/* Scans p[0..n), where p[0] is the first byte of the start line (leading CRLFs already skipped).
 * The start line must not be empty, n is below 4 GiB. Spec: RFC 9112 sections 2.2, 5.2. */
enum scan_result head_scan(struct head_scan *s, const char *p, size_t n);

/* The same without vector instructions: the reference for tests, the fallback elsewhere. */
enum scan_result head_scan_portable(struct head_scan *s, const char *p, size_t n);

/* Number of bytes of leading CRLF pairs to skip before a request line, at most `pairs_max` pairs.
 * A lone CR at the end of p[0..n) may be the first half of a pair: wait for one more byte before scanning.
 * Spec: RFC 9112 section 2.2 ("SHOULD ignore at least one empty line"). */
size_t head_skip_crlf(const char *p, size_t n, unsigned pairs_max);

#endif
