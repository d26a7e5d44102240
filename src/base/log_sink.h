/* log_sink.h - one output of the log: a descriptor and the lines that it has not taken yet.
 *
 * Nothing here waits. A descriptor that is not a regular file is written only when poll(2) says so, and
 * then at most PIPE_BUF bytes at a time, cut behind a newline: such a write neither blocks nor mixes with
 * lines of other processes. O_NONBLOCK is not used because standard output is shared with whoever started
 * us. While the reader is slow lines pile up to LOG_SINK_BYTES; more are dropped and counted.
 *
 * Thread: the log thread; the two counters [any].
 */
#ifndef BASE_LOG_SINK_H
#define BASE_LOG_SINK_H

#include "base/err.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LOG_SINK_BYTES = 256 * 1024 };

struct log_sink {
    int fd;          /* -1: off, lines vanish */
    char *path;      /* of a file that we opened; NULL: descriptor of the process or off. Owned */
    bool is_regular; /* a regular file: never blocks for long, takes everything at once */
    bool is_midline; /* the last byte that was written is not a newline */

    char *pending; /* LOG_SINK_BYTES; owned */
    size_t start, end;

    _Atomic uint64_t dropped;      /* lines without room, or lost with a failed write */
    _Atomic uint64_t write_errors; /* failed writes */

    int sys;              /* errno of the last failed write */
    uint64_t errors_told; /* write_errors as log_outputs.c saw it last */
    uint64_t told_at_us;  /* when log_outputs.c last reported a failed write; 0 = never */
};

/* `path`: as in struct log_options. Errors: ERR_IO (errno tells), ERR_NOMEM. */
enum err log_sink_open(struct log_sink *s, const char *path);

/* Closes a file that was opened, and frees; pending lines are lost. Idempotent. */
void log_sink_close(struct log_sink *s);

/* Opens the path again and closes the old file. On ERR_IO the old file stays in use. Does nothing for
 * descriptors of the process. */
enum err log_sink_reopen(struct log_sink *s);

/* Moves the output of `other` into `s` and leaves `other` closed; nothing may be pending in it. `s` keeps its
 * counters and its pending lines, which go to the new output; when that is off they are counted as dropped.
 */
void log_sink_replace(struct log_sink *s, struct log_sink *other);

/* True when both write to the same file, pipe or terminal. */
bool log_sink_is_same(const struct log_sink *a, const struct log_sink *b);

/* True when log_sink_put() would take `n` bytes now. May write pending lines to make room. */
bool log_sink_has_room(struct log_sink *s, size_t n);

/* Adds whole lines. False (and counted) when there is no room. */
bool log_sink_put(struct log_sink *s, const char *p, size_t n);

/* Writes what the descriptor takes now. True when nothing is left. */
bool log_sink_flush(struct log_sink *s);

/* Writes one line of at most PIPE_BUF bytes to `fd` at once, or not at all: false. */
bool log_fd_write(int fd, const char *p, size_t n);

#endif
