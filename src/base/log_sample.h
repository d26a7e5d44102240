/* log_sample.h - a rate limit for one kind of log line, where anybody outside can cause it.
 *
 *   if (log_sample_take(&s, now_ms, &unlogged)) log_info("event", ..., KV_UINT("unlogged", unlogged));
 *
 * Thread: [the owner's].
 */
#ifndef BASE_LOG_SAMPLE_H
#define BASE_LOG_SAMPLE_H

#include <stdbool.h>
#include <stdint.h>

enum { LOG_SAMPLE_MS = 1000 }; /* at most one line in this time */

struct log_sample {
    uint64_t next_ms;  /* no line before this */
    uint64_t unlogged; /* since the last line */
};

/* True when a line may be written now; `*unlogged` is how many were not since the one before. */
static inline bool log_sample_take(struct log_sample *s, uint64_t now_ms, uint64_t *unlogged)
{
    if (now_ms < s->next_ms) {
        s->unlogged++;
        return false;
    }
    *unlogged = s->unlogged;
    *s = (struct log_sample){.next_ms = now_ms + LOG_SAMPLE_MS};
    return true;
}

#endif
