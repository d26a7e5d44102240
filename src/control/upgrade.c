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
static const char word_socket[] = "socket ", word_ready[] = "ready";
static const char word_end[] = "end", word_end_unready[] = "end unready";

static struct {
    char path[PATH_MAX]; /* of the binary; an upgrade puts another file there */
    char **argv;
} self;

void upgrade_describe(const struct upgrade *u, enum upgrade_result result, char *out, size_t cap)
{
    switch (result) {
    case UPGRADE_TAKEN_OVER: (void)snprintf(out, cap, "the new process serves"); break;
    case UPGRADE_ENDED:
        if (u->exit_signal)
            (void)snprintf(out, cap, "the new process was ended by signal %d", u->exit_signal);
        else
            (void)snprintf(out, cap, "the new process ended with code %lld: what it wrote says why",
                           (long long)u->exit_status);
        break;
    case UPGRADE_TIMED_OUT:
        (void)snprintf(out, cap, "the new process was not ready within timeouts.upgrade, and was ended");
        break;
    case UPGRADE_BROKEN: (void)snprintf(out, cap, "the new process does not take the sockets"); break;
    }
}

void upgrade_sockets_free(struct upgrade_socket *sockets, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (sockets[i].fd >= 0) (void)close(sockets[i].fd);
    free(sockets);
}

void upgrade_remember(char **argv)
{
    ssize_t n = readlink("/proc/self/exe", self.path, sizeof self.path - 1);
    if (n < 0) n = 0; /* /proc is not mounted: an upgrade fails then */
    self.path[n] = 0;
    self.argv = argv;
}

/* --- the old process ------------------------------------------------------------------------------- */

static void set_state(struct upgrade *u, enum upgrade_state to)
{
    static const uint8_t moves[] = {
        [UPGRADE_IDLE] = 1 << UPGRADE_SENDING,
        [UPGRADE_SENDING] = 1 << UPGRADE_WAITING | 1 << UPGRADE_KILLING | 1 << UPGRADE_CLOSING,
        [UPGRADE_WAITING] = 1 << UPGRADE_KILLING | 1 << UPGRADE_CLOSING,
        [UPGRADE_KILLING] = 1 << UPGRADE_CLOSING,
        [UPGRADE_CLOSING] = 1 << UPGRADE_IDLE,
    };
    BUG_IF(!(moves[u->state] & 1 << to), "upgrade: impossible change of state");
    u->state = to;
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct upgrade *u = handle->data;
    loop_turn(u->loop);
    if (--u->nhandles == 0) set_state(u, UPGRADE_IDLE);
}

static void close_all(struct upgrade *u)
{
    set_state(u, UPGRADE_CLOSING);
    loop_deadline_clear(u->loop, &u->timer);
    upgrade_sockets_free(u->sockets, u->nsockets);
    u->sockets = NULL;
    uv_close((uv_handle_t *)&u->process, on_handle_closed);
    uv_close((uv_handle_t *)&u->poll, on_handle_closed);
    (void)close(u->channel);
}

static void finish(struct upgrade *u, enum upgrade_result result)
{
    close_all(u);
    if (!u->is_cancelled) u->done(u, result);
}

/* Kills the new process and waits for it to exit (on_exit_of_new()), so that no zombie stays. */
static void kill_new(struct upgrade *u, enum upgrade_result result)
{
    set_state(u, UPGRADE_KILLING);
    u->result = result;
    loop_deadline_clear(u->loop, &u->timer);
    (void)uv_poll_stop(&u->poll);                /* cannot fail */
    (void)uv_process_kill(&u->process, SIGKILL); /* on_exit_of_new() comes also when it has ended by itself */
}

