#include "proofctl/file_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

enum { LOOK_AGAIN_MS = 10 };

static int open_lock(const char *path, uid_t owner, gid_t group)
{
    const int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW;
    int fd = open(path, flags);
    if (fd >= 0 || errno != ENOENT) return fd;
    fd = open(path, flags | O_CREAT | O_EXCL, 0600);
    if (fd < 0 && errno == EEXIST) return open(path, flags);
    /* With sudo it would be root's, and keep the owner of the partner file out. Only root can give it away;
     * for others it is right as it is. */
    if (fd >= 0 && fchown(fd, owner, group)) errno = 0;
    return fd;
}

/* flock(2) has no timeout, and a stopped holder must not make everybody else hang: so it is asked repeatedly.
 */
enum err file_lock_take(const char *path, uid_t owner, gid_t group, unsigned wait_ms, int *fd)
{
    int opened = open_lock(path, owner, group);
    if (opened < 0) return ERR_IO;
    for (unsigned waited_ms = 0; flock(opened, LOCK_EX | LOCK_NB); waited_ms += LOOK_AGAIN_MS) {
        int reason = errno;
        if (reason != EINTR && (reason != EWOULDBLOCK || waited_ms >= wait_ms)) {
            (void)close(opened); /* nothing was written */
            errno = reason;
            return reason == EWOULDBLOCK ? ERR_TIMEOUT : ERR_IO;
        }
        const struct timespec pause = {0, LOOK_AGAIN_MS * 1000000L};
        (void)nanosleep(&pause, NULL); /* woken early: looks earlier */
    }
    *fd = opened;
    return ERR_OK;
}

void file_lock_release(int fd)
{
    (void)close(fd); /* drops the lock; nothing was written */
}
