/* stream_tls.h - between net/stream.c, which talks to the socket, and net/stream_tls.c, which puts TLS behind
 * it. For those two files only.
 *
 *   recv --stream_tls_take--> engine --on_read--> user
 *   user --stream_tls_write--> engine --stream_send--> socket
 *
 * Thread: [the loop's].
 */
#ifndef NET_STREAM_TLS_H
#define NET_STREAM_TLS_H

#include "net/stream.h"

/* --- by stream_tls.c: s->tls is set ----------------------------------------------------------------- */

/* The socket is connected: CONNECTING -> HANDSHAKE, the first flight goes out. */
void stream_tls_begin(struct stream *s);

/* Bytes came from the socket; the FIN came. Calls: any event. */
void stream_tls_take(struct stream *s, const char *p, size_t n);
void stream_tls_take_fin(struct stream *s);

/* Hands over what was decrypted, or the end that was found, while reading was paused; unless it still is.
 * True when there was something. Calls: any event. */
bool stream_tls_hand_over(struct stream *s);
bool stream_tls_has_waiting(const struct stream *s);

/* The same, or part of a record has come. */
bool stream_tls_has_more(const struct stream *s);

/* Reading was resumed: what waits is handed over in the next round of the loop. */
void stream_tls_resume(struct stream *s);

/* As stream_write(); `total` > 0. */
enum err stream_tls_write(struct stream *s, struct iovec *iov, unsigned n, size_t total);

/* Sends close_notify behind all bytes; during the handshake, after its end. */
void stream_tls_send_close_notify(struct stream *s);

/* Before the socket is closed: close_notify if it may still be said; frees s->tls. */
void stream_tls_end(struct stream *s, enum stream_end how);

/* --- by stream.c ------------------------------------------------------------------------------------ */

/* Sets all fields and begins to poll. On failure `fd` is closed. Errors: ERR_NOMEM, ERR_IO. */
enum err stream_start(struct stream *s, struct loop *l, int fd, const struct stream_events *events,
                      enum stream_state state);

/* Sends to the socket without TLS; what the kernel does not take waits in `pending`. Errors: those of
 * stream_write(). */
enum err stream_send(struct stream *s, struct iovec *iov, unsigned n, size_t total);

/* The one setter. */
void stream_set_state(struct stream *s, enum stream_state to);

/* The stream has become OPEN. Calls: on_connected. */
void stream_tell_open(struct stream *s);

/* Sends the FIN, if it is due. */
void stream_finish_shutdown(struct stream *s);

/* Tells libuv what to wait for. To be called when state, reading, eof or pending has changed. */
void stream_update_interest(struct stream *s);

#endif
