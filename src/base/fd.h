/* fd.h - whole buffers through blocking descriptors, because read(2) and write(2) may stop early; and the
 * last descriptors of the process.
 *
 * Clients can use up what RLIMIT_NOFILE allows, and that is when operators need the process. So the last
 * FDS_RESERVED are not for workers: what opens one for a client or a backend gives it back. The kernel gives
 * the lowest number that is free, so a number tells how many are left, and nothing has to be counted.
 *
 * Thread: [any]; fd_read_all() and fd_write_all() block.
 */
#ifndef BASE_FD_H
#define BASE_FD_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { FDS_RESERVED = 32 }; /* of a limit below 128, a quarter */

/* Reads until `cap` bytes are there or the input ends. Returns their number; -1 with errno. */
ssize_t fd_read_all(int fd, void *out, size_t cap);

/* Writes all `n` bytes. Errors: ERR_IO (errno); some may have been written. */
enum err fd_write_all(int fd, const void *p, size_t n);

/* Whether `fd`, just opened, is one of the last. A comparison; before it says yes it reads the limit again,
 * which may have been raised meanwhile. */
bool fd_is_reserved(int fd);

/* Whether one that is not reserved could be opened now. Some system calls: for who has just found none. */
bool fd_is_to_be_had(void);

#endif
