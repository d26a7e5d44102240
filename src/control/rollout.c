#include "control/rollout.h"

#include "base/container.h"
#include "base/log.h"
#include "config/diff.h"
#include "control/certificates.h"
#include "control/sockets.h"

#include <inttypes.h>
#include <stdlib.h>

/* --- backends -------------------------------------------------------------------------------------- */

static void on_backend_closed(struct backend *b)
{
    struct deployment *d = b->arg;
    d->nclosing--;
    if (d->on_backend_closed) d->on_backend_closed(d);
}

static void close_backend(struct deployment *d, struct backend *b)
{
    if (!b) return;
    d->nclosing++;
    backend_close(b, on_backend_closed);
}

void deployment_close_backends(struct deployment *d)
{
    for (unsigned e = 0; e < ENV_COUNT; e++) {
        close_backend(d, d->backends[e]);
        d->backends[e] = NULL;
    }
}

unsigned deployment_unresolved(const struct deployment *d)
{
    unsigned n = 0;
    for (unsigned e = 0; e < ENV_COUNT; e++)
        n += d->backends[e] && d->backends[e]->addresses.n == 0;
    return n;
}

static void on_addresses(struct backend *b)
{
    struct deployment *d = b->arg;
    if (d->backends[b->env] == b)
        fleet_set_addresses(&d->fleet, b->env, &b->addresses);
    else if (d->pending)
        d->pending->on_progress(d->pending);
}

static enum err prepare_backends(struct rollout *r, struct errmsg *why)
{
    struct deployment *d = r->deployment;
    for (unsigned e = 0; e < ENV_COUNT; e++) {
        const struct config_environment *env = &r->next->config->environments[e];
        const struct backend *present = d->backends[e];
        if (!env->present || (present && endpoint_equal(&present->endpoint, &env->upstream))) continue;
        r->backends[e] = backend_create(d->loop, (enum environment)e, &env->upstream, on_addresses, d);
        if (!r->backends[e]) {
            errmsg_set(why, 0, 0, "out of memory");
            return ERR_NOMEM;
        }
    }
    return ERR_OK;
}

const char *rollout_unresolved(const struct rollout *r)
{
    for (unsigned e = 0; e < ENV_COUNT; e++)
        if (r->backends[e] && r->backends[e]->addresses.n == 0) return r->backends[e]->endpoint.text;
    return NULL;
}

static void publish_backends(struct rollout *r)
{
    struct deployment *d = r->deployment;
    for (unsigned e = 0; e < ENV_COUNT; e++) {
        bool present = r->next->config->environments[e].present;
        for (unsigned w = 0; r->backends[e] && w < d->fleet.n; w++)
            r->updates[w]->addresses[e] = r->backends[e]->addresses;
        if (present && !r->backends[e]) continue;
        close_backend(d, d->backends[e]);
        d->backends[e] = r->backends[e];
        r->backends[e] = NULL;
    }
}

/* --- sockets and updates --------------------------------------------------------------------------- */

/* A listener that goes away with this rollout has the port of `l`. */
static bool is_moved(const struct rollout *r, const struct config_listener *l)
{
    const struct generation *current = r->deployment->current;
    if (!current || l->address.kind != ENDPOINT_IP || l->address.port == 0) return false;
    for (uint32_t i = 0; i < current->config->nlisteners; i++) {
        const struct endpoint *e = &current->config->listeners[i].address;
        bool stays = false;
        for (uint32_t k = 0; k < r->next->config->nlisteners; k++)
            stays = stays || r->kept[k] == (int)i;
        if (!stays && e->kind == ENDPOINT_IP && e->port == l->address.port) return true;
    }
    return false;
}

static enum err open_sockets(struct rollout *r, struct errmsg *why)
{
    const struct config *c = r->next->config;
    struct deployment *d = r->deployment;
    for (uint32_t l = 0; l < c->nlisteners; l++) {
        if (r->kept[l] >= 0) continue;
        enum err e = sockets_open(&d->inherited, &c->listeners[l], d->fleet.n, is_moved(r, &c->listeners[l]),
                                  &r->sockets[l], why);
        if (e) return e;
    }
    return ERR_OK;
}

static void close_sockets(struct rollout *r)
{
    for (uint32_t l = 0; l < CONFIG_LISTENERS_MAX; l++)
        socket_set_close(&r->sockets[l]);
}

