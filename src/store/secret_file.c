#include "store/secret_file.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum err refuse(struct errmsg *why, enum err e, const char *path, const char *text)
{
    errmsg_set(why, 0, 0, "%s: %s", path, text);
    return e;
}

/* Makes a string of the only line of `text`, which has SECRET_ROOM. False: it is not one line. */
static bool make_line(char *text, size_t n)
{
    if (n > 0 && text[n - 1] == '\n') n--;
    if (n == 0 || n > SECRET_BYTES_MAX || memchr(text, '\n', n) || memchr(text, 0, n)) return false;
    text[n] = '\0';
    return true;
}

static enum err read_secret(int fd, const char *path, char *out, struct errmsg *why)
{
    struct stat st;
    if (fstat(fd, &st)) return refuse(why, ERR_IO, path, strerror(errno));
    if (!S_ISREG(st.st_mode)) return refuse(why, ERR_IO, path, "it is no regular file");
    if (st.st_mode & S_IROTH)
        return refuse(why, ERR_REFUSED, path, "everybody may read it: make it chmod 640");
    ssize_t n = fd_read_all(fd, out, SECRET_ROOM);
    if (n < 0) return refuse(why, ERR_IO, path, strerror(errno));
    if (make_line(out, (size_t)n)) return ERR_OK;
    return refuse(why, ERR_RANGE, path, "it must hold one line of 1 to 512 bytes");
}

enum err secret_file_read(const char *path, char out[static SECRET_ROOM], struct errmsg *why)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* O_NONBLOCK: a FIFO must not hang the loop */
    if (fd < 0) return refuse(why, ERR_IO, path, strerror(errno));
    enum err e = read_secret(fd, path, out, why);
    if (e) explicit_bzero(out, SECRET_ROOM);
    (void)close(fd); /* only read from */
    return e;
}
