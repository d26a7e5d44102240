/* splice.h - moves bytes from one plain socket to another inside the kernel, without copying them.
 *
 *   from --stream_splice_in--> the loop's pipe --stream_splice_out--> to
 *                                      what `to` does not take --read--> to->pending
 *
 * A loop has one pipe, made for the first use and empty between two uses. For small amounts recv and send are
 * cheaper: this pays from some 64 KiB on.
 *
 *   size_t n = stream_splice_in(from, max);
 *   if (n) e = stream_splice_out(to, n);
 *
 * SIGPIPE must be ignored: splice() has no MSG_NOSIGNAL.
 *
 * Thread: [the loop's].
 */
#ifndef NET_SPLICE_H
#define NET_SPLICE_H

#include "net/stream.h"

/* Both are open and plain, and `to` would send at once. */
bool stream_can_splice(const struct stream *from, const struct stream *to);

/* Moves what `from` has received, up to `max` bytes and to loop.read_buffer_bytes, into the loop's pipe;
 * counts it in bytes_in. Returns the bytes, which must be given to stream_splice_out() before anything else
 * happens on the loop. 0: nothing came, or it cannot be done (the end of the stream, an error, no
 * descriptors, a sandbox without splice()): read as usual. splice() consumes a pending socket error; the next
 * read then sees end of stream. So only for bytes whose number is known. */
size_t stream_splice_in(struct stream *from, size_t max);

/* Sends the n bytes in the pipe; what the kernel does not take waits in `pending`. stream_can_splice() must
 * hold. Errors: those of stream_write(). The pipe is empty afterwards in any case. */
enum err stream_splice_out(struct stream *to, size_t n);

/* How many bytes `s` has received that nobody has taken yet (one system call): after the end of a message,
 * what follows it. recv() would have brought that along, splice() has not. Not 0 when it cannot be told. */
size_t stream_waiting(const struct stream *s);

/* Closes the pipe, if there is one. For loop_deinit(). */
void splice_pipe_close(struct loop *l);

#endif
