/* clock.h - the two clocks, and the text of an instant (RFC 3339). Deadlines use the monotonic clock, token
 * expiry and logs the wall clock.
 *
 * Thread: [any].
 */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include "base/err.h"
#include "base/span.h"

#include <stdint.h>

uint64_t clock_mono_us(void); /* CLOCK_MONOTONIC, microseconds */
uint64_t clock_wall_ms(void); /* CLOCK_REALTIME, milliseconds since 1970-01-01T00:00:00Z */

enum { CLOCK_RFC3339_LEN = 24 }; /* "2026-11-21T13:25:03.123Z" */

/* Writes exactly CLOCK_RFC3339_LEN bytes, no NUL. UTC, without the C library's time zone code. Instants
 * after the year 9999 are written as its last millisecond. */
void clock_rfc3339(uint64_t wall_ms, char out[static CLOCK_RFC3339_LEN]);

/* Parses a date-time with "Z" or a numeric offset; a fraction of a second is cut to milliseconds. Errors:
 * ERR_PARSE (anything else; impossible dates, leap seconds, and instants before 1970 or after 9999).
 * Spec: RFC 3339 section 5.6. */
enum err clock_parse_rfc3339(struct span text, uint64_t *wall_ms);

#endif
