/* notify.h - tells the service manager how we are: the sd_notify protocol, a datagram per message.
 *
 * Without NOTIFY_SOCKET in the environment every call is a no-op, and after notify_handed_over() as well. The
 * environment is read once.
 *
 *   READY=1        serving (also after a reload)       STATUS=text     one line for `systemctl status`
 *   RELOADING=1    a reload has begun                  WATCHDOG=1      still alive
 *   STOPPING=1     draining                            MAINPID=n       another process is the service now
 *
 * Thread: [control].
 */
#ifndef CONTROL_NOTIFY_H
#define CONTROL_NOTIFY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Reads the environment: NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID. Holds a descriptor until
 * notify_deinit().
 */
void notify_init(void);

/* Closes the descriptor; later messages go nowhere. Idempotent. */
void notify_deinit(void);

/* Each sends one message; what cannot be delivered is lost, as with every notification. Of a text, the first
 * line is sent. */
void notify_ready(const char *status);
void notify_stopping(const char *status);
void notify_status(const char *status);
void notify_watchdog(void);

/* A reload begins and ends; before notify_ready() they say nothing, because the end of one is READY=1 too.
 * `reasons`: why it failed. */
void notify_reloading(void);
void notify_reloaded(bool is_done, const char *reasons, uint64_t generation);

/* The stop may take `ms` more. */
void notify_extend_timeout(uint64_t ms);

/* Another process is the service now; this one has nothing to say any more. */
void notify_handed_over(pid_t pid);

/* How often notify_watchdog() is wanted: half of what the service manager waits; 0 = never. */
uint64_t notify_watchdog_ms(void);

#endif
