#include "control/control.h"

#include "base/clock.h"
#include "base/container.h"
#include "base/log.h"
#include "base/metrics.h"
#include "control/admin.h"
#include "control/commands.h"
#include "control/sockets.h"
#include "control/status.h"
#include "http/proxy_header.h"
#include "proxy/end.h"
#include "proxy/worker.h"
#include "store/store.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    COLLECT_MS = 1000, /* how often memory of replaced policy objects is freed */
    CONTROL_BUFFER_BYTES = 64 * 1024,
    ADMIN_BACKLOG = 64,
    STATUS_BYTES_MAX = 32 * 1024, /* families of control in /metrics */
    LOG_STOP_MS = 2000,
    EXIT_BOUND_MS = 1000,
    CHANGES_MAX = 1024,
    FDS_RESERVED = 64, /* besides connections */
    SIGNALS = 5,
};

/* Partners that changed in this turn of the control loop; beyond CHANGES_MAX the workers look at everybody.
 */
struct changes {
    struct loop_message flush;
    bool flush_posted;
    uint32_t n;
    uint32_t indices[CHANGES_MAX];
};

enum control_phase { CONTROL_STARTING = 0, CONTROL_RUNNING, CONTROL_DRAINING, CONTROL_CLOSING };

struct control_worker {
    struct worker *worker;
    struct control *control;
    struct loop_message stopped;
};

struct control {
    struct loop loop;
    const struct config *config;
    struct policy *policy;
    struct store *store;
    struct admin admin;
    struct commands commands;
    struct worker **worker_list; /* nworkers of them, for commands */
    struct status status;
    struct control_worker *workers; /* config->workers of them */
    unsigned nworkers, nrunning;
    struct resolver resolvers[ENV_COUNT];
    bool resolving[ENV_COUNT]; /* the resolver is open */
    bool resolved[ENV_COUNT];  /* it has had an answer */
    uv_timer_t exit_bound;     /* for a name server that does not answer while we want to end */
    uv_signal_t signals[SIGNALS];
    struct wheel_entry collect;
    struct changes changes;
    enum control_phase phase;
    int exit_code;
};

/* --- admin pages ----------------------------------------------------------------------------------- */

static unsigned answer_health(void *arg, struct admin_call *call)
{
    (void)arg;
    outbuf_str(&call->out, "ok\n");
    return 200;
}

static unsigned answer_ready(void *arg, struct admin_call *call)
{
    const struct control *c = arg;
    return status_write_ready(&c->status, &call->out) ? 200 : 503;
}

static unsigned answer_metrics(void *arg, struct admin_call *call)
{
    const struct control *c = arg;
    metrics_write(&call->out);
    status_write_metrics(&c->status, &call->out);
    return 200;
}

static const struct admin_route admin_routes[] = {
    {METHOD_GET, "/healthz", "text/plain", 64, answer_health},
    {METHOD_GET, "/livez", "text/plain", 64, answer_health},
    {METHOD_GET, "/readyz", "application/json", 2048, answer_ready},
    {METHOD_GET, "/metrics", "text/plain; version=0.0.4; charset=utf-8", METRICS_TEXT_MAX + STATUS_BYTES_MAX,
     answer_metrics},
    {METHOD_GET, NULL, NULL, 0, NULL},
};

/* --- end ------------------------------------------------------------------------------------------- */

static void on_store_closed(void *arg)
{
    struct control *c = arg;
    c->status.store = c->store = NULL;
}

static bool is_resolving(const struct control *c)
{
    return c->resolving[ENV_PRODUCTION] || c->resolving[ENV_SANDBOX];
}

static void on_resolver_closed(struct resolver *r)
{
    struct control *c = r->user;
    c->resolving[r - c->resolvers] = false;
    if (!is_resolving(c) && c->exit_bound.loop) uv_close((uv_handle_t *)&c->exit_bound, NULL);
}

