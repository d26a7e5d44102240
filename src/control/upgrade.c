#include "control/upgrade.h"

#include "base/container.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    CHANNEL_FD = 3, /* in the new process */
    MESSAGE_BYTES_MAX = 512,
    RECEIVE_TIMEOUT_MS = 10000,
};

static const char variable[] = "PROOFGW_UPGRADE_FD";
static const char word_socket[] = "socket ", word_end[] = "end", word_ready[] = "ready";

static struct {
    char path[PATH_MAX]; /* of the binary; an upgrade puts another file there */
    char **argv;
} self;

const char *upgrade_result_text(enum upgrade_result r)
{
    static const char *const text[] = {
        [UPGRADE_TAKEN_OVER] = "the new process serves",
        [UPGRADE_ENDED] = "the new process ended before it was ready: its log lines say why",
        [UPGRADE_TIMED_OUT] = "the new process was not ready in time",
        [UPGRADE_BROKEN] = "the new process does not take the sockets",
    };
    return text[r];
}

void upgrade_remember(char **argv)
{
    ssize_t n = readlink("/proc/self/exe", self.path, sizeof self.path - 1);
    if (n < 0) n = 0; /* /proc is not mounted: an upgrade fails then */
    self.path[n] = 0;
    self.argv = argv;
}

/* --- the old process ------------------------------------------------------------------------------- */

static void on_handle_closed(uv_handle_t *handle)
{
    struct upgrade *u = handle->data;
    loop_turn(u->loop);
    if (--u->nhandles == 0) u->state = UPGRADE_IDLE;
}

static void close_all(struct upgrade *u)
{
    u->state = UPGRADE_CLOSING;
    loop_deadline_clear(u->loop, &u->timer);
    free(u->sockets);
    u->sockets = NULL;
    uv_close((uv_handle_t *)&u->process, on_handle_closed);
    uv_close((uv_handle_t *)&u->poll, on_handle_closed);
    (void)close(u->channel);
}

static void finish(struct upgrade *u, enum upgrade_result result)
{
    if (u->state == UPGRADE_CLOSING || u->state == UPGRADE_IDLE) return;
    if (result == UPGRADE_TIMED_OUT || result == UPGRADE_BROKEN) (void)uv_process_kill(&u->process, SIGKILL);
    close_all(u);
    u->done(u, result);
}

static void on_exit_of_new(uv_process_t *process, int64_t status, int signal)
{
    struct upgrade *u = process->data;
    (void)status;
    (void)signal;
    loop_turn(u->loop);
    finish(u, UPGRADE_ENDED);
}

static void on_timeout(struct wheel_entry *e)
{
    finish(CONTAINER_OF(e, struct upgrade, timer), UPGRADE_TIMED_OUT);
}

