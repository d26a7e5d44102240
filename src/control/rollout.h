/* rollout.h - one generation on its way into force: everything it needs is built aside, then all workers go
 * over to it.
 *
 *   prepare    TLS, log outputs, names to resolve; on failure nothing has changed
 *   listen     sockets, an update per worker, when no name is waited for any more: the system may give new
 *              connections to a new socket from its first moment, so nobody waits with one; on failure
 * nothing has changed publish    a message to each worker, backends and log outputs change; cannot fail done
 * every worker has acknowledged
 *
 * The first generation goes the same way, before the workers' threads exist.
 *
 * Thread: [control].
 */
#ifndef CONTROL_ROLLOUT_H
#define CONTROL_ROLLOUT_H

#include "control/backend.h"
#include "control/fleet.h"
#include "control/sockets.h"

/* What is in force. */
struct deployment {
    struct loop *loop; /* control's */
    struct fleet fleet;
    struct inherited inherited; /* sockets that another process handed over; empty after the start */
    struct generation *first; /* the configuration of the start, without TLS: its keys marked `restart` are in
                                 force until the process ends */
    struct generation *current; /* NULL before the first rollout is published */
    struct generation *before;  /* one reference, while workers have not acknowledged `current`; else NULL */
    struct backend *backends[ENV_COUNT]; /* NULL: no such environment */
    struct rollout *pending;             /* prepared and not published */
    unsigned nclosing;                   /* backends whose last name look-up has not returned */
    void (*on_backend_closed)(struct deployment *d);
};

struct rollout {
    struct deployment *deployment;
    struct generation *next;                         /* one reference, until it is published */
    int kept[CONFIG_LISTENERS_MAX];                  /* config_kept_listener() */
    struct socket_set sockets[CONFIG_LISTENERS_MAX]; /* of new listeners */
    struct worker_update **updates;                  /* one per worker */
    struct backend *backends[ENV_COUNT];    /* new ones; NULL: the one in force stays, or there is none */
    struct log_outputs *outputs;            /* NULL: they stay */
    unsigned nwaiting;                      /* workers that have not acknowledged */
    void (*on_progress)(struct rollout *r); /* a name was resolved */
    void (*on_done)(struct rollout *r);     /* may be NULL */
};

/* Whether rollout_prepare() would refuse this configuration, as far as that can be said without opening
 * anything: limits against the running buffer, files of TLS. There must be one in force. Errors: ERR_RANGE,
 * those of certificates_build(). */
enum err rollout_check(const struct deployment *d, const struct config *next, struct errmsg *why);

/* Begins to build the next generation, whose reference it takes over, also on failure; the deployment is as
 * it was then. on_progress and on_done are set before. Errors: ERR_NOMEM, ERR_IO, ERR_RANGE, those of
 * certificates_build() (`why` is for the operator). */
enum err rollout_prepare(struct rollout *r, struct deployment *d, struct generation *next,
                         struct errmsg *why);

/* The name of a new backend that has no address yet, or NULL. */
const char *rollout_unresolved(const struct rollout *r);

/* Opens the new listeners and makes the updates, after rollout_prepare() and immediately before
 * rollout_publish(). On failure the rollout is abandoned. Errors: ERR_NOMEM, ERR_IO, ERR_EXISTS, ERR_RANGE,
 * ERR_UNSUPPORTED (`why` is for the operator). */
enum err rollout_listen(struct rollout *r, struct errmsg *why);

/* Instead of publishing. */
void rollout_abandon(struct rollout *r);

/* Puts the generation in force. on_done comes in a later turn. Workers must not be ending. */
void rollout_publish(struct rollout *r);

/* After the workers have ended: the files of unix sockets, unless another process listens there now. */
void deployment_remove_socket_files(const struct deployment *d);

/* Stops following the backends' names, for the end of the process. */
void deployment_close_backends(struct deployment *d);

/* Environments whose backend has no address yet. */
unsigned deployment_unresolved(const struct deployment *d);

#endif
