/* generation.h - one configuration that is, or was, in force, with everything that was made from it for all
 * workers.
 *
 *   control: generation_create --> one worker_settings per worker --> published by message
 *
 * Immutable and counted: control holds the current one, every worker_settings holds its own. A reload makes
 * the next one, and so do new certificates, with the same configuration; the old one goes when the last
 * request that began with it is over, on whichever thread that happens. What belongs to a configuration and
 * is shared by the workers has its place here.
 *
 * Thread: [any]; the count is atomic, and touched only when settings are made and freed, never per request.
 */
#ifndef PROXY_GENERATION_H
#define PROXY_GENERATION_H

#include "config/config.h"
#include "proxy/tls_contexts.h"

#include <stdatomic.h>

struct generation {
    _Atomic uint32_t refs;
    uint64_t number;         /* 1 = the configuration of the start; one more with each reload of it */
    struct config *config;   /* one reference */
    struct tls_contexts tls; /* empty until they are made (control/certificates.h) */
};

/* One reference, the caller's. Takes the reference of `config` over when it succeeds. Errors: NULL when
 * memory is out. */
struct generation *generation_create(uint64_t number, struct config *config);

/* Takes another reference. Returns `g`. */
struct generation *generation_ref(struct generation *g);

/* Gives a reference back; the last one frees. NULL is allowed. */
void generation_unref(struct generation *g);

#endif
