/* clock.h - the two clocks. Deadlines use the monotonic one, token expiry and logs the wall clock.
 * Thread: [any]. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

uint64_t clock_mono_us(void); /* CLOCK_MONOTONIC, microseconds */
uint64_t clock_wall_ms(void); /* CLOCK_REALTIME, milliseconds since 1970-01-01T00:00:00Z */

enum { CLOCK_RFC3339_LEN = 24 }; /* "2026-11-21T13:25:03.123Z" */

/* Writes exactly CLOCK_RFC3339_LEN bytes, no NUL. UTC, without the C library's time zone code. Instants
 * after the year 9999 are written as its last millisecond. */
void clock_rfc3339(uint64_t wall_ms, char out[static CLOCK_RFC3339_LEN]);

/* Parses RFC 3339 with "Z" or a numeric offset, seconds with an optional fraction (cut to milliseconds),
 * instants from 1970 to 9999. Returns 0, or -1 when the text is anything else (impossible dates and leap
 * seconds included). */
int clock_parse_rfc3339(const char *p, size_t n, uint64_t *wall_ms);

#endif
