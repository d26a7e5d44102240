/* store.h - where partner data comes from; feeds the policy.
 *
 * One vtable, because there are two sources behind it: the file store (file_store.c) and Redis. A store
 * lives on the control loop, keeps the policy in step, and reports its state for readiness and metrics.
 * The store being away never empties the policy.
 *
 * Thread: [control].
 */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include "config/config.h"
#include "policy/policy.h"

#include <uv.h>

struct store;

struct store_status {
    bool up;               /* the source answers (file: the last read succeeded) */
    uint64_t loaded_at_ms; /* wall clock of the last successful load; 0 = never */
    uint64_t loads_total, load_failures_total;
    uint64_t records_rejected; /* of the last load attempt */
    uint64_t load_us;          /* duration of the last successful load */
    char last_error[240];      /* of the last failed attempt; "" when the last one succeeded */
};

struct store_ops {
    void (*reload)(struct store *s); /* SIGHUP */
    void (*status)(const struct store *s, struct store_status *out);
    void (*close)(struct store *s, void (*on_closed)(void *arg), void *arg); /* asynchronous; frees s */
};

struct store {
    const struct store_ops *ops;
};

/* Opens the store that the configuration names, loads it once and goes on watching. A first load that fails
 * is not an error here: the policy stays not ready, the status says why. Errors: ERR_NOMEM, ERR_IO (the loop
 * refused a handle). */
enum err store_open(uv_loop_t *loop, const struct config *config, struct policy *policy, struct store **out);

#endif
