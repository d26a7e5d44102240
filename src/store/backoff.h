/* backoff.h - how long to wait before the next try: doubling, capped, with jitter.
 *
 *   try         1          2          3     ...   7 and later
 *   waits   100..200   200..400   400..800  ...   5000..10000 ms
 *
 * Half of each wait is random, so that gateways that lost the same server do not come back to it at once.
 *
 * Thread: [any, pure].
 */
#ifndef STORE_BACKOFF_H
#define STORE_BACKOFF_H

#include <stdint.h>

enum { BACKOFF_MIN_MS = 100, BACKOFF_MAX_MS = 10000 };

/* Starts zeroed. */
struct backoff {
    unsigned failures; /* since the last success; stops counting at the cap */
};

/* The wait after one more failure, BACKOFF_MIN_MS to BACKOFF_MAX_MS. `random`: any 32 random bits. */
uint64_t backoff_next(struct backoff *b, uint32_t random);

/* After a success. */
void backoff_reset(struct backoff *b);

#endif
