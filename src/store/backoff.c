#include "store/backoff.h"

uint64_t backoff_next(struct backoff *b, uint32_t random)
{
    uint64_t longest = (uint64_t)BACKOFF_MIN_MS << (b->failures + 1);
    if (longest < BACKOFF_MAX_MS)
        b->failures++;
    else
        longest = BACKOFF_MAX_MS;
    uint64_t half = longest / 2;
    return half + random % (longest - half + 1);
}

void backoff_reset(struct backoff *b)
{
    b->failures = 0;
}
