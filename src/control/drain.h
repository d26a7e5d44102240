/* drain.h - how the process stops serving: for a while (proofctl drain) or for good (SIGTERM, an upgrade).
 *
 *   NONE <--> DELAY ---timeouts.drain_delay---> ON        drain_begin, drain_undo
 *     `---> LEAVING ---timeouts.drain_delay---> ENDING ---timeouts.shutdown---> OVERDUE
 *                                                         drain_end; from DELAY and ON as well
 *                          any of them -------> CUTTING   drain_now
 *   OVERDUE, CUTTING ---a margin---> on_hang              a worker hangs
 *
 * Not being ready comes first: during the delay everything goes on as before, so that load balancers have
 * time to notice. Then the workers close what is idle, end tunnels one by one, and answer everything else
 * with `Connection: close` (enum worker_mode). ON keeps the listeners open: whoever still sends, gets
 * answers.
 *
 * The workers keep timeouts.shutdown by themselves, and drain_close() says that they have ended.
 *
 * Thread: [control].
 */
#ifndef CONTROL_DRAIN_H
#define CONTROL_DRAIN_H

#include "control/fleet.h"

enum drain_state {
    DRAIN_NONE = 0,
    DRAIN_DELAY,   /* not ready; the workers know nothing yet. Timer */
    DRAIN_ON,      /* the workers drain */
    DRAIN_LEAVING, /* not ready; the end begins with the timer */
    DRAIN_ENDING,  /* the workers end, within timeouts.shutdown. Timer */
    DRAIN_OVERDUE, /* that is over: the workers cut what is left. Timer */
    DRAIN_CUTTING, /* the workers end now. Timer */
};

struct drain {
    struct loop *loop;
    struct fleet *fleet;
    enum drain_state state;
    uint64_t since_ms;    /* monotonic: when it was DRAIN_NONE last */
    uint64_t shutdown_ms; /* from DRAIN_LEAVING on: timeouts.shutdown */
    struct wheel_entry timer;
    void (*on_hang)(void *arg); /* the workers should have ended long ago */
    void *arg;
};

/* Before the fleet has been made. */
void drain_init(struct drain *d, struct loop *loop, struct fleet *fleet, void (*on_hang)(void *arg),
                void *arg);

/* Drains without an end. Harmless when it drains already. */
void drain_begin(struct drain *d, uint64_t delay_ms);

/* Serves again. False when the end has begun. */
bool drain_undo(struct drain *d);

/* Drains, then ends; `shutdown_ms` as the workers have it. The time it has been draining already is taken off
 * the delay. No effect when the end has begun. */
void drain_end(struct drain *d, uint64_t delay_ms, uint64_t shutdown_ms);

/* Ends at once. */
void drain_now(struct drain *d);

/* The workers have ended, or never ran. Idempotent. */
void drain_close(struct drain *d);

/* True when the process is going to end. */
static inline bool drain_is_final(const struct drain *d)
{
    return d->state >= DRAIN_LEAVING;
}

/* "serving", "drain_delay", ... */
const char *drain_state_text(enum drain_state s);

#endif
