#include "base/fd.h"

#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

static _Atomic int first_reserved; /* shared: [any], by the limit when it was last read; 0 = never */

static int read_first_reserved(void)
{
    struct rlimit limit = {.rlim_cur = RLIM_INFINITY};
    (void)getrlimit(RLIMIT_NOFILE, &limit); /* fails only for another resource */
    int max = limit.rlim_cur < INT_MAX ? (int)limit.rlim_cur : INT_MAX;
    int first = max - (max / 4 < FDS_RESERVED ? max / 4 : FDS_RESERVED);
    atomic_store_explicit(&first_reserved, first, memory_order_relaxed);
    return first;
}

bool fd_is_reserved(int fd)
{
    return fd >= atomic_load_explicit(&first_reserved, memory_order_relaxed) && fd >= read_first_reserved();
}

bool fd_is_to_be_had(void)
{
    int first = read_first_reserved();
    int fd = eventfd(0, EFD_CLOEXEC);
    if (fd < 0) return false;
    (void)close(fd);
    return fd < first;
}

ssize_t fd_read_all(int fd, void *out, size_t cap)
{
    size_t n = 0;
    while (n < cap) {
        ssize_t got = read(fd, (char *)out + n, cap - n);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return -1;
        if (got == 0) break;
        n += (size_t)got;
    }
    return (ssize_t)n;
}

enum err fd_write_all(int fd, const void *p, size_t n)
{
    for (const char *at = p; n > 0;) {
        ssize_t put = write(fd, at, n);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return ERR_IO;
        at += put;
        n -= (size_t)put;
    }
    return ERR_OK;
}
