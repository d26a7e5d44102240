#include "net/splice.h"

#include "base/fd.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

bool stream_can_splice(const struct stream *from, const struct stream *to)
{
    return from->state == STREAM_OPEN && !from->tls && to->state == STREAM_OPEN && !to->tls && !to->pending &&
           !to->write_failed && !to->shut_wanted;
}

static bool open_pipe(struct loop *l)
{
    int ends[2];
    if (l->pipe_in >= 0) return true;
    if (pipe2(ends, O_NONBLOCK | O_CLOEXEC)) return false;
    if (l->leaves_reserve && (fd_is_reserved(ends[0]) || fd_is_reserved(ends[1]))) {
        (void)close(ends[0]);
        (void)close(ends[1]);
        return false;
    }
    l->pipe_out = ends[0];
    l->pipe_in = ends[1];
    (void)fcntl(l->pipe_in, F_SETPIPE_SZ, (int)l->read_buffer_bytes); /* refused: less goes at a time */
    return true;
}

void splice_pipe_close(struct loop *l)
{
    if (l->pipe_in < 0) return;
    (void)close(l->pipe_in);
    (void)close(l->pipe_out);
    l->pipe_in = l->pipe_out = -1;
}

size_t stream_splice_in(struct stream *from, size_t max)
{
    struct loop *l = stream_loop(from);
    if (!open_pipe(l)) return 0;
    if (max > l->read_buffer_bytes) max = l->read_buffer_bytes;
    ssize_t n = splice(from->fd, NULL, l->pipe_in, NULL, max, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    if (n <= 0) return 0;
    from->bytes_in += (uint64_t)n;
    return (size_t)n;
}

size_t stream_waiting(const struct stream *s)
{
    int n;
    if (ioctl(s->fd, FIONREAD, &n)) return 1; /* it cannot be told: better not to trust it */
    return (size_t)n;
}

/* What the socket did not take: into memory, to wait there. A socket that failed says so again. */
static enum err keep_rest(struct loop *l, struct stream *to, size_t n)
{
    enum err e = ERR_OK;
    while (n) {
        ssize_t got = read(l->pipe_out, l->read_buffer, n);
        BUG_IF(got <= 0, "the pipe has lost bytes");
        n -= (size_t)got;
        struct iovec iov = {.iov_base = l->read_buffer, .iov_len = (size_t)got};
        if (!e) e = stream_write(to, &iov, 1);
    }
    return e;
}

enum err stream_splice_out(struct stream *to, size_t n)
{
    struct loop *l = stream_loop(to);
    while (n) {
        ssize_t sent = splice(l->pipe_out, NULL, to->fd, NULL, n, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
        if (sent <= 0) return keep_rest(l, to, n);
        to->bytes_out += (uint64_t)sent;
        n -= (size_t)sent;
    }
    return ERR_OK;
}