/* getaddrinfo() cannot be interrupted, and everything else is closed: end without it. */
static void on_exit_bound(uv_timer_t *timer)
{
    struct control *c = timer->data;
    log_warn("stopped", KV_INT("exit_code", c->exit_code), KV_STR("cause", "a name server did not answer"));
    log_stop(LOG_STOP_MS);
    _exit(c->exit_code);
}

static void bound_exit(struct control *c)
{
    if (!is_resolving(c) || uv_timer_init(&c->loop.uv, &c->exit_bound)) return;
    c->exit_bound.data = c;
    (void)uv_timer_start(&c->exit_bound, on_exit_bound, EXIT_BOUND_MS, 0);
}

/* Closes everything that keeps the control loop alive. */
static void begin_close(struct control *c)
{
    if (c->phase == CONTROL_CLOSING) return;
    c->phase = CONTROL_CLOSING;
    admin_close(&c->admin);
    commands_close(&c->commands);
    for (unsigned e = 0; e < ENV_COUNT; e++)
        if (c->resolving[e]) resolver_close(&c->resolvers[e], on_resolver_closed);
    for (unsigned i = 0; i < SIGNALS; i++)
        if (c->signals[i].loop) uv_close((uv_handle_t *)&c->signals[i], NULL);
    loop_deadline_clear(&c->loop, &c->collect);
    if (c->store) c->store->ops->close(c->store, on_store_closed, c);
    bound_exit(c);
    loop_close(&c->loop);
}

static void on_worker_stopped(struct loop_message *m)
{
    struct control_worker *cw = CONTAINER_OF(m, struct control_worker, stopped);
    struct control *c = cw->control;
    worker_join(cw->worker);
    if (--c->nrunning == 0) begin_close(c);
}

/* On the worker's thread, the last thing it does. */
static void tell_stopped(struct worker *w, void *arg)
{
    struct control_worker *cw = arg;
    (void)w;
    BUG_IF(!loop_post(&cw->control->loop, &cw->stopped), "the control loop ended before its workers");
}

static void drain(struct control *c, bool now)
{
    c->status.draining = true;
    if (c->phase == CONTROL_RUNNING) c->phase = CONTROL_DRAINING;
    for (unsigned i = 0; i < c->nworkers; i++)
        worker_drain(c->workers[i].worker, now);
}

/* --- signals --------------------------------------------------------------------------------------- */

static void on_signal(uv_signal_t *signal, int number)
{
    struct control *c = signal->data;
    loop_turn(&c->loop);
    log_info("signal", KV_INT("number", number));
    if (number == SIGHUP) {
        if (c->store) c->store->ops->reload(c->store);
    } else if (number == SIGUSR1) {
        log_reopen();
    } else if (c->phase == CONTROL_RUNNING) {
        log_info("draining", KV_UINT("bound_ms", c->config->timeouts.shutdown_ms));
        drain(c, false);
    } else if (c->phase == CONTROL_DRAINING) {
        log_warn("forced_quit");
        c->exit_code = EXIT_USAGE;
        drain(c, true);
    }
}

static enum err watch_signals(struct control *c)
{
    static const int numbers[SIGNALS] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1};
    for (unsigned i = 0; i < SIGNALS; i++) {
        if (uv_signal_init(&c->loop.uv, &c->signals[i])) return ERR_IO;
        c->signals[i].data = c;
        if (uv_signal_start(&c->signals[i], on_signal, numbers[i])) return ERR_IO;
    }
    return ERR_OK;
}

/* --- start ----------------------------------------------------------------------------------------- */

static void on_collect(struct wheel_entry *e)
{
    struct control *c = CONTAINER_OF(e, struct control, collect);
    policy_collect(c->policy);
    loop_deadline(&c->loop, &c->collect, COLLECT_MS);
}

static void on_flush_changes(struct loop_message *m)
{
    struct changes *changes = CONTAINER_OF(m, struct changes, flush);
    struct control *c = CONTAINER_OF(changes, struct control, changes);
    for (unsigned i = 0; i < c->nworkers; i++)
        worker_policy_changed(c->workers[i].worker, changes->indices, changes->n, changes->n == CHANGES_MAX);
    changes->n = 0;
    changes->flush_posted = false;
}

