/* fleet.h - all workers of the process: made, started, told, drained and ended together.
 *
 * Thread: [control].
 */
#ifndef CONTROL_FLEET_H
#define CONTROL_FLEET_H

#include "proxy/worker.h"
#include "proxy/worker_update.h"

enum { FLEET_CHANGES_MAX = 1024 };

/* Partners that changed in this turn of the control loop; beyond FLEET_CHANGES_MAX the workers look at
 * everybody. */
struct fleet_changes {
    struct loop_message flush;
    bool flush_posted;
    uint32_t n;
    uint32_t indices[FLEET_CHANGES_MAX];
};

struct fleet;

struct fleet_worker {
    struct worker *worker;
    struct fleet *fleet;
    struct loop_message stopped;
};

struct fleet {
    struct loop *loop; /* control's */
    struct fleet_worker *workers;
    unsigned n, nrunning;
    struct partner_limits *limits; /* what partners use of all workers together */
    struct sources *sources;       /* what each address has open of them */
    struct fleet_changes changes;
    void (*on_stopped)(void *arg); /* the last worker has ended */
    void *arg;
};

/* Makes workers as the configuration says, without listeners. What was made before an error is released by
 * fleet_destroy(). Errors: ERR_NOMEM. */
enum err fleet_create(struct fleet *f, struct loop *loop, const struct config *c, struct policy *policy,
                      void (*on_stopped)(void *arg), void *arg);

/* Raises the limit of open descriptors to the hard limit, and warns when that is too low for the connections
 * that the configuration allows. */
void fleet_raise_fd_limit(const struct config_limits *limits, unsigned workers);

/* After each worker's first update. Those started before an error run. Errors: ERR_IO (logged). */
enum err fleet_start(struct fleet *f);

/* worker_set_mode() for all. */
void fleet_set_mode(struct fleet *f, enum worker_mode mode);

/* New backend addresses for all. */
void fleet_set_addresses(struct fleet *f, enum environment env, const struct address_list *list);

/* A partner (index) has changed; the workers hear of it at the end of the turn. */
void fleet_partner_changed(struct fleet *f, uint32_t index);

/* True when a worker had to cut connections because its time to drain was over. Call when all have ended. */
bool fleet_was_cut(const struct fleet *f);

/* After all have ended. */
void fleet_destroy(struct fleet *f);

#endif
