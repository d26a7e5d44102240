/* file_lock.h - one writer at a time: flock(2) on FILE.lock beside the partner file.
 *
 * Not on the partner file itself, which is replaced by each change: two writers would hold locks on two
 * different inodes. The lock file is never removed, for the same reason. The kernel drops the lock when its
 * holder dies.
 *
 * Thread: [any]; blocks.
 */
#ifndef PROOFCTL_FILE_LOCK_H
#define PROOFCTL_FILE_LOCK_H

#include "base/err.h"

#include <sys/types.h>

/* Takes the lock, waiting up to `wait_ms` for another writer. A file that it makes is for `owner` and
 * `group`. `*fd` holds the lock until file_lock_release(). Errors: ERR_TIMEOUT, ERR_IO (errno). */
enum err file_lock_take(const char *path, uid_t owner, gid_t group, unsigned wait_ms, int *fd);

/* Lets the next writer in. */
void file_lock_release(int fd);

#endif
