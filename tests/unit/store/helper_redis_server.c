#include "helper_redis_server.h"

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { TRIES = 1000, TRY_MS = 10, CONF_MAX = 2048 };

bool redis_server_is_installed(void)
{
    const char *path = getenv("PATH");
    while (path && *path) {
        size_t n = strcspn(path, ":");
        char name[FOLDER_PATH_MAX];
        int length = snprintf(name, sizeof name, "%.*s/redis-server", (int)n, path);
        if (length > 0 && (size_t)length < sizeof name && access(name, X_OK) == 0) return true;
        path += n + (path[n] == ':');
    }
    return false;
}

static void write_conf(const struct redis_server *s, const char *settings)
{
    char conf[CONF_MAX];
    int n = snprintf(conf, sizeof conf, "port 0\nunixsocket %s\nsave \"\"\ndir %s\nlogfile %s\n%s",
                     s->address.un.sun_path, s->folder, folder_path(s->folder, "log"), settings);
    assert_in_range(n, 1, CONF_MAX - 1);
    folder_write(s->folder, "conf", conf, (size_t)n);
}

/* Runs in the child; never returns. `option` may be NULL. */
static void run_server(const char *conf, const char *option)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    int null = open("/dev/null", O_RDWR);
    if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0) _exit(126);
    (void)execlp("redis-server", "redis-server", conf, option, (char *)NULL);
    _exit(127);
}

static bool answers(const struct redis_server *s)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    bool ok = connect(fd, &s->address.any, s->address.len) == 0;
    char byte;
    ok = ok && write(fd, "PING\r\n", 6) == 6 && read(fd, &byte, 1) == 1;
    close(fd);
    return ok;
}

static void start(struct redis_server *s, const char *settings, const char *option)
{
    folder_make(s->folder);
    assert_int_equal(socket_address_unix(folder_path(s->folder, "sock"), &s->address), ERR_OK);
    write_conf(s, settings);
    s->pid = fork();
    assert_true(s->pid >= 0);
    if (s->pid == 0) run_server(folder_path(s->folder, "conf"), option);
    for (unsigned i = 0; i < TRIES; i++) {
        if (answers(s)) return;
        if (waitpid(s->pid, NULL, WNOHANG) != 0) fail_msg("redis-server ends at once; see %s/log", s->folder);
        (void)poll(NULL, 0, TRY_MS); /* there is no event for "it listens now" */
    }
    fail_msg("redis-server does not answer; see %s/log", s->folder);
}

void redis_server_start(struct redis_server *s, const char *settings)
{
    start(s, settings, NULL);
}

void redis_server_start_sentinel(struct redis_server *s, const char *settings)
{
    start(s, settings, "--sentinel");
}

void redis_server_kill(struct redis_server *s)
{
    if (s->pid <= 0) return;
    assert_int_equal(kill(s->pid, SIGKILL), 0);
    assert_int_equal(waitpid(s->pid, NULL, 0), s->pid);
    s->pid = 0;
}

void redis_server_remove(struct redis_server *s)
{
    redis_server_kill(s);
    folder_remove(s->folder);
}
