/* failing.h - memory that runs out on demand, for tests that compile a source of the project into themselves
 * with these in place of the real ones. Each test executable has its own. */
#ifndef SUPPORT_FAILING_H
#define SUPPORT_FAILING_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static struct {
    long left; /* calls that still succeed; negative: all */
    bool for_good, has_failed;
} failing = {.left = -1};

/* After `n` calls one fails, or all that follow. */
static inline void failing_begin(long n, bool for_good)
{
    failing.left = n;
    failing.for_good = for_good;
    failing.has_failed = false;
}

/* All succeed again. Returns whether one has failed. */
static inline bool failing_end(void)
{
    failing.left = -1;
    return failing.has_failed;
}

static inline bool fails(void)
{
    if (failing.left < 0) return false;
    if (failing.left > 0) {
        failing.left--;
        return false;
    }
    if (!failing.for_good) failing.left = -1;
    failing.has_failed = true;
    return true;
}

static inline void *failing_malloc(size_t n)
{
    return fails() ? NULL : malloc(n);
}

static inline void *failing_calloc(size_t n, size_t size)
{
    return fails() ? NULL : calloc(n, size);
}

static inline void *failing_realloc(void *p, size_t n)
{
    return fails() ? NULL : realloc(p, n);
}

static inline void *failing_aligned_alloc(size_t alignment, size_t n)
{
    return fails() ? NULL : aligned_alloc(alignment, n);
}

static inline char *failing_strdup(const char *s)
{
    return fails() ? NULL : strdup(s);
}

static inline char *failing_strndup(const char *s, size_t n)
{
    return fails() ? NULL : strndup(s, n);
}

#endif