/* Gathers; the workers hear of it at the end of the turn. */
static void on_policy_change(uint32_t index, void *arg)
{
    struct control *c = arg;
    struct changes *changes = &c->changes;
    if (changes->n < CHANGES_MAX) changes->indices[changes->n++] = index;
    if (changes->flush_posted) return;
    changes->flush_posted = true;
    changes->flush.deliver = on_flush_changes;
    (void)loop_post(&c->loop, &changes->flush); /* refused only while closing: the workers have ended */
}

/* Descriptors: as many as the system lets us have; a warning when that is fewer than the limits promise. */
static void raise_fd_limit(const struct config *config)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) != 0) return;
    r.rlim_cur = r.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &r); /* within the hard limit: cannot fail */
    uint64_t wanted = 2 * (uint64_t)config->workers * config->limits.connections_per_worker + FDS_RESERVED;
    if (r.rlim_cur < wanted)
        log_warn("few_descriptors", KV_UINT("limit", r.rlim_cur), KV_UINT("wanted", wanted),
                 KV_STR("hint", "raise LimitNOFILE or lower limits.connections_per_worker"));
}

static enum err start_log(const struct config *config)
{
    struct errmsg why;
    const struct config_logs *logs = &config->logs;
    struct log_options o = {
        .ops_path = logs->operations, .access_path = logs->access, .ring_bytes = logs->ring_bytes};
    (void)log_level_parse(span_str(logs->level), &o.level); /* the schema has checked it */
    enum err e = log_start(&o, &why);
    if (e) log_error("log_failed", KV_STR("cause", why.text));
    return e;
}

static void on_resolved(struct resolver *r, const struct address_list *list)
{
    struct control *c = r->user;
    enum environment env = (enum environment)(r - c->resolvers);
    if (!c->resolved[env]) {
        c->resolved[env] = true;
        c->status.unresolved--;
    }
    for (unsigned i = 0; i < c->nworkers; i++)
        if (worker_set_addresses(c->workers[i].worker, env, list))
            log_error("addresses_not_delivered", KV_UINT("worker", i), KV_STR("env", environment_name(env)));
}

static enum err start_upstream(struct control *c, enum environment env)
{
    const struct endpoint *e = &c->config->environments[env].upstream;
    struct address_list list = {.n = 1};
    if (e->kind == ENDPOINT_NAME) {
        c->resolving[env] = true;
        c->status.unresolved++;
        resolver_open(&c->resolvers[env], &c->loop, e->host, e->port, on_resolved, c);
        return ERR_OK;
    }
    if (e->kind == ENDPOINT_UNIX) {
        if (socket_address_unix(e->host, &list.addresses[0])) return ERR_RANGE;
    } else {
        list.addresses[0] = socket_address_ip(&e->addr, e->port);
    }
    for (unsigned i = 0; i < c->nworkers; i++)
        (void)worker_set_addresses(c->workers[i].worker, env, &list); /* not running yet: cannot fail */
    return ERR_OK;
}

/* fds[worker * listeners + listener] */
static enum err open_listeners(struct control *c, int *fds)
{
    const struct config *config = c->config;
    int column[256];
    for (uint32_t l = 0; l < config->nlisteners; l++) {
        struct errmsg why;
        struct socket_address bound;
        char text[160];
        if (sockets_open(&config->listeners[l], config->workers, column, &bound, &why)) {
            log_error("listen_failed", KV_STR("cause", why.text));
            for (uint32_t done = 0; done < l; done++)
                for (unsigned w = 0; w < config->workers; w++)
                    (void)close(fds[w * config->nlisteners + done]);
            return ERR_IO;
        }
        for (unsigned w = 0; w < config->workers; w++)
            fds[w * config->nlisteners + l] = column[w];
        socket_address_format(&bound, text, sizeof text);
        log_info("listening", KV_STR("address", text), KV_UINT("workers", config->workers));
    }
    return ERR_OK;
}

