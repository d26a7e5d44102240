/* settings.h - one worker's handle of a generation, with what is derived from it for each request.
 *
 *   worker->settings   the current ones
 *   conn->settings     those of the request it is in; the current ones while it is idle; NULL in a tunnel
 *   worker_listener    those that had its address last
 *
 * A worker has its own copy with a plain count, so that no request touches memory that another thread writes.
 * Control makes it and hands it over; from then on only the worker touches it. Tunnels, which may live for
 * days, hold none: they go by the worker's current ones.
 *
 * Thread: settings_create [control]; the rest [worker].
 */
#ifndef PROXY_SETTINGS_H
#define PROXY_SETTINGS_H

#include "http/body.h"
#include "proxy/generation.h"
#include "proxy/partner_limits.h"

struct worker_settings {
    uint32_t refs;
    struct generation *generation; /* one reference */
    const struct config *config;   /* the generation's */
    struct head_limits head_limits, response_head_limits;
    struct body_limits body_limits, response_body_limits;
    struct partner_rules partner_rules;
};

/* One reference, the caller's. Errors: NULL when memory is out. */
struct worker_settings *settings_create(struct generation *g);

/* Takes another reference. Returns `s`. */
struct worker_settings *settings_ref(struct worker_settings *s);

/* Gives a reference back; the last one frees. NULL is allowed. */
void settings_unref(struct worker_settings *s);

#endif
