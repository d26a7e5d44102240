/* moment.h - instants and durations as operators read them.
 * Thread: [any, pure]. */
#ifndef PROOFCTL_MOMENT_H
#define PROOFCTL_MOMENT_H

#include <stdint.h>

enum { MOMENT_TEXT_MAX = 96 };

/* "2026-11-30T12:00:00Z"; milliseconds are written when there are any. Returns `out`. */
const char *moment_rfc3339(uint64_t wall_ms, char out[static MOMENT_TEXT_MAX]);

/* "Monday 30 November 2026, 12:00:00 UTC, in 24 hours". Returns `out`. */
const char *moment_in_words(uint64_t wall_ms, uint64_t now_ms, char out[static MOMENT_TEXT_MAX]);

#endif
