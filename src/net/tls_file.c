#include "net/tls_file.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum err refuse(struct errmsg *why, enum err e, const char *path, const char *text)
{
    errmsg_set(why, 0, 0, "%s: %s", path, text);
    return e;
}

static enum err refuse_errno(struct errmsg *why, const char *path)
{
    enum err e = err_from_errno(errno);
    return refuse(why, e == ERR_NOT_FOUND || e == ERR_NOMEM ? e : ERR_IO, path, strerror(errno));
}

static enum err read_file(int fd, const char *path, bool is_secret, struct tls_file *f, struct errmsg *why)
{
    struct stat st;
    if (fstat(fd, &st)) return refuse_errno(why, path);
    if (!S_ISREG(st.st_mode)) return refuse(why, ERR_IO, path, "it is no regular file");
    if (st.st_size > TLS_FILE_BYTES_MAX) return refuse(why, ERR_LIMIT, path, "it is larger than 1 MiB");
    if (is_secret && (st.st_mode & S_IROTH))
        return refuse(why, ERR_REFUSED, path, "everybody may read this secret: make it chmod 640 or 600");
    size_t cap = (size_t)st.st_size + 1; /* one byte more: a file that grows meanwhile fills it */
    f->p = malloc(cap);
    if (!f->p) return refuse(why, ERR_NOMEM, path, "no memory to read it");
    ssize_t got = fd_read_all(fd, f->p, cap);
    f->n = got < 0 ? cap : (size_t)got; /* of a file that cannot be read, all is wiped */
    if (got < 0) return refuse_errno(why, path);
    return f->n < cap ? ERR_OK : refuse(why, ERR_LIMIT, path, "it changed while it was read; try again");
}

enum err tls_file_read(const char *path, bool is_secret, struct tls_file *out, struct errmsg *why)
{
    struct tls_file f = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* O_NONBLOCK: a FIFO must not hang us */
    if (fd < 0) return refuse_errno(why, path);
    enum err e = read_file(fd, path, is_secret, &f, why);
    (void)close(fd); /* only read from */
    if (e)
        tls_file_free(&f);
    else
        *out = f;
    return e;
}

void tls_file_free(struct tls_file *f)
{
    if (f->p) OPENSSL_cleanse(f->p, f->n);
    free(f->p);
    *f = (struct tls_file){0};
}
