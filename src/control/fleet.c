#include "control/fleet.h"

#include "base/container.h"
#include "base/fd.h"
#include "base/log.h"
#include "policy/epoch.h"
#include "proxy/sources.h"

#include <stdlib.h>
#include <sys/resource.h>

_Static_assert((int)CONFIG_WORKERS_MAX < (int)LOG_THREADS_MAX, "a worker without a log");
_Static_assert((int)CONFIG_WORKERS_MAX <= (int)EPOCH_READERS_MAX, "a worker that cannot read the policy");

/* Besides connections: of the process with its reserve, and of each worker (loop, listeners, splice). */
enum { FDS_PROCESS = 16 + FDS_RESERVED, FDS_WORKER = 16 };

static void on_worker_stopped(struct loop_message *m)
{
    struct fleet_worker *fw = CONTAINER_OF(m, struct fleet_worker, stopped);
    struct fleet *f = fw->fleet;
    worker_join(fw->worker);
    if (--f->nrunning == 0) f->on_stopped(f->arg);
}

/* On the worker's thread, the last thing it does. */
static void tell_stopped(struct worker *w, void *arg)
{
    struct fleet_worker *fw = arg;
    (void)w;
    BUG_IF(!loop_post(fw->fleet->loop, &fw->stopped), "the control loop ended before its workers");
}

void fleet_raise_fd_limit(const struct config_limits *limits, unsigned workers)
{
    struct rlimit have;
    if (getrlimit(RLIMIT_NOFILE, &have) != 0) return;
    have.rlim_cur = have.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &have); /* within the hard limit: cannot fail */
    uint64_t wanted = workers * (2 * (uint64_t)limits->connections_per_worker + FDS_WORKER) + FDS_PROCESS;
    if (have.rlim_cur < wanted)
        log_warn("few_descriptors", KV_UINT("limit", have.rlim_cur), KV_UINT("wanted", wanted),
                 KV_STR("hint", "raise LimitNOFILE or lower limits.connections_per_worker"));
}

enum err fleet_create(struct fleet *f, struct loop *loop, const struct config *c, struct policy *policy,
                      void (*on_stopped)(void *arg), void *arg)
{
    *f = (struct fleet){.loop = loop, .on_stopped = on_stopped, .arg = arg};
    f->limits = partner_limits_create();
    f->sources = sources_create();
    f->workers = calloc(c->workers, sizeof *f->workers);
    if (!f->limits || !f->sources || !f->workers) return ERR_NOMEM;
    for (; f->n < c->workers; f->n++) {
        struct fleet_worker *fw = &f->workers[f->n];
        fw->worker = worker_create(f->n, c->limits.buffer_bytes, policy, f->limits, f->sources);
        if (!fw->worker) return ERR_NOMEM;
        fw->fleet = f;
        fw->stopped.deliver = on_worker_stopped;
        worker_on_stopped(fw->worker, tell_stopped, fw);
    }
    return ERR_OK;
}

enum err fleet_start(struct fleet *f)
{
    for (unsigned i = 0; i < f->n; i++) {
        if (worker_start(f->workers[i].worker)) {
            log_error("worker_not_started", KV_UINT("worker", i),
                      KV_STR("hint", "no thread could be made: raise TasksMax or the limit of processes, or "
                                     "lower workers"));
            return ERR_IO;
        }
        f->nrunning++;
    }
    return ERR_OK;
}

void fleet_set_mode(struct fleet *f, enum worker_mode mode)
{
    for (unsigned i = 0; i < f->n; i++)
        worker_set_mode(f->workers[i].worker, mode);
}

void fleet_set_addresses(struct fleet *f, enum environment env, const struct address_list *list)
{
    for (unsigned i = 0; i < f->n; i++)
        if (worker_set_addresses(f->workers[i].worker, env, list))
            log_error("addresses_not_delivered", KV_UINT("worker", i), KV_STR("env", environment_name(env)));
}

static void on_flush_changes(struct loop_message *m)
{
    struct fleet_changes *changes = CONTAINER_OF(m, struct fleet_changes, flush);
    struct fleet *f = CONTAINER_OF(changes, struct fleet, changes);
    for (unsigned i = 0; i < f->n; i++)
        worker_policy_changed(f->workers[i].worker, changes->indices, changes->n,
                              changes->n == FLEET_CHANGES_MAX);
    changes->n = 0;
    changes->flush_posted = false;
}

void fleet_partner_changed(struct fleet *f, uint32_t index)
{
    struct fleet_changes *changes = &f->changes;
    if (f->n == 0) return; /* the first load: nobody to tell */
    if (changes->n < FLEET_CHANGES_MAX) changes->indices[changes->n++] = index;
    if (changes->flush_posted) return;
    changes->flush_posted = true;
    changes->flush.deliver = on_flush_changes;
    (void)loop_post(f->loop, &changes->flush); /* refused only while closing: the workers have ended */
}

bool fleet_was_cut(const struct fleet *f)
{
    for (unsigned i = 0; i < f->n; i++)
        if (f->workers[i].worker->cut_by_bound) return true;
    return false;
}

void fleet_destroy(struct fleet *f)
{
    for (unsigned i = 0; i < f->n; i++)
        worker_destroy(f->workers[i].worker);
    partner_limits_destroy(f->limits);
    sources_destroy(f->sources);
    free(f->workers);
    f->limits = NULL;
    f->sources = NULL;
    f->workers = NULL;
    f->n = 0;
}
