/* stream.h - one connected socket on a loop: reads into the loop's shared buffer, writes at once.
 *
 *   kernel --recv--> loop.read_buffer --on_read--> user (must take all of it before returning)
 *   user --stream_write--> send now; what does not fit waits in `pending` (copied) for a writable socket
 *
 * One uv_poll_t per socket, armed readable once and then left alone; the mask is kept here because every
 * uv_poll_start() costs two epoll_ctl calls. One recv per wake-up; a socket that it empties is edge-triggered
 * from then on, any other level-triggered. An idle stream owns no buffer.
 * TLS sits between the socket calls and these events (net/stream_tls.c): users see plaintext and the same
 * rules. bytes_in and bytes_out count what passes the socket; the user may set them back to 0.
 *
 * Back-pressure is the user's: after stream_write() look at stream_is_blocked() and pause the source;
 * on_drained says when to go on. So `pending` is bounded by what one read of the source can bring. What TLS
 * says by itself has a bound of its own: 4 KiB that the other side does not read.
 *
 *   stream_open/stream_connect -> [CONNECTING] -> [HANDSHAKE] -> OPEN -> stream_close()
 *                                     -> CLOSING -> on_closed -> memory is the user's
 *
 * After stream_close() no event comes but on_closed, once, in a later turn. Events may close the stream.
 *
 * Thread: [the loop's].
 */
#ifndef NET_STREAM_H
#define NET_STREAM_H

#include "base/container.h"
#include "net/loop.h"
#include "net/socket.h"
#include "net/tls.h"

#include <sys/uio.h>

struct stream;

struct stream_events {
    void (*on_connected)(struct stream *s); /* connected, and with TLS the handshake is done; not for
                                               stream_open(). May be NULL */
    void (*on_read)(struct stream *s, const char *p, size_t n); /* n > 0; p dies when this returns */
    bool (*on_readable)(struct stream *s); /* plain sockets only, before a read: true when the user has taken
                                              what there is by net/splice.h. May be NULL */
    void (*on_eof)(struct stream *s); /* the other side will send no more: FIN, with TLS close_notify; once */
    void (*on_drained)(struct stream *s);            /* pending became empty */
    void (*on_failed)(struct stream *s, enum err e); /* connect, handshake or read failed, or a reset came
                                                        after the end: close it. ERR_TRUNCATED: a FIN without
                                                        close_notify; ERR_TLS: stream_tls_reason() */
    void (*on_closed)(struct stream *s);             /* last event */
};

enum stream_state {
    STREAM_NONE = 0,   /* not opened */
    STREAM_CONNECTING, /* fd set; writes are queued. The time limit is the user's */
    STREAM_HANDSHAKE,  /* fd and tls set; writes are queued. The time limit is the user's */
    STREAM_OPEN,       /* fd set */
    STREAM_CLOSING,    /* fd closed; waits for libuv */
};

/* Bytes that wait for a writable socket. */
struct stream_pending {
    size_t at, n, cap; /* n > 0: p[at .. at + n) */
    uint64_t moved_ms; /* monotonic: when the first of them came, or some of them went */
    char p[];
};

struct stream {
    uv_poll_t poll;
    const struct stream_events *events; /* borrowed; may be changed at any time */
    struct stream_tls *tls;             /* owned; NULL = plain, or closed */
    struct stream_pending *pending;     /* owned; NULL = nothing waits */
    uint64_t bytes_in, bytes_out;       /* bytes_out: handed to the kernel */
    int fd;
    uint8_t state;         /* enum stream_state */
    uint8_t armed;         /* enum uv_poll_event, as last told to libuv */
    bool reading : 1;      /* the user wants on_read */
    bool is_edge : 1;      /* the kernel tells of arrivals, not of what waits: the socket was empty */
    bool eof : 1;          /* on_eof was given */
    bool is_lost : 1;      /* after eof: nothing more can come, not even an error */
    bool write_failed : 1; /* sending is over; reading may go on */
    bool shut_wanted : 1;  /* shutdown(SHUT_WR) once nothing is pending */
    bool shut_done : 1;
    bool is_unix : 1;  /* a unix socket: set by whoever has opened the stream */
    bool has_more : 1; /* the socket had more for us than the last read has taken: stream_has_more() */
};