/* Dealt out in turn: each worker gets one, as a rule. */
static enum err deal_sockets(struct rollout *r, unsigned worker)
{
    for (uint32_t l = 0; l < CONFIG_LISTENERS_MAX; l++)
        for (unsigned i = worker; i < r->sockets[l].n; i += r->deployment->fleet.n)
            if (worker_update_listen(r->updates[worker], l, socket_set_take(&r->sockets[l], i)))
                return ERR_NOMEM;
    return ERR_OK;
}

static enum err prepare_updates(struct rollout *r, struct errmsg *why)
{
    struct fleet *f = &r->deployment->fleet;
    r->updates = calloc(f->n, sizeof *r->updates);
    enum err e = r->updates ? ERR_OK : ERR_NOMEM;
    for (unsigned w = 0; e == ERR_OK && w < f->n; w++) {
        r->updates[w] = worker_update_create(f->workers[w].worker, r->next, r->kept);
        e = r->updates[w] ? deal_sockets(r, w) : ERR_NOMEM;
    }
    if (e) errmsg_set(why, 0, 0, "out of memory");
    return e;
}

static void destroy_updates(struct rollout *r)
{
    for (unsigned w = 0; r->updates && w < r->deployment->fleet.n; w++)
        worker_update_destroy(r->updates[w]);
    free(r->updates);
    r->updates = NULL;
}

/* --- logs ------------------------------------------------------------------------------------------ */

static enum err prepare_logs(struct rollout *r, struct errmsg *why)
{
    const struct generation *current = r->deployment->current;
    const struct config_logs *next = &r->next->config->logs;
    if (!current) return ERR_OK; /* log_start() has opened them */
    const struct config_logs *now = &current->config->logs;
    if (strcmp(now->access, next->access) == 0 && strcmp(now->operations, next->operations) == 0)
        return ERR_OK;
    return log_outputs_open(next->operations, next->access, &r->outputs, why);
}

/* New certificates come with the configuration in force: then the level stays what an operator made it. */
static void publish_logs(struct rollout *r)
{
    const struct generation *current = r->deployment->current;
    enum log_level level = LOG_INFO;
    (void)log_level_parse(span_str(r->next->config->logs.level), &level); /* the schema has checked it */
    if (!current || current->config != r->next->config) log_set_level(level);
    if (r->outputs) log_outputs_use(r->outputs);
    r->outputs = NULL;
}

/* --- TLS ------------------------------------------------------------------------------------------- */

static void on_warning(const char *text, void *arg)
{
    (void)arg;
    log_warn("certificate_warning", KV_STR("text", text));
}

static enum err prepare_tls(struct rollout *r, struct errmsg *why)
{
    static const struct tls_warnings warnings = {.fn = on_warning};
    const struct generation *current = r->deployment->current;
    return certificates_build(r->next->config, current ? &current->tls : NULL, r->deployment->loop->now_ms,
                              &warnings, &r->next->tls, why);
}

/* --- the whole ------------------------------------------------------------------------------------- */

/* The read buffer was made at the start, for heads of at most half its size. */
static enum err check_buffer(const struct deployment *d, const struct config *next, struct errmsg *why)
{
    const struct config_limits *l = &next->limits;
    uint64_t buffer = d->first->config->limits.buffer_bytes;
    if (l->head_bytes <= buffer / 2 && l->response_head_bytes <= buffer / 2) return ERR_OK;
    errmsg_set(why, 0, 0,
               "limits.%s is more than half of limits.buffer as it was at the start (%" PRIu64
               " bytes): a larger buffer needs a restart",
               l->head_bytes > buffer / 2 ? "head" : "response_head", buffer);
    return ERR_RANGE;
}

enum err rollout_check(const struct deployment *d, const struct config *next, struct errmsg *why)
{
    static const struct tls_warnings none = {0};
    struct tls_contexts tls;
    enum err e = check_buffer(d, next, why);
    if (e == ERR_OK) e = certificates_build(next, &d->current->tls, d->loop->now_ms, &none, &tls, why);
    if (e == ERR_OK) tls_contexts_deinit(&tls);
    return e;
}

static void match_listeners(struct rollout *r)
{
    const struct generation *current = r->deployment->current;
    const struct config *next = r->next->config;
    for (uint32_t i = 0; i < next->nlisteners; i++)
        r->kept[i] = current ? config_kept_listener(current->config, next, i) : -1;
}

