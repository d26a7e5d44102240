/* body.h - reads body framing, byte run by byte run, without buffering any of it.
 *
 * The caller feeds what it received; the reader hands back data runs that point into the input and says how
 * much was consumed. Chunked framing is checked strictly (RFC 9112 section 7.1): hex size without sign or
 * space, CRLF everywhere, extensions bounded and ignored, trailers bounded and dropped.
 *
 *   struct body_reader r; body_reader_init(&r, BODY_CHUNKED, 0, &limits);
 *   while (n && !body_is_done(&r)) {
 *       struct span data; size_t used;
 *       enum body_result b = body_read(&r, p, n, &used, &data);
 *       if (b != BODY_OK) refuse(b);
 *       if (data.n) forward(data);
 *       p += used; n -= used;
 *   }
 *
 * Thread: [any, pure].
 */
#ifndef HTTP_BODY_H
#define HTTP_BODY_H

#include "base/span.h"
#include "http/head.h"

struct body_limits {
    uint64_t body_bytes_max;      /* data bytes of one body; UINT64_MAX = no limit */
    uint32_t chunk_ext_bytes_max; /* chunk extensions of one body, summed */
    uint32_t trailer_bytes_max;   /* trailer section of one body */
};

enum body_result {
    BODY_OK = 0,    /* used > 0 or the body is done */
    BODY_REFUSED,   /* framing is broken: never reuse this connection */
    BODY_TOO_LARGE, /* more data than body_bytes_max */
    BODY_LIMIT,     /* too many bytes of chunk extensions or trailers */
};

struct body_reader {
    uint8_t kind;  /* enum body_kind */
    uint8_t state; /* of the chunk machine, private */
    uint8_t digits;
    uint64_t left;  /* data bytes left in the body (BODY_LENGTH) or chunk */
    uint64_t total; /* data bytes handed out so far */
    uint32_t ext_bytes, trailer_bytes;
    const struct body_limits *limits; /* borrowed, must outlive the reader */
};

/* `content_length` only with BODY_LENGTH. */
void body_reader_init(struct body_reader *r, enum body_kind kind, uint64_t content_length,
                      const struct body_limits *limits);

/* Consumes up to n > 0 bytes. `*used` bytes were taken; `*data` is a run of body data inside them (may be
 * empty). At most one run per call. Never consumes bytes after the end of the body.
 * BODY_TOO_LARGE is reported before the first byte over the limit is handed out; a Content-Length over
 * `body_bytes_max` should be refused by the caller before. */
enum body_result body_read(struct body_reader *r, const char *p, size_t n, size_t *used, struct span *data);

/* The next n <= left bytes of a body with BODY_LENGTH were passed on without being seen. */
void body_skip(struct body_reader *r, uint64_t n);

/* The body ended within its framing. BODY_UNTIL_CLOSE is never done by itself. */
bool body_is_done(const struct body_reader *r);

#endif