/* Not in STREAM_NONE. */
static inline struct loop *stream_loop(const struct stream *s)
{
    return CONTAINER_OF(s->poll.loop, struct loop, uv);
}

/* Takes over a connected, non-blocking socket; reading starts. `s` is all zero, or was closed, and stays
 * STREAM_NONE on failure; `fd` is closed then.
 * Errors: ERR_NOMEM, ERR_IO. */
enum err stream_open(struct stream *s, struct loop *l, int fd, const struct stream_events *events);

/* Connects; on_connected or on_failed comes later, never before this returns. Reading starts after that.
 * Errors: those of socket_connect() when it fails at once (no event follows, the stream is STREAM_NONE). */
enum err stream_connect(struct stream *s, struct loop *l, const struct socket_address *a,
                        const struct stream_events *events);

/* The same with TLS. A server's stream is in HANDSHAKE from the start, a client's after CONNECTING; both are
 * OPEN with on_connected. Errors: those above; ERR_NOMEM closes `fd` as well. */
enum err stream_open_tls(struct stream *s, struct loop *l, int fd, struct tls_server *server,
                         const struct stream_events *events);
enum err stream_connect_tls(struct stream *s, struct loop *l, const struct socket_address *a,
                            const struct tls_target *to, const struct stream_events *events);

/* For logs, metrics and policy: from on_connected until stream_close(); false without TLS. See net/tls.h. */
bool stream_tls_info(const struct stream *s, struct tls_info *out);

/* This host is served by the connection's certificate (net/tls.h); true without TLS. From on_connected until
 * stream_close(). */
bool stream_covers_host(const struct stream *s, struct span host);

/* SHA-256 of the other side's certificate; false when it has shown none. From on_connected until
 * stream_close(). */
bool stream_tls_fingerprint(const struct stream *s, uint8_t out[static 32]);

/* Why TLS failed, until stream_close(); NULL when it has not. Static text. */
const char *stream_tls_reason(const struct stream *s);

/* The class of `e`, the error of on_failed: what TLS says, or that the other side is gone. */
enum tls_failure stream_tls_failure(const struct stream *s, enum err e);

/* Pauses or resumes on_read and on_eof (a handshake goes on). */
void stream_read_pause(struct stream *s);
void stream_read_resume(struct stream *s);

/* Tries one recv right now instead of waiting for the next turn (after accept with TCP_DEFER_ACCEPT). */
void stream_read_now(struct stream *s);

/* Nothing waits to be read, neither bytes nor the other side's FIN (one system call). With TLS, what waits in
 * the kernel counts whatever it is: it cannot be told without reading it. */
bool stream_is_quiet(const struct stream *s);

/* In on_read and on_readable: behind what they bring, more bytes or the end are known to come. Asks nobody:
 * what the kernel was not read for may be there all the same. */
bool stream_has_more(const struct stream *s);

enum { STREAM_IOV_MAX = 64 };

/* Sends the slices, in order; what the kernel does not take is copied to `pending`. n <= STREAM_IOV_MAX.
 * The iovec array is used as scratch. Errors: ERR_RESET or another failure of the socket (all later writes
 * fail the same way), ERR_NOMEM (the stream must be closed), ERR_CLOSED. */
enum err stream_write(struct stream *s, struct iovec *iov, unsigned n);

/* Bytes wait for the kernel: do not write more before on_drained. */
static inline bool stream_is_blocked(const struct stream *s)
{
    return s->pending || s->state == STREAM_CONNECTING || s->state == STREAM_HANDSHAKE;
}

/* Monotonic ms: when pending bytes began to wait, or some of them went, whichever was later. 0 when none are:
 * for time limits of writing. */
static inline uint64_t stream_moved_ms(const struct stream *s)
{
    return s->pending ? s->pending->moved_ms : 0;
}

/* No more writes; the FIN, with TLS behind close_notify, goes out after the pending bytes. */
void stream_shutdown(struct stream *s);

enum stream_end {
    STREAM_END_CLOSE, /* ordinary close; pending bytes are lost. With TLS close_notify is sent if none are */
    STREAM_END_RESET, /* RST, without close_notify: the other side must not take what it got for complete */
};

/* Idempotent. */
void stream_close(struct stream *s, enum stream_end how);

#endif
