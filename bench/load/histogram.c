#include "load/histogram.h"

#include <stdbool.h>

enum { FINE = 1 << HISTOGRAM_FINE_BITS };

/* Values of 2^(7+k) to 2^(8+k)-1 keep their upper 8 bits: 128 buckets for every k. */
static unsigned bucket_of(uint64_t us)
{
    if (us > UINT32_MAX) us = UINT32_MAX;
    if (us < FINE) return (unsigned)us;
    unsigned k = 31 - (unsigned)__builtin_clz((uint32_t)us) - HISTOGRAM_FINE_BITS;
    return (k << HISTOGRAM_FINE_BITS) + (unsigned)(us >> k);
}

static uint64_t last_of(unsigned bucket)
{
    if (bucket < FINE) return bucket;
    unsigned k = (bucket >> HISTOGRAM_FINE_BITS) - 1;
    uint64_t upper = (bucket & (FINE - 1)) | FINE;
    return ((upper + 1) << k) - 1;
}

void histogram_add(struct histogram *h, uint64_t us)
{
    h->counts[bucket_of(us)]++;
}

void histogram_print(const struct histogram *h, FILE *f)
{
    bool first = true;
    (void)fputc('[', f); /* whoever reads this notices a cut line */
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        if (!h->counts[i]) continue;
        (void)fprintf(f, "%s[%llu,%llu]", first ? "" : ",", (unsigned long long)last_of(i),
                      (unsigned long long)h->counts[i]);
        first = false;
    }
    (void)fputc(']', f);
}
