/* fd.h - whole buffers through blocking descriptors: read(2) and write(2) may stop early.
 *
 * Thread: [any]; blocks.
 */
#ifndef BASE_FD_H
#define BASE_FD_H

#include "base/err.h"

#include <stddef.h>
#include <sys/types.h>

/* Reads until `cap` bytes are there or the input ends. Returns their number; -1 with errno. */
ssize_t fd_read_all(int fd, void *out, size_t cap);

/* Writes all `n` bytes. Errors: ERR_IO (errno); some may have been written. */
enum err fd_write_all(int fd, const void *p, size_t n);

#endif