static enum err create_workers(struct control *c)
{
    const struct config *config = c->config;
    int *fds = malloc(sizeof *fds * config->workers * config->nlisteners);
    c->workers = calloc(config->workers, sizeof *c->workers);
    enum err e = fds && c->workers ? open_listeners(c, fds) : ERR_NOMEM;
    for (unsigned i = 0; e == ERR_OK && i < config->workers; i++) {
        struct control_worker *cw = &c->workers[i];
        cw->worker = worker_create(i, config, c->policy, fds + i * config->nlisteners, config->nlisteners);
        if (!cw->worker) {
            for (unsigned rest = (i + 1) * config->nlisteners; rest < config->workers * config->nlisteners;
                 rest++)
                (void)close(fds[rest]);
            e = ERR_NOMEM;
            break;
        }
        cw->control = c;
        cw->stopped.deliver = on_worker_stopped;
        worker_on_stopped(cw->worker, tell_stopped, cw);
        c->nworkers++;
    }
    free(fds);
    return e;
}

static enum err start_workers(struct control *c)
{
    for (unsigned e = 0; e < ENV_COUNT; e++)
        if (c->config->environments[e].present && start_upstream(c, (enum environment)e)) return ERR_RANGE;
    for (unsigned i = 0; i < c->nworkers; i++) {
        if (worker_start(c->workers[i].worker)) return ERR_IO;
        c->nrunning++;
    }
    c->status.listening = true;
    c->status.workers = c->nworkers;
    return ERR_OK;
}

static enum err start_admin(struct control *c)
{
    const struct endpoint *e = &c->config->admin.address;
    struct errmsg why;
    struct socket_address bound;
    char text[160];
    int fd;
    if (e->kind == ENDPOINT_NONE) return ERR_OK;
    if (sockets_open_one(e, ADMIN_BACKLOG, &fd, &bound, &why)) {
        log_error("listen_failed", KV_STR("cause", why.text));
        return ERR_IO;
    }
    socket_address_format(&bound, text, sizeof text);
    log_info("admin_listening", KV_STR("address", text));
    return admin_open(&c->admin, &c->loop, fd, admin_routes, c);
}

static const struct config *current_config(void *arg)
{
    return ((const struct control *)arg)->config;
}

static void drain_by_command(void *arg)
{
    struct control *c = arg;
    if (c->phase == CONTROL_RUNNING) drain(c, false);
}

/* Where the control socket is; NULL: nowhere. */
static const char *control_socket_path(const struct config *config)
{
    static const char folder[] = "/run/proofgw";
    const char *path = config->admin.control_socket;
    if (!path || strcmp(path, "auto") != 0) return path;
    return access(folder, W_OK) == 0 ? "/run/proofgw/control.sock" : NULL;
}

static enum err start_commands(struct control *c)
{
    struct errmsg why = {0};
    const char *path = control_socket_path(c->config);
    if (!path) return ERR_OK;
    c->worker_list = calloc(c->nworkers, sizeof(struct worker *));
    if (!c->worker_list) return ERR_NOMEM;
    for (unsigned i = 0; i < c->nworkers; i++)
        c->worker_list[i] = c->workers[i].worker;
    const struct commands_host host = {
        .loop = &c->loop,
        .policy = c->policy,
        .status = &c->status,
        .workers = c->worker_list,
        .nworkers = c->nworkers,
        .config = current_config,
        .drain = drain_by_command,
        .arg = c,
    };
    enum err e = commands_open(&c->commands, &host, path, &why);
    if (e)
        log_error("listen_failed", KV_STR("cause", why.text));
    else
        log_info("control_socket", KV_STR("path", path));
    return e;
}

_Static_assert((int)METHOD_COUNT == (int)LABEL_METHOD_MAX, "a method without a metric");
_Static_assert((int)ENV_COUNT + 1 == (int)LABEL_ENV_MAX, "an environment without a metric");

