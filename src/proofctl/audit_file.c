#include "proofctl/audit_file.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum err audit_file_open(struct audit_file *a, const char *path, uid_t owner, gid_t group)
{
    const int flags = O_RDWR | O_APPEND | O_CLOEXEC | O_NOFOLLOW;
    a->fd = open(path, flags);
    if (a->fd < 0 && errno == ENOENT) {
        a->fd = open(path, flags | O_CREAT | O_EXCL, 0600);
        /* With sudo it would be root's, and the owner of the partner file could not write the next line. Only
         * root can give it away; for others it is right as it is. */
        if (a->fd >= 0 && fchown(a->fd, owner, group)) errno = 0;
    }
    return a->fd < 0 ? ERR_IO : ERR_OK;
}

/* A line without its end is what a power failure left: the next one must not be glued to it. */
static enum err end_torn_line(const struct audit_file *a)
{
    char last;
    if (a->bytes == 0) return ERR_OK;
    if (pread(a->fd, &last, 1, a->bytes - 1) != 1) return ERR_IO;
    return last == '\n' ? ERR_OK : fd_write_all(a->fd, "\n", 1);
}

enum err audit_file_append(struct audit_file *a, struct span lines)
{
    struct stat st;
    if (fstat(a->fd, &st)) return ERR_IO;
    if (!S_ISREG(st.st_mode)) {
        errno = EINVAL;
        return ERR_IO;
    }
    a->bytes = st.st_size;
    if (end_torn_line(a) == ERR_OK && fd_write_all(a->fd, lines.p, lines.n) == ERR_OK && fsync(a->fd) == 0)
        return ERR_OK;
    int reason = errno;
    (void)audit_file_take_back(a); /* the first failure is the one to report */
    errno = reason;
    return ERR_IO;
}

enum err audit_file_take_back(struct audit_file *a)
{
    return ftruncate(a->fd, a->bytes) ? ERR_IO : ERR_OK;
}

void audit_file_close(struct audit_file *a)
{
    (void)close(a->fd); /* everything is on the disk already */
}

enum err audit_file_tail(const char *path, uint64_t limit, audit_line_fn *on_line, void *arg)
{
    FILE *in = fopen(path, "re");
    if (!in) return errno == ENOENT ? ERR_OK : ERR_IO;
    char *line = NULL;
    size_t room = 0;
    ssize_t n;
    uint64_t total = 0, number = 0;
    while (getline(&line, &room, in) >= 0)
        total++;
    enum err e = ferror(in) ? ERR_IO : ERR_OK;
    rewind(in);
    while (!e && (n = getline(&line, &room, in)) >= 0) {
        if (n > 0 && line[n - 1] == '\n') n--;
        if (++number + limit > total) e = on_line(arg, span_of(line, (size_t)n));
    }
    if (!e && ferror(in)) e = ERR_IO;
    free(line);
    (void)fclose(in); /* only read from */
    return e;
}
