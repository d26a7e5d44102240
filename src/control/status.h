/* status.h - how the process is: readiness for the admin listener, all of it for proofctl, one line for the
 * service manager.
 *
 * Thread: [control].
 */
#ifndef CONTROL_STATUS_H
#define CONTROL_STATUS_H

#include "base/outbuf.h"
#include "control/drain.h"
#include "control/reload.h"
#include "policy/policy.h"
#include "store/store.h"

#include <stdbool.h>

struct handover;
struct service;

/* Everything that it is told from; control keeps it up to date. */
struct status {
    const struct policy *policy;
    const struct store *store; /* NULL before it is open */
    const char *version, *commit;
    const struct deployment *deployment;
    const struct reload_status *reload;
    const struct certificate_status *certificates;
    unsigned workers;
    const struct drain *drain;
    const struct handover *handover;
    const struct service *service;
    bool listening;
    uint64_t started_wall_ms;
};

/* What the store says of itself; zeros before it is open. */
struct store_status status_read_store(const struct status *s);

/* Requests can be answered as they should: there are partners that are not too old, and backends. */
bool status_can_serve(const struct status *s);

/* One line for people, with a NUL: "serving: 12 connections, 3 tunnels, partner data 17". */
void status_write_line(const struct status *s, char *out, size_t cap);

/* Every check of /readyz has passed. `store`: as it was read. */
bool status_is_ready(const struct status *s, const struct store_status *store);

/* JSON for /readyz; true when ready. */
bool status_write_ready(const struct status *s, struct outbuf *o);

enum { STATUS_JSON_MAX = 128 * 1024 };

/* The state of the process for `proofctl status`: one JSON object and a line break, at most STATUS_JSON_MAX
 * bytes. */
void status_write_json(const struct status *s, struct outbuf *o);

#endif
