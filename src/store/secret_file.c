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

static enum err read_secret(int fd, const char *path, char *out, struct errmsg *why)
{
    struct stat st;
    char text[SECRET_BYTES_MAX + 2]; /* one byte more than is allowed, and one for a line end */
    if (fstat(fd, &st)) return refuse(why, ERR_IO, path, strerror(errno));
    if (!S_ISREG(st.st_mode)) return refuse(why, ERR_IO, path, "it is no regular file");
    if (st.st_mode & S_IROTH)
        return refuse(why, ERR_REFUSED, path, "everybody may read it: make it chmod 640");
    ssize_t got = fd_read_all(fd, text, sizeof text);
    if (got < 0) return refuse(why, ERR_IO, path, strerror(errno));
    size_t n = (size_t)got;
    if (n > 0 && text[n - 1] == '\n') n--;
    bool is_one_line = n > 0 && n <= SECRET_BYTES_MAX && !memchr(text, '\n', n) && !memchr(text, 0, n);
    if (is_one_line) {
        memcpy(out, text, n);
        out[n] = '\0';
    }
    explicit_bzero(text, sizeof text);
    return is_one_line ? ERR_OK : refuse(why, ERR_RANGE, path, "it must hold one line of 1 to 512 bytes");
}

enum err secret_file_read(const char *path, char out[static SECRET_BYTES_MAX + 1], struct errmsg *why)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* O_NONBLOCK: a FIFO must not hang the loop */
    if (fd < 0) return refuse(why, ERR_IO, path, strerror(errno));
    enum err e = read_secret(fd, path, out, why);
    (void)close(fd); /* only read from */
    return e;
}
