/* histogram.h - latencies in an HDR-style histogram: microseconds, to within 1 part in 128.
 *
 * Values below 128 have a bucket each; above, each power of two is cut into 128 buckets. Constant memory, a
 * shift and an increment per value, so that recording costs the same at every rate.
 *
 * Thread: [any, pure].
 */
#ifndef LOAD_HISTOGRAM_H
#define LOAD_HISTOGRAM_H

#include <stdint.h>
#include <stdio.h>

enum {
    HISTOGRAM_FINE_BITS = 7,
    HISTOGRAM_VALUE_BITS = 32, /* over an hour; more is counted as that */
    HISTOGRAM_BUCKETS = (HISTOGRAM_VALUE_BITS - HISTOGRAM_FINE_BITS + 1) << HISTOGRAM_FINE_BITS,
};

struct histogram {
    uint64_t counts[HISTOGRAM_BUCKETS];
};

void histogram_add(struct histogram *h, uint64_t us);

/* Writes [[us,count],...]: of each bucket in use, the largest value that falls into it. */
void histogram_print(const struct histogram *h, FILE *f);

#endif
