/* relay.h - gathers a head and body runs into few writes, with the framing of the receiving side.
 *
 * Framing is always written anew: chunk sizes, trailers and extensions of one side never reach the other.
 * The runs are borrowed until relay_flush() returns.
 *
 *   struct relay r; relay_begin(&r, to, chunked);
 *   relay_raw(&r, head); relay_data(&r, run); ... relay_end(&r);
 *   enum err e = relay_flush(&r);
 *
 * Thread: [worker].
 */
#ifndef PROXY_RELAY_H
#define PROXY_RELAY_H

#include "base/span.h"
#include "net/stream.h"

enum { RELAY_RUNS_MAX = 20, RELAY_FRAME_MAX = 20 };

struct relay {
    struct stream *to;
    bool chunked;
    bool flushed;     /* something was given to the stream */
    enum err failed;  /* first failure of the stream; nothing is written after it */
    uint64_t written; /* bytes given to the stream so far, framing included */
    unsigned n, nframes;
    struct iovec iov[STREAM_IOV_MAX];
    char frames[RELAY_RUNS_MAX][RELAY_FRAME_MAX]; /* "hex CRLF" of each run */
};

/* Nothing collected yet. `to`: NULL when nothing will be sent. `chunked`: data is framed as chunks. */
void relay_begin(struct relay *r, struct stream *to, bool chunked);

/* Bytes without framing: a head. */
void relay_raw(struct relay *r, struct span bytes);

/* One run of body data; empty runs are skipped (they would end a chunked body). */
void relay_data(struct relay *r, struct span data);

/* The end of the body: the last chunk when chunked. */
void relay_end(struct relay *r);

/* Gives everything to the stream. Errors: those of stream_write(), of any write since relay_begin(). */
enum err relay_flush(struct relay *r);

#endif
