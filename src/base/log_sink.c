#include "base/log_sink.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_MODE = 0640 };

static void counter_add(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

static bool is_regular(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
}

/* O_NONBLOCK keeps the opening of a FIFO without a reader from waiting; it then fails. */
static int file_open(const char *path)
{
    return open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, FILE_MODE);
}

enum err log_sink_open(struct log_sink *s, const char *path)
{
    *s = (struct log_sink){.fd = -1};
    if (!path || !*path || strcmp(path, "off") == 0) return ERR_OK;
    s->pending = malloc(LOG_SINK_BYTES);
    if (!s->pending) return ERR_NOMEM;

    if (strcmp(path, "-") == 0 || strcmp(path, "stdout") == 0) {
        s->fd = STDOUT_FILENO;
    } else if (strcmp(path, "stderr") == 0) {
        s->fd = STDERR_FILENO;
    } else {
        s->path = strdup(path);
        s->fd = s->path ? file_open(path) : -1;
        if (s->fd < 0) {
            enum err e = s->path ? ERR_IO : ERR_NOMEM;
            int sys = errno;
            log_sink_close(s);
            errno = sys;
            return e;
        }
    }
    s->is_regular = is_regular(s->fd);
    return ERR_OK;
}

void log_sink_close(struct log_sink *s)
{
    /* The result of close(2) is not used: what it could report is lost already. */
    if (s->path && s->fd >= 0) (void)close(s->fd);
    s->fd = -1;
    free(s->path);
    s->path = NULL;
    free(s->pending);
    s->pending = NULL;
    s->start = s->end = 0;
}

enum err log_sink_reopen(struct log_sink *s)
{
    if (!s->path) return ERR_OK;
    int fd = file_open(s->path);
    if (fd < 0) return ERR_IO;
    (void)close(s->fd); /* as in log_sink_close() */
    s->fd = fd;
    s->is_regular = is_regular(fd);
    s->is_midline = false;
    return ERR_OK;
}

bool log_sink_is_same(const struct log_sink *a, const struct log_sink *b)
{
    struct stat x, y;
    if (a->fd < 0 || b->fd < 0 || fstat(a->fd, &x) || fstat(b->fd, &y)) return false;
    return x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static void pending_add(struct log_sink *s, const char *p, size_t n)
{
    memcpy(s->pending + s->end, p, n);
    s->end += n;
}

/* Room behind the pending bytes is made by writing or moving those. One byte more than asked for is kept
 * for the newline that log_sink_put() may add. */
bool log_sink_has_room(struct log_sink *s, size_t n)
{
    if (s->fd < 0 || LOG_SINK_BYTES - s->end > n) return true;
    (void)log_sink_flush(s); /* whether all went out does not matter, only the room does */
    if (s->start) memmove(s->pending, s->pending + s->start, s->end - s->start);
    s->end -= s->start;
    s->start = 0;
    return LOG_SINK_BYTES - s->end > n;
}

bool log_sink_put(struct log_sink *s, const char *p, size_t n)
{
    if (s->fd < 0) return true;
    if (!log_sink_has_room(s, n)) {
        counter_add(&s->dropped, 1);
        return false;
    }
    /* Nothing pending and yet in the middle of a line: its rest was lost with a failed write. The newline may
     * be lost with the next one: only a write that succeeds ends the line. */
    if (s->is_midline && s->start == s->end) pending_add(s, "\n", 1);
    pending_add(s, p, n);
    return true;
}

static bool is_writable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    return poll(&p, 1, 0) == 1; /* an error condition too: the write then tells which */
}

/* How much to hand to one write: everything, or whole lines within PIPE_BUF. */
static size_t chunk_size(const struct log_sink *s)
{
    size_t n = s->end - s->start;
    if (s->is_regular || n <= PIPE_BUF) return n;
    const char *first = s->pending + s->start;
    const char *newline = memrchr(first, '\n', PIPE_BUF);
    return newline ? (size_t)(newline - first) + 1 : PIPE_BUF;
}

/* Counts the pending lines as dropped. A newline in front is none: it would have ended a line in the file. */
static void pending_count_dropped(struct log_sink *s)
{
    uint64_t lines = 0;
    for (size_t i = s->start + 1; i < s->end; i++)
        lines += s->pending[i] == '\n';
    counter_add(&s->dropped, lines);
}

/* Gives up what is pending after a failed write. */
static void pending_drop(struct log_sink *s)
{
    pending_count_dropped(s);
    counter_add(&s->write_errors, 1);
    s->start = s->end = 0;
}

void log_sink_replace(struct log_sink *s, struct log_sink *other)
{
    (void)log_sink_flush(s); /* lines that are pending belong in the old file */
    if (other->fd < 0 && s->start < s->end) pending_count_dropped(s);
    if (s->path && s->fd >= 0) (void)close(s->fd); /* as in log_sink_close() */
    free(s->path);
    s->fd = other->fd;
    s->path = other->path;
    s->is_regular = other->is_regular;
    s->is_midline = false;
    if (!s->pending || other->fd < 0) { /* its buffer, or none */
        free(s->pending);
        s->pending = other->pending;
        s->start = s->end = 0;
    } else {
        free(other->pending);
    }
    *other = (struct log_sink){.fd = -1};
}

bool log_sink_flush(struct log_sink *s)
{
    while (s->start < s->end) {
        if (!s->is_regular && !is_writable(s->fd)) return false;
        ssize_t n = write(s->fd, s->pending + s->start, chunk_size(s));
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return false;
        if (n <= 0) {
            s->sys = n ? errno : EIO;
            pending_drop(s);
            return true;
        }
        s->start += (size_t)n;
        s->is_midline = s->pending[s->start - 1] != '\n';
        if (s->start == s->end) s->start = s->end = 0;
    }
    return true;
}

bool log_fd_write(int fd, const char *p, size_t n)
{
    return is_writable(fd) && write(fd, p, n) == (ssize_t)n;
}