static void init_metrics(void)
{
    static const char *deny[DENY_COUNT], *refusal[HEAD_REFUSAL_COUNT];
    for (unsigned i = 0; i < DENY_COUNT; i++)
        deny[i] = deny_text((enum deny)i);
    for (unsigned i = 0; i < HEAD_REFUSAL_COUNT; i++)
        refusal[i] = head_refusal_text((enum head_refusal)i);
    const struct metrics_labels labels = {
        .deny = {deny, DENY_COUNT},
        .bad_request = {refusal, HEAD_REFUSAL_COUNT},
        .end_who = {end_who_names, END_WHO_COUNT},
        .end_phase = {end_phase_names, END_PHASE_COUNT},
        .limit = {limit_names, LIMIT_COUNT},
        .tunnel_close = {tunnel_end_names, TUNNEL_END_COUNT},
        .proxy_refusal = {proxy_refusal_names, PROXY_REFUSAL_COUNT},
    };
    metrics_init(&labels);
}

void control_metrics_reference(struct outbuf *o)
{
    init_metrics();
    metrics_reference(o);
    status_reference(o);
}

/* Everything in order; the first failure ends the start. The admin page is up before the workers, so that a
 * start that takes long can be watched. */
static enum err start(struct control *c)
{
    policy_on_change(c->policy, on_policy_change, c);
    enum err e = watch_signals(c);
    if (e == ERR_OK) e = store_open(&c->loop.uv, c->config, c->policy, &c->store);
    if (e) return e;
    c->status.store = c->store;
    e = start_admin(c);
    if (e == ERR_OK) e = create_workers(c);
    if (e == ERR_OK) e = start_workers(c);
    if (e == ERR_OK) e = start_commands(c);
    if (e) return e;
    wheel_entry_init(&c->collect, on_collect);
    loop_deadline(&c->loop, &c->collect, COLLECT_MS);
    c->phase = CONTROL_RUNNING;
    return ERR_OK;
}

static void deinit(struct control *c)
{
    for (unsigned i = 0; i < c->nworkers; i++) {
        if (c->workers[i].worker->cut_by_bound && c->exit_code == EXIT_OK) c->exit_code = EXIT_UNCLEAN;
        worker_destroy(c->workers[i].worker);
    }
    free(c->workers);
    admin_deinit(&c->admin);
    commands_deinit(&c->commands);
    free(c->worker_list);
    policy_destroy(c->policy);
}

int control_run(const struct config *config, const char *version, const char *commit)
{
    struct control *c = calloc(1, sizeof *c);
    if (!c || start_log(config)) {
        free(c);
        return EXIT_CONFIG;
    }
    init_metrics();
    raise_fd_limit(config);
    c->config = config;
    c->policy = policy_create();
    c->status = (struct status){
        .policy = c->policy, .version = version, .commit = commit, .started_wall_ms = clock_wall_ms()};
    int code = EXIT_CONFIG;
    if (c->policy && loop_init(&c->loop, CONTROL_BUFFER_BYTES, NULL) == ERR_OK) {
        enum err e = start(c);
        if (e) {
            log_error("start_failed", KV_ERR(e));
            c->exit_code = EXIT_CONFIG;
            c->phase = CONTROL_DRAINING;
            drain(c, true);
            if (c->nrunning == 0) begin_close(c);
        } else {
            log_info("started", KV_STR("version", version), KV_STR("commit", commit),
                     KV_UINT("workers", c->nworkers));
        }
        loop_run(&c->loop);
        loop_deinit(&c->loop);
        deinit(c);
        code = c->exit_code;
        log_info("stopped", KV_INT("exit_code", code));
    } else {
        log_error("start_failed", KV_STR("cause", "no memory or no event loop"));
        policy_destroy(c->policy);
    }
    free(c);
    log_stop(LOG_STOP_MS);
    metrics_deinit();
    return code;
}
