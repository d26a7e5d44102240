#include "control/notify.h"

#include "base/clock.h"
#include "base/span.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { MESSAGE_BYTES_MAX = 512 };

static struct {
    struct sockaddr_un address;
    socklen_t n; /* 0: no service manager asked for messages */
    int fd;      /* with n > 0; kept open, so that WATCHDOG=1 is still sent when descriptors have run out */
    uint64_t watchdog_ms;
    bool is_ready; /* READY=1 was sent */
} manager;

static bool env_number(const char *name, uint64_t *out)
{
    const char *text = getenv(name);
    return text && span_to_u64(span_str(text), out);
}

static void read_address(void)
{
    const char *path = getenv("NOTIFY_SOCKET");
    size_t n = path ? strlen(path) : 0;
    if (n < 2 || n >= sizeof manager.address.sun_path || (path[0] != '/' && path[0] != '@')) return;
    manager.address.sun_family = AF_UNIX;
    memcpy(manager.address.sun_path, path, n);
    if (path[0] == '@') manager.address.sun_path[0] = 0; /* an abstract name */
    manager.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (manager.fd >= 0) manager.n = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
}

void notify_init(void)
{
    uint64_t us, pid;
    read_address();
    bool is_ours = !env_number("WATCHDOG_PID", &pid) || pid == (uint64_t)getpid();
    if (manager.n && is_ours && env_number("WATCHDOG_USEC", &us)) manager.watchdog_ms = us / 2000;
}

void notify_deinit(void)
{
    if (manager.n) (void)close(manager.fd);
    manager.n = 0;
}

static void send_message(const char *text)
{
    if (manager.n == 0) return;
    (void)sendto(manager.fd, text, strlen(text), MSG_NOSIGNAL, (const struct sockaddr *)&manager.address,
                 manager.n);
}

/* Only the first line of `status`: a second one would be another assignment. */
static void send_with_status(const char *state, const char *status)
{
    char text[MESSAGE_BYTES_MAX];
    int n = (int)strcspn(status, "\n");
    (void)snprintf(text, sizeof text, "%s%sSTATUS=%.*s", state, state[0] ? "\n" : "", n, status);
    send_message(text);
}

void notify_ready(const char *status)
{
    manager.is_ready = true;
    send_with_status("READY=1", status);
}

/* The instant lets the service manager tell this message from one of an earlier reload. */
void notify_reloading(void)
{
    char text[MESSAGE_BYTES_MAX];
    if (!manager.is_ready) return;
    (void)snprintf(text, sizeof text, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, clock_mono_us());
    send_message(text);
}

void notify_reloaded(bool is_done, const char *reasons, uint64_t generation)
{
    char text[MESSAGE_BYTES_MAX];
    if (!manager.is_ready) return;
    if (is_done)
        (void)snprintf(text, sizeof text, "configuration %" PRIu64 " is in force", generation);
    else
        (void)snprintf(text, sizeof text, "reload failed: %s", reasons);
    notify_ready(text);
}

void notify_stopping(const char *status)
{
    send_with_status("STOPPING=1", status);
}

void notify_status(const char *status)
{
    send_with_status("", status);
}

void notify_watchdog(void)
{
    send_message("WATCHDOG=1");
}

void notify_extend_timeout(uint64_t ms)
{
    char text[MESSAGE_BYTES_MAX];
    (void)snprintf(text, sizeof text, "EXTEND_TIMEOUT_USEC=%" PRIu64, ms * 1000);
    send_message(text);
}

void notify_handed_over(pid_t pid)
{
    char text[MESSAGE_BYTES_MAX];
    (void)snprintf(text, sizeof text, "MAINPID=%ld", (long)pid);
    send_message(text);
    notify_deinit();
}

uint64_t notify_watchdog_ms(void)
{
    return manager.watchdog_ms;
}
