/* pages.h - zeroed memory for large tables that are read at random places.
 *
 * Above a few megabytes such a table costs a TLB miss per look-up besides the cache miss; huge pages save it
 * (and most of the page faults of filling it), where the system grants them on request.
 *
 * Thread: [any]. Freed with free().
 */
#ifndef POLICY_PAGES_H
#define POLICY_PAGES_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PAGES_LINE_BYTES = 64, PAGES_HUGE_BYTES = 2 << 20 };

/* `n` bytes, aligned to a cache line at least; NULL when memory is out. */
static inline void *pages_alloc(size_t n)
{
    bool is_large = n >= 2 * PAGES_HUGE_BYTES;
    size_t alignment = is_large ? PAGES_HUGE_BYTES : PAGES_LINE_BYTES;
    size_t rounded = (n + alignment - 1) / alignment * alignment;
    void *p = aligned_alloc(alignment, rounded);
    if (!p) return NULL;
    if (is_large) (void)madvise(p, rounded, MADV_HUGEPAGE); /* without huge pages it works as well */
    memset(p, 0, n);
    return p;
}

#endif