/* Sends one message, with a descriptor when `fd` >= 0. */
static ssize_t send_message(int channel, const char *text, int fd)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text)};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fd >= 0) {
        m.msg_control = control.bytes;
        m.msg_controllen = sizeof control.bytes;
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    return sendmsg(channel, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void on_channel(uv_poll_t *poll, int status, int events);

static void send_more(struct upgrade *u)
{
    while (u->nsent <= u->nsockets) {
        char text[MESSAGE_BYTES_MAX];
        bool is_last = u->nsent == u->nsockets;
        const struct upgrade_socket *s = &u->sockets[u->nsent];
        (void)snprintf(text, sizeof text, "%s%s", is_last ? word_end : word_socket, is_last ? "" : s->name);
        if (send_message(u->channel, text, is_last ? -1 : s->fd) < 0) {
            if (errno != EAGAIN && errno != EINTR) finish(u, UPGRADE_BROKEN);
            return;
        }
        u->nsent++;
    }
    u->state = UPGRADE_WAITING;
    (void)uv_poll_start(&u->poll, UV_READABLE, on_channel); /* fails only on a bad fd, which is ours */
}

static void hear(struct upgrade *u)
{
    char text[MESSAGE_BYTES_MAX];
    ssize_t n = recv(u->channel, text, sizeof text, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n > 0 && span_eq(span_of(text, (size_t)n), span_str(word_ready)))
        finish(u, UPGRADE_TAKEN_OVER);
    else if (n == 0)
        uv_poll_stop(&u->poll); /* it has let go of the channel: its end, or the timeout, follows */
    else
        finish(u, UPGRADE_BROKEN);
}

static void on_channel(uv_poll_t *poll, int status, int events)
{
    struct upgrade *u = poll->data;
    (void)status; /* an error is met again below */
    (void)events;
    loop_turn(u->loop);
    if (u->state == UPGRADE_SENDING)
        send_more(u);
    else if (u->state == UPGRADE_WAITING)
        hear(u);
}

/* A copy of the environment for the new process: with the channel, without what was meant for this process
 * alone. NULL when memory is out; the strings are borrowed but for the first. */
static char **new_environment(char *channel)
{
    static const char *const ours[] = {
        "PROOFGW_UPGRADE_FD=", "LISTEN_PID=", "LISTEN_FDS=", "LISTEN_FDNAMES=", "WATCHDOG_PID="};
    extern char **environ;
    size_t n = 0, to = 0;
    while (environ[n])
        n++;
    char **copy = calloc(n + 2, sizeof *copy);
    if (!copy) return NULL;
    copy[to++] = channel;
    for (size_t i = 0; i < n; i++) {
        bool skip = false;
        for (size_t k = 0; k < sizeof ours / sizeof ours[0]; k++)
            skip = skip || span_starts(span_str(environ[i]), span_str(ours[k]));
        if (!skip) copy[to++] = environ[i];
    }
    return copy;
}

static int spawn(struct upgrade *u, int channel_of_new)
{
    char text[32];
    (void)snprintf(text, sizeof text, "%s=%d", variable, CHANNEL_FD);
    uv_stdio_container_t stdio[CHANNEL_FD + 1];
    for (int fd = 0; fd <= CHANNEL_FD; fd++) {
        stdio[fd].flags = UV_INHERIT_FD;
        stdio[fd].data.fd = fd == CHANNEL_FD ? channel_of_new : fd;
    }
    char **environment = new_environment(text);
    if (!environment) return UV_ENOMEM;
    const uv_process_options_t options = {
        .file = self.path,
        .args = self.argv,
        .env = environment,
        .stdio = stdio,
        .stdio_count = CHANNEL_FD + 1,
        .exit_cb = on_exit_of_new,
    };
    int r = uv_spawn(&u->loop->uv, &u->process, &options);
    free(environment);
    return r;
}

enum err upgrade_start(struct upgrade *u, struct loop *loop, struct upgrade_socket *sockets, unsigned n,
                       uint64_t timeout_ms, void (*done)(struct upgrade *u, enum upgrade_result result))
{
    int pair[2];
    void *user = u->user;
    enum err e = u->state == UPGRADE_IDLE ? ERR_OK : ERR_EXISTS;
    if (e == ERR_OK && (self.path[0] == 0 ||
                        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0))
        e = ERR_IO;
    if (e) {
        free(sockets);
        return e;
    }
    *u = (struct upgrade){
        .loop = loop, .sockets = sockets, .nsockets = n, .channel = pair[0], .done = done, .user = user};
    u->process.data = u->poll.data = u;
    wheel_entry_init(&u->timer, on_timeout);
    if (uv_poll_init(&loop->uv, &u->poll, u->channel)) {
        (void)close(pair[0]);
        (void)close(pair[1]);
        free(sockets);
        return ERR_IO;
    }
    u->state = UPGRADE_SENDING;
    u->nhandles = 2; /* uv_spawn() takes the handle also when it fails */
    int r = spawn(u, pair[1]);
    (void)close(pair[1]);
    if (r) {
        close_all(u);
        return r == UV_ENOMEM ? ERR_NOMEM : ERR_IO;
    }
    loop_deadline(loop, &u->timer, timeout_ms);
    (void)uv_poll_start(&u->poll, UV_WRITABLE, on_channel); /* fails only on a bad fd, which is ours */
    return ERR_OK;
}

void upgrade_cancel(struct upgrade *u)
{
    if (u->state != UPGRADE_SENDING && u->state != UPGRADE_WAITING) return;
    (void)uv_process_kill(&u->process, SIGKILL);
    close_all(u);
}

/* --- the new process ------------------------------------------------------------------------------- */

/* One message; `*fd` is -1 when none came with it. Returns its length, 0 at the end, -1 on failure. */
static ssize_t receive_message(int channel, char *text, size_t cap, int *fd)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec iov = {.iov_base = text, .iov_len = cap};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof control.bytes};
    struct pollfd wait = {.fd = channel, .events = POLLIN};
    *fd = -1;
    if (poll(&wait, 1, RECEIVE_TIMEOUT_MS) != 1) return -1;
    ssize_t n = recvmsg(channel, &m, MSG_CMSG_CLOEXEC);
    const struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) memcpy(fd, CMSG_DATA(c), sizeof *fd);
    return n;
}

static enum err receive_all(struct inherited *in, int channel)
{
    for (;;) {
        char text[MESSAGE_BYTES_MAX + 1];
        int fd;
        ssize_t n = receive_message(channel, text, MESSAGE_BYTES_MAX, &fd);
        if (n <= 0) return ERR_IO;
        text[n] = 0;
        if (fd < 0) return strcmp(text, word_end) == 0 ? ERR_OK : ERR_IO;
        if (!span_starts(span_str(text), span_str(word_socket))) {
            (void)close(fd);
            return ERR_IO;
        }
        enum err e = inherited_add(in, text + strlen(word_socket), fd);
        if (e) return e;
    }
}

enum err upgrade_receive(struct inherited *in, int *channel)
{
    const char *text = getenv(variable);
    uint64_t fd;
    *channel = -1;
    if (!text || !span_to_u64(span_str(text), &fd) || fd != CHANNEL_FD) return ERR_OK;
    (void)unsetenv(variable); /* not for those that this process starts */
    if (fcntl(CHANNEL_FD, F_SETFD, FD_CLOEXEC) != 0) return ERR_IO;
    enum err e = receive_all(in, CHANNEL_FD);
    if (e)
        (void)close(CHANNEL_FD);
    else
        *channel = CHANNEL_FD;
    return e;
}

void upgrade_report(int channel)
{
    if (channel < 0) return;
    (void)send_message(channel, word_ready, -1); /* the old process has gone: then there is nobody to tell */
    (void)close(channel);
}
