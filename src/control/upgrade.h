/* upgrade.h - SIGUSR2: a new binary takes over the listening sockets of this process, and nothing is lost.
 *
 *   old process                                    new process (the same path and arguments, exec'ed)
 *   upgrade_start: spawn, channel is descriptor 3
 *       "socket NAME" + descriptor, ...  ------>   upgrade_receive: list of inherited sockets
 *       "end"                            ------>   opens what it needs, loads partners, then serves
 *       done(UPGRADE_TAKEN_OVER)         <------   upgrade_report: "ready"
 *   drains and ends
 *
 * The new process reads its configuration before it takes the sockets. Both accept from the same sockets
 * until the old one stops: no connection waits in vain. When the new process ends before it is ready, or is
 * not ready in time, it is killed, and the old one goes on as if nothing had been. A new process whose old
 * one has ended meanwhile serves at once.
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

/* What is handed over. */
struct upgrade_socket {
    char name[INHERITED_NAME_MAX]; /* inherited_name() */
    int fd;                        /* owned; -1 = it has gone over */
};

struct upgrade_offer {
    struct upgrade_socket *sockets; /* malloc'ed */
    unsigned n;
    bool is_ready; /* the old process can serve requests: the new one must be able to before it takes over */
    uint64_t timeout_ms;
};

enum upgrade_state {
    UPGRADE_IDLE = 0, /* the handles are closed; upgrade_start() may be called */
    UPGRADE_SENDING,  /* the new process runs; sockets are on their way */
    UPGRADE_WAITING,  /* all sent; waits for "ready" */
    UPGRADE_KILLING,  /* it has been killed; `result` is known */
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
    bool is_cancelled;          /* `done` is not called any more */
    enum upgrade_result result; /* UPGRADE_KILLING */
    bool is_ready;              /* as offered */
    int64_t exit_status;        /* UPGRADE_ENDED */
    int exit_signal;            /* UPGRADE_ENDED; 0 = none */
    enum upgrade_state state;
    void (*done)(struct upgrade *u, enum upgrade_result result);
};

/* Remembers how this process was started; call first thing in main(). `argv` must live on. */
void upgrade_remember(char **argv);

/* Starts the new process. The sockets and their descriptors are u's from now on, also on failure. `done`
 * comes once, in a later turn. Errors: ERR_EXISTS (one is going on), ERR_IO, ERR_NOMEM (`why` says what is
 * wrong). */
enum err upgrade_start(struct upgrade *u, struct loop *loop, const struct upgrade_offer *offer,
                       void (*done)(struct upgrade *u, enum upgrade_result result), struct errmsg *why);

/* Closes the descriptors and frees. */
void upgrade_sockets_free(struct upgrade_socket *sockets, unsigned n);

/* Kills a new process that is not ready yet; `done` is not called. Harmless at any other time. */
void upgrade_cancel(struct upgrade *u);

/* What `done` was told, as a sentence without a stop. */
void upgrade_describe(const struct upgrade *u, enum upgrade_result result, char *out, size_t cap);

/* The old process, as the new one sees it. */
struct upgrade_origin {
    int channel;   /* -1: this is no upgrade */
    bool is_ready; /* it can serve requests */
};

/* In the new process: takes what the old one hands over. Errors: ERR_IO (the old process has broken off),
 * ERR_NOMEM. */
enum err upgrade_receive(struct inherited *in, struct upgrade_origin *origin);

/* In the new process: the old one has ended while this one got ready. */
bool upgrade_is_orphan(const struct upgrade_origin *origin);

/* In the new process: says that it serves, and closes the channel. Harmless when this is no upgrade. */
void upgrade_report(struct upgrade_origin *origin);

/* In the new process: closes the channel without a word. Harmless as well. */
void upgrade_give_up(struct upgrade_origin *origin);

#endif
