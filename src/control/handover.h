/* handover.h - SIGUSR2 in the process that serves: its sockets go to a new process, then it ends.
 *
 *   handover_request -> workers give duplicates of their sockets -> upgrade_start
 *      a worker hangs:          goes on without its sockets; the new process opens others beside them
 *      the new process serves:  on_taken_over(), which drains this process
 *      anything else:           a line `upgrade_failed`, a count, and everything goes on as before
 *
 * No reload takes place meanwhile: a listener that comes or goes would be missed. A reload that is requested
 * then runs after an upgrade that has failed; after one that succeeds the new process has read the file.
 *
 * Thread: [control].
 */
#ifndef CONTROL_HANDOVER_H
#define CONTROL_HANDOVER_H

#include "control/reload.h"
#include "control/upgrade.h"

struct status;
struct survey;

enum handover_result { HANDOVER_DONE = 0, HANDOVER_FAILED, HANDOVER_REFUSED };

enum { HANDOVER_RESULTS = HANDOVER_REFUSED + 1 };

/* A socket that control itself listens on. */
struct handover_socket {
    enum inherited_role role;
    const struct endpoint *endpoint;
    int fd; /* -1: there is none */
};

enum { HANDOVER_OWN_SOCKETS = 2 }; /* the admin listener and the control socket */

/* What it needs of the process; borrowed. */
struct handover_host {
    struct loop *loop;
    struct deployment *deployment;
    struct worker *const *workers;
    struct reload *reload;
    const struct status *status;
    struct handover_socket own[HANDOVER_OWN_SOCKETS];
    void (*on_taken_over)(void *arg);
    void *arg;
};

enum handover_state {
    HANDOVER_IDLE = 0,
    HANDOVER_GATHERING, /* the workers are `asked` for their sockets. Timer */
    HANDOVER_RUNNING,   /* `upgrade` is at work; reload is held */
    HANDOVER_CLOSED,    /* the process ends, or has been replaced */
};

struct handover {
    struct handover_host host;
    struct upgrade upgrade;
    struct survey *asked; /* HANDOVER_GATHERING, else NULL. One that comes too late ends by itself */
    struct wheel_entry timer;
    enum handover_state state;
    uint64_t total[HANDOVER_RESULTS];
};

/* After the workers have been started. */
void handover_open(struct handover *h, const struct handover_host *host);

/* Begins; the result is in the log and in the counts. */
void handover_request(struct handover *h);

/* Gives up an upgrade that is under way, and kills the new process. Idempotent; no effect when it was never
 * opened. `h` must live until the loop has run out. */
void handover_close(struct handover *h);

/* "done", ...: metric upgrades_total. */
const char *handover_result_text(enum handover_result r);

#endif
