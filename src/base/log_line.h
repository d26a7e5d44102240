/* log_line.h - the text of one operations line: `time=... level=... thread=... event=... key=value ...`.
 *
 * A value made of letters, digits and a few harmless signs is written as it is, anything else as a JSON
 * string; so a newline, a quote or a terminal escape that a client sent can never start a line or a field.
 * Values are cut after LOG_VALUE_MAX bytes; pairs that do not fit into the line are left out and the line
 * ends with `cut=1`.
 *
 * Thread: [any, pure].
 */
#ifndef BASE_LOG_LINE_H
#define BASE_LOG_LINE_H

#include "base/log.h"

/* A line is not longer than what a pipe takes at once (PIPE_BUF), so lines of several writers never mix. */
enum { LOG_LINE_MAX = 4096, LOG_VALUE_MAX = 1024 };

/* Writes one whole line with its newline and returns its length. `kv` ends with KV_END. */
size_t log_line_format(char out[static LOG_LINE_MAX], uint64_t wall_ms, enum log_level level,
                       const char *thread, const char *event, const struct kv *kv);

#endif
