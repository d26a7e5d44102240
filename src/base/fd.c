#include "base/fd.h"

#include <errno.h>
#include <unistd.h>

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
