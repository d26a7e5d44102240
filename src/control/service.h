/* service.h - whether all workers are alive, and what the service manager hears: that the process is ready,
 * that it is alive, how it does.
 *
 *   at once, then every INTERVAL: a question to every worker (survey.h)
 *      all have answered  ->  WATCHDOG=1, STATUS=...
 *      one has not        ->  nothing, and a line `worker_silent`: the service manager ends a process that
 *                             hangs. /healthz and /readyz answer 503 for whoever else looks after it
 *
 * The first question is asked at once: before an upgrade the old process may have sent its last WATCHDOG=1
 * almost an INTERVAL ago, and two of them are all the time that the service manager grants.
 *
 * READY=1 comes when requests can be answered, and after SERVICE_READY_WAIT_MS in any case: a store that is
 * away must not make the start fail, and what is known of it is in STATUS= and on /readyz.
 *
 * Without NOTIFY_SOCKET nothing is sent (notify.h); the workers are asked all the same.
 *
 * Thread: [control].
 */
#ifndef CONTROL_SERVICE_H
#define CONTROL_SERVICE_H

#include "control/status.h"
#include "control/survey.h"

enum {
    SERVICE_READY_WAIT_MS = 10000,
    SERVICE_STATUS_MS = 10000, /* at most so old is the text of `systemctl status` */
    SERVICE_EXTEND_MS = 30000, /* what a stop is granted with each sign of life */
};

enum service_state {
    SERVICE_CLOSED = 0,
    SERVICE_STARTING, /* not ready yet */
    SERVICE_RUNNING,
    SERVICE_STOPPING, /* STOPPING=1 has been said */
};

struct service {
    struct loop *loop;
    struct worker *const *workers; /* borrowed */
    unsigned nworkers;
    const struct status *status; /* borrowed */
    enum service_state state;
    uint64_t opened_ms;
    struct wheel_entry ready_timer, alive_timer;
    const struct survey *asked; /* on its way, or NULL */
    uint64_t asked_ms;
    unsigned nsilent; /* workers that did not answer within an INTERVAL, and have not since */
};

/* The workers run. */
void service_open(struct service *s, struct loop *loop, struct worker *const *workers, unsigned n,
                  const struct status *status);

/* The end has begun. */
void service_stop(struct service *s);

/* Says nothing more. Harmless when it was never opened. A survey that is on its way ends by itself: `s` must
 * live until the loop has run out. */
void service_close(struct service *s);

#endif
