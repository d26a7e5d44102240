#include "proofctl/gateway_link.h"

#include "gw_version.h"
#include "net/socket.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <unistd.h>

enum {
    ANSWER_S = 5,   /* a gateway that does not answer within it hangs */
    RELOAD_S = 120, /* a reload resolves names and waits for every worker */
    ANSWER_BYTES_MAX = 16 << 20,
    READ_BYTES = 64 * 1024,
    PATH_BYTES_MAX = 4096,
};

static const char auto_path[] = "/run/proofgw/control.sock";

bool gateway_parameter(const struct session *s, char target[static GATEWAY_TARGET_MAX], const char *name,
                       const char *value)
{
    size_t n = strlen(target);
    for (const char *p = value; *p; p++) {
        if (*p > ' ' && *p < 0x7f && !strchr("&#?%\"<>", *p)) continue;
        (void)session_fail(s, CTL_USAGE, "\"%s\" has a character that a %s does not have", value, name);
        return false;
    }
    char separator = strchr(target, '?') ? '&' : '?';
    int more = snprintf(target + n, GATEWAY_TARGET_MAX - n, "%c%s=%s", separator, name, value);
    if (more > 0 && (size_t)more < GATEWAY_TARGET_MAX - n) return true;
    (void)session_fail(s, CTL_USAGE, "the %s is too long", name);
    return false;
}

/* --- which socket --------------------------------------------------------------------------------- */

/* What the configuration says; a faulty one is no reason not to ask the gateway. False: it cannot be read. */
static bool configured_path(const char *file, char *path, size_t cap)
{
    char text[PATH_BYTES_MAX];
    enum err e = config_peek_control_socket(file, text, sizeof text);
    if (!e && strcmp(text, "auto") != 0) (void)snprintf(path, cap, "%s", text); /* as large as `text` */
    return e != ERR_IO;
}

static enum ctl_exit choose_path(const struct session *s, char *path, size_t cap)
{
    const char *given = args_value(s->args, OPT_SOCKET);
    (void)snprintf(path, cap, "%s", given ? given : auto_path); /* too long: refused below */
    const char *file = session_config_path(s);
    if (!given && !configured_path(file, path, cap) && strcmp(file, GW_DEFAULT_CONFIG) != 0)
        return session_fail(s, CTL_FAILED, "%s: cannot be read; name the gateway's socket with --socket FILE",
                            file);
    if (path[0]) return CTL_OK;
    return session_fail(s, CTL_FAILED, "this gateway has no control socket: admin.control_socket is none");
}

static enum ctl_exit fail_silence(const struct session *s, const char *path, time_t patience_s)
{
    return session_fail(s, CTL_FAILED, "%s: no answer within %d s: the gateway hangs, or is stopped", path,
                        (int)patience_s);
}

static int connect_to(const struct session *s, const char *path, time_t patience_s)
{
    struct socket_address a;
    if (socket_address_unix(path, &a)) {
        (void)session_fail(s, CTL_FAILED, "%s: a socket's path has at most 107 bytes", path);
        return -1;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const struct timeval patience = {.tv_sec = patience_s};
    if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0 &&
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) == 0 &&
        connect(fd, &a.any, a.len) == 0)
        return fd;
    const char *hint = "";
    if (errno == ECONNREFUSED) hint = "; no gateway runs with this socket";
    if (errno == ENOENT)
        hint = "; no gateway runs with this socket, or its folder was missing when the gateway started";
    if (errno == EACCES) hint = "; only root and the gateway's own user may ask";
    if (errno == EAGAIN) /* so many wait already that there is no place for one more */
        (void)fail_silence(s, path, patience_s);
    else
        (void)session_fail(s, CTL_FAILED, "%s: %s%s", path, strerror(errno), hint);
    if (fd >= 0) (void)close(fd);
    return -1;
}

/* --- one question --------------------------------------------------------------------------------- */

static enum ctl_exit fail_answer(const struct session *s, const char *path, time_t patience_s)
{
    if (errno == EAGAIN) return fail_silence(s, path, patience_s);
    return session_fail(s, CTL_FAILED, "%s: no answer: %s", path, strerror(errno));
}

static bool send_request(int fd, const char *method, const char *target)
{
    char text[GATEWAY_TARGET_MAX + 128];
    int n = snprintf(text, sizeof text, "%s %s HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n",
                     method, target);
    return n > 0 && send(fd, text, (size_t)n, MSG_NOSIGNAL) == n;
}

/* Everything until the end of the connection. NULL when that fails; errno says why. */
static char *receive_all(int fd, size_t *n)
{
    char *bytes = NULL;
    *n = 0;
    for (size_t cap = 0;;) {
        if (cap - *n < READ_BYTES) {
            cap = cap ? cap * 2 : (size_t)2 * READ_BYTES;
            char *grown = cap <= ANSWER_BYTES_MAX ? realloc(bytes, cap) : NULL;
            if (!grown) {
                errno = ENOMEM;
                break;
            }
            bytes = grown;
        }
        ssize_t got = recv(fd, bytes + *n, READ_BYTES, 0);
        if (got == 0) return bytes;
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) break;
        *n += (size_t)got;
    }
    free(bytes);
    return NULL;
}

/* Takes the answer apart. NULL when it is none. */
static json_t *parse_answer(const char *bytes, size_t n, unsigned *status)
{
    static const char version[] = "HTTP/1.1 ";
    const char *body = memmem(bytes, n, "\r\n\r\n", 4);
    uint64_t code;
    if (!body || !span_starts(span_of(bytes, n), SPAN(version)) ||
        !span_to_u64(span_of(bytes + sizeof version - 1, 3), &code))
        return NULL;
    *status = (unsigned)code;
    body += 4;
    return json_loadb(body, n - (size_t)(body - bytes), 0, NULL);
}

static enum ctl_exit judge_bytes(const struct session *s, const char *bytes, size_t n, json_t **answer)
{
    unsigned status = 0;
    json_t *value = parse_answer(bytes, n, &status);
    const char *sentence = json_string_value(json_object_get(value, "error"));
    if (value && status == 200) {
        *answer = value;
        return CTL_OK;
    }
    enum ctl_exit code =
        sentence ? session_fail(s, CTL_FAILED, "%s", sentence)
                 : session_fail(s, CTL_FAILED, "the gateway's answer cannot be read (status %u)", status);
    json_decref(value);
    return code;
}

enum ctl_exit gateway_ask(const struct session *s, const char *method, const char *target, json_t **answer)
{
    char path[PATH_BYTES_MAX];
    size_t n;
    enum ctl_exit code = choose_path(s, path, sizeof path);
    if (code != CTL_OK) return code;
    time_t patience_s = span_starts(span_str(target), SPAN("/reload")) ? RELOAD_S : ANSWER_S;
    int fd = connect_to(s, path, patience_s);
    if (fd < 0) return CTL_FAILED;
    char *bytes = send_request(fd, method, target) ? receive_all(fd, &n) : NULL;
    if (!bytes)
        code = fail_answer(s, path, patience_s);
    else if (n == 0)
        code =
            session_fail(s, CTL_FAILED, "%s: the gateway hung up: only root and its own user may ask", path);
    else
        code = judge_bytes(s, bytes, n, answer);
    free(bytes);
    (void)close(fd);
    return code;
}