static void on_exit_of_new(uv_process_t *process, int64_t status, int signal)
{
    struct upgrade *u = process->data;
    loop_turn(u->loop);
    if (u->state == UPGRADE_CLOSING) return;
    u->exit_status = status;
    u->exit_signal = signal;
    finish(u, u->state == UPGRADE_KILLING ? u->result : UPGRADE_ENDED);
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

/* When the new process has closed the channel it is about to exit, and its exit status says more than that.
 */
static void on_channel_failed(struct upgrade *u)
{
    if (errno == EAGAIN || errno == EINTR) return;
    if (errno == EPIPE || errno == ECONNRESET)
        (void)uv_poll_stop(&u->poll); /* its exit, or the timeout, follows */
    else
        kill_new(u, UPGRADE_BROKEN);
}

/* Sends the next socket, and closes our copy, or else the last message. False when the channel is full or has
 * failed. */
static bool send_next(struct upgrade *u)
{
    char text[MESSAGE_BYTES_MAX];
    struct upgrade_socket *s = u->nsent < u->nsockets ? &u->sockets[u->nsent] : NULL;
    if (s)
        (void)snprintf(text, sizeof text, "%s%s", word_socket, s->name);
    else
        (void)snprintf(text, sizeof text, "%s", u->is_ready ? word_end : word_end_unready);
    if (send_message(u->channel, text, s ? s->fd : -1) < 0) {
        on_channel_failed(u);
        return false;
    }
    u->nsent++;
    if (!s) return true;
    (void)close(s->fd);
    s->fd = -1;
    return true;
}

static void send_more(struct upgrade *u)
{
    while (u->nsent <= u->nsockets)
        if (!send_next(u)) return;
    set_state(u, UPGRADE_WAITING);
    (void)uv_poll_start(&u->poll, UV_READABLE, on_channel); /* fails only on a bad fd, which is ours */
}

static void hear(struct upgrade *u)
{
    char text[MESSAGE_BYTES_MAX];
    ssize_t n = recv(u->channel, text, sizeof text, MSG_DONTWAIT);
    if (n == 0) errno = EPIPE;
    if (n <= 0)
        on_channel_failed(u);
    else if (span_eq(span_of(text, (size_t)n), span_str(word_ready)))
        finish(u, UPGRADE_TAKEN_OVER);
    else
        kill_new(u, UPGRADE_BROKEN);
}

static void on_timeout(struct wheel_entry *e)
{
    struct upgrade *u = CONTAINER_OF(e, struct upgrade, timer);
    if (u->state == UPGRADE_WAITING) hear(u); /* it may have answered in this very moment */
    if (u->state == UPGRADE_SENDING || u->state == UPGRADE_WAITING) kill_new(u, UPGRADE_TIMED_OUT);
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

static enum err check_start(const struct upgrade *u, struct errmsg *why)
{
    if (u->state != UPGRADE_IDLE) {
        errmsg_set(why, 0, 0, "an upgrade is going on");
        return ERR_EXISTS;
    }
    if (self.path[0]) return ERR_OK;
    errmsg_set(why, 0, 0, "the path of the own binary is not known: is /proc mounted?");
    return ERR_IO;
}

/* Makes the channel; `*other` is the end of the new process. */
static enum err open_channel(struct upgrade *u, int *other, struct errmsg *why)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0) {
        errmsg_set(why, 0, 0, "no channel to the new process: %s", strerror(errno));
        return ERR_IO;
    }
    u->channel = pair[0];
    *other = pair[1];
    if (uv_poll_init(&u->loop->uv, &u->poll, u->channel) == 0) return ERR_OK;
    (void)close(pair[0]);
    (void)close(pair[1]);
    errmsg_set(why, 0, 0, "no channel to the new process: the event loop refuses it");
    return ERR_IO;
}

enum err upgrade_start(struct upgrade *u, struct loop *loop, const struct upgrade_offer *offer,
                       void (*done)(struct upgrade *u, enum upgrade_result result), struct errmsg *why)
{
    int other;
    enum err e = check_start(u, why);
    if (e == ERR_OK) {
        *u = (struct upgrade){.loop = loop, .done = done, .is_ready = offer->is_ready};
        u->process.data = u->poll.data = u;
        wheel_entry_init(&u->timer, on_timeout);
        e = open_channel(u, &other, why);
    }
    if (e) {
        upgrade_sockets_free(offer->sockets, offer->n);
        return e;
    }
    u->sockets = offer->sockets;
    u->nsockets = offer->n;
    set_state(u, UPGRADE_SENDING);
    u->nhandles = 2; /* uv_spawn() takes the handle also when it fails */
    int r = spawn(u, other);
    (void)close(other);
    if (r) {
        errmsg_set(why, 0, 0, "%s cannot be started: %s", self.path, uv_strerror(r));
        close_all(u);
        return r == UV_ENOMEM ? ERR_NOMEM : ERR_IO;
    }
    loop_deadline(loop, &u->timer, offer->timeout_ms);
    (void)uv_poll_start(&u->poll, UV_WRITABLE, on_channel); /* fails only on a bad fd, which is ours */
    return ERR_OK;
}

void upgrade_cancel(struct upgrade *u)
{
    u->is_cancelled = true;
    if (u->state == UPGRADE_SENDING || u->state == UPGRADE_WAITING) kill_new(u, UPGRADE_BROKEN);
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

static enum err receive_all(struct inherited *in, struct upgrade_origin *origin)
{
    for (;;) {
        char text[MESSAGE_BYTES_MAX + 1];
        int fd;
        ssize_t n = receive_message(CHANNEL_FD, text, MESSAGE_BYTES_MAX, &fd);
        if (n <= 0) return ERR_IO;
        text[n] = 0;
        if (fd < 0) {
            origin->is_ready = strcmp(text, word_end) == 0;
            return origin->is_ready || strcmp(text, word_end_unready) == 0 ? ERR_OK : ERR_IO;
        }
        if (!span_starts(span_str(text), span_str(word_socket))) {
            (void)close(fd);
            return ERR_IO;
        }
        enum err e = inherited_add(in, text + strlen(word_socket), fd);
        if (e) return e;
    }
}

enum err upgrade_receive(struct inherited *in, struct upgrade_origin *origin)
{
    const char *text = getenv(variable);
    uint64_t fd;
    *origin = (struct upgrade_origin){.channel = -1};
    if (!text || !span_to_u64(span_str(text), &fd) || fd != CHANNEL_FD) return ERR_OK;
    (void)unsetenv(variable); /* not for those that this process starts */
    if (fcntl(CHANNEL_FD, F_SETFD, FD_CLOEXEC) != 0) return ERR_IO;
    origin->channel = CHANNEL_FD;
    enum err e = receive_all(in, origin);
    if (e) upgrade_give_up(origin);
    return e;
}

bool upgrade_is_orphan(const struct upgrade_origin *origin)
{
    char byte;
    return recv(origin->channel, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

void upgrade_report(struct upgrade_origin *origin)
{
    if (origin->channel < 0) return;
    (void)send_message(origin->channel, word_ready, -1); /* the old process has gone: nobody to tell */
    upgrade_give_up(origin);
}

void upgrade_give_up(struct upgrade_origin *origin)
{
    if (origin->channel >= 0) (void)close(origin->channel);
    origin->channel = -1;
}
