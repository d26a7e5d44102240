/* upgrade.h - SIGUSR2: a new binary takes over the listening sockets of this process, and nothing is lost.
 *
 *   old process                                    new process (the same path and arguments, exec'ed)
 *   upgrade_start: spawn, channel is descriptor 3
 *       "socket NAME" + descriptor, ...  ------>   upgrade_receive: list of inherited sockets
 *       "end"                            ------>   reads its configuration, loads partners, serves
 *       done(UPGRADE_TAKEN_OVER)         <------   upgrade_report: "ready"
 *   drains and ends
 *
 * Both accept from the same sockets until the old one stops: no connection waits in vain. When the new
 * process ends before it is ready, or is not ready in time, it is killed, and the old one goes on as if
 * nothing had been.
 *
 * The channel is a SOCK_SEQPACKET pair; PROOFGW_UPGRADE_FD in the environment names its descriptor.
 *
 * Thread: [control].
 */
#ifndef CONTROL_UPGRADE_H
#define CONTROL_UPGRADE_H

#include "control/inherited.h"
#include "net/loop.h"

enum upgrade_result {
    UPGRADE_TAKEN_OVER = 0, /* the new process serves */
    UPGRADE_ENDED,          /* it ended before it was ready; its own log says why */
    UPGRADE_TIMED_OUT,      /* it was not ready in time, and was killed */
    UPGRADE_BROKEN,         /* the channel failed */
};

/* What is handed over; borrowed until the upgrade is done. */
struct upgrade_socket {
    const char *name; /* the address as the configuration writes it */
    int fd;
};

enum upgrade_state {
    UPGRADE_IDLE = 0, /* the handles are closed; upgrade_start() may be called */
    UPGRADE_SENDING,  /* the new process runs; sockets are on their way */
    UPGRADE_WAITING,  /* all sent; its word is awaited */
    UPGRADE_CLOSING,  /* done was called; libuv lets go of the handles */
};

struct upgrade {
    uv_process_t process;
    uv_poll_t poll; /* the channel */
    struct loop *loop;
    struct wheel_entry timer;
    struct upgrade_socket *sockets; /* owned */
    unsigned nsockets, nsent;
    unsigned nhandles; /* that libuv still knows */
    int channel;
    enum upgrade_state state;
    void (*done)(struct upgrade *u, enum upgrade_result result);
    void *user;
};

/* Remembers how this process was started; call first thing in main(). `argv` must live on. */
void upgrade_remember(char **argv);

/* Starts the new process. `sockets` (malloc'ed) is u's from now on, also on failure; the descriptors in it
 * stay the caller's. `done` comes once, in a later turn. Errors: ERR_EXISTS (one is going on), ERR_IO,
 * ERR_NOMEM. */
enum err upgrade_start(struct upgrade *u, struct loop *loop, struct upgrade_socket *sockets, unsigned n,
                       uint64_t timeout_ms, void (*done)(struct upgrade *u, enum upgrade_result result));

/* Kills a new process that is not ready yet; `done` is not called. Harmless at any other time. */
void upgrade_cancel(struct upgrade *u);

/* In the new process: takes what the old one hands over. `*channel` is -1 when this is no upgrade.
 * Errors: ERR_IO (the old process has broken off), ERR_NOMEM. */
enum err upgrade_receive(struct inherited *in, int *channel);

/* In the new process: says that it serves, and closes the channel. */
void upgrade_report(int channel);

/* "the new process ended before it was ready" ... */
const char *upgrade_result_text(enum upgrade_result r);

#endif