enum err rollout_prepare(struct rollout *r, struct deployment *d, struct generation *next, struct errmsg *why)
{
    *r =
        (struct rollout){.deployment = d, .next = next, .on_progress = r->on_progress, .on_done = r->on_done};
    match_listeners(r);
    enum err e = check_buffer(d, next->config, why);
    if (e == ERR_OK) e = prepare_tls(r, why);
    if (e == ERR_OK) e = prepare_logs(r, why);
    if (e == ERR_OK) e = prepare_backends(r, why);
    if (e)
        rollout_abandon(r);
    else
        d->pending = r;
    return e;
}

enum err rollout_listen(struct rollout *r, struct errmsg *why)
{
    enum err e = open_sockets(r, why);
    if (e == ERR_OK) e = prepare_updates(r, why);
    if (e) rollout_abandon(r);
    return e;
}

/* The files of unix sockets on which nobody listens: those of `before` that `now` has not. */
static void remove_unix_sockets(const struct config *before, const struct config *now)
{
    for (uint32_t i = 0; i < before->nlisteners; i++)
        if (config_kept_listener(now, before, i) < 0) sockets_remove_file(&before->listeners[i].address);
}

void rollout_abandon(struct rollout *r)
{
    const struct generation *current = r->deployment->current;
    r->deployment->pending = NULL;
    for (unsigned e = 0; e < ENV_COUNT; e++) {
        close_backend(r->deployment, r->backends[e]);
        r->backends[e] = NULL;
    }
    destroy_updates(r);
    close_sockets(r);
    if (current) remove_unix_sockets(r->next->config, current->config);
    log_outputs_discard(r->outputs);
    r->outputs = NULL;
    generation_unref(r->next);
    r->next = NULL;
}

static void log_listeners(const struct rollout *r)
{
    char text[160];
    for (uint32_t i = 0; i < r->next->config->nlisteners; i++) {
        if (r->kept[i] >= 0) continue;
        socket_address_format(&r->sockets[i].bound, text, sizeof text);
        log_info("listening", KV_STR("address", text), KV_UINT("workers", r->deployment->fleet.n));
    }
}

static void remove_all_unix_sockets(const struct config *c)
{
    for (uint32_t i = 0; i < c->nlisteners; i++)
        sockets_remove_file(&c->listeners[i].address);
}

void deployment_remove_socket_files(const struct deployment *d)
{
    const struct generation *last = d->current ? d->current : d->first;
    if (!last) return;
    remove_all_unix_sockets(last->config);
    if (d->before) remove_all_unix_sockets(d->before->config); /* a worker that hangs had them still */
    sockets_remove_file(&d->first->config->admin.address);
}

static void finish(struct rollout *r)
{
    struct deployment *d = r->deployment;
    destroy_updates(r);
    close_sockets(r); /* nothing is left in them */
    if (d->before) remove_unix_sockets(d->before->config, d->current->config);
    generation_unref(d->before);
    d->before = NULL;
    if (r->on_done) r->on_done(r);
}

static void on_acknowledged(struct loop_message *m)
{
    struct worker_update *u = CONTAINER_OF(m, struct worker_update, message);
    struct rollout *r = u->arg;
    if (--r->nwaiting == 0) finish(r);
}

/* On the worker's thread. */
static void on_applied(struct worker_update *u)
{
    struct rollout *r = u->arg;
    u->message.deliver = on_acknowledged;
    BUG_IF(!loop_post(r->deployment->loop, &u->message), "the control loop ended before its workers");
}

void rollout_publish(struct rollout *r)
{
    struct deployment *d = r->deployment;
    struct fleet *f = &d->fleet;
    const struct config_limits *limits = &r->next->config->limits;
    d->pending = NULL;
    if (d->current && d->current->config->limits.connections_per_worker != limits->connections_per_worker)
        fleet_raise_fd_limit(limits, f->n); /* for the first one it is done: the workers needed it before */
    publish_logs(r);
    log_listeners(r);
    publish_backends(r);
    d->before = d->current;
    d->current = r->next;
    r->next = NULL;
    r->nwaiting = f->n;
    for (unsigned w = 0; w < f->n; w++) {
        r->updates[w]->on_applied = on_applied;
        r->updates[w]->arg = r;
        worker_update_publish(r->updates[w]);
    }
}
