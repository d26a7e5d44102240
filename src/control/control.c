#include "control/control.h"

#include "base/clock.h"
#include "base/container.h"
#include "base/log.h"
#include "base/metrics.h"
#include "control/admin.h"
#include "control/commands.h"
#include "control/reload.h"
#include "control/sockets.h"
#include "control/status.h"
#include "http/proxy_header.h"
#include "net/tls.h"
#include "proxy/end.h"
#include "store/store.h"

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    COLLECT_MS = 1000, /* how often memory of replaced policy objects is freed */
    CONTROL_BUFFER_BYTES = 64 * 1024,
    ADMIN_BACKLOG = 64,
    STATUS_BYTES_MAX = 96 * 1024, /* families of control in /metrics */
    LOG_STOP_MS = 2000,
    EXIT_BOUND_MS = 1000,
    SIGNALS = 5,
};

enum control_phase { CONTROL_STARTING = 0, CONTROL_RUNNING, CONTROL_DRAINING, CONTROL_CLOSING };

struct control {
    struct loop loop;
    struct policy *policy;
    struct store *store;
    struct admin admin;
    struct commands commands;
    struct worker **worker_list; /* those of the fleet, for commands */
    struct status status;
    struct deployment deployment;
    struct reload reload;
    uv_timer_t exit_bound; /* for a name server that does not answer while we want to end */
    uv_signal_t signals[SIGNALS];
    struct wheel_entry collect;
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

static void on_backend_closed(struct deployment *d)
{
    struct control *c = CONTAINER_OF(d, struct control, deployment);
    if (d->nclosing == 0 && c->exit_bound.loop) uv_close((uv_handle_t *)&c->exit_bound, NULL);
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
    if (c->deployment.nclosing == 0 || uv_timer_init(&c->loop.uv, &c->exit_bound)) return;
    c->exit_bound.data = c;
    (void)uv_timer_start(&c->exit_bound, on_exit_bound, EXIT_BOUND_MS, 0);
}

/* libuv gives a signal its default action back, which would end us by it on the last few steps. */
static void ignore_signal(uv_signal_t *handle)
{
    int number = handle->signum; /* 0: the start did not get so far */
    if (handle->loop) uv_close((uv_handle_t *)handle, NULL);
    if (number) (void)signal(number, SIG_IGN); /* fails only for numbers that do not exist */
}

/* Closes everything that keeps the control loop alive. */
static void begin_close(struct control *c)
{
    if (c->phase == CONTROL_CLOSING) return;
    c->phase = CONTROL_CLOSING;
    admin_close(&c->admin);
    commands_close(&c->commands);
    reload_close(&c->reload);
    deployment_close_backends(&c->deployment);
    for (unsigned i = 0; i < SIGNALS; i++)
        ignore_signal(&c->signals[i]);
    loop_deadline_clear(&c->loop, &c->collect);
    if (c->store) c->store->ops->close(c->store, on_store_closed, c);
    bound_exit(c);
    loop_close(&c->loop);
}

static void on_fleet_stopped(void *arg)
{
    begin_close(arg);
}

static void drain(struct control *c, bool now)
{
    c->status.draining = true;
    if (c->phase == CONTROL_RUNNING) c->phase = CONTROL_DRAINING;
    reload_close(&c->reload);
    fleet_drain(&c->deployment.fleet, now);
}

/* --- signals --------------------------------------------------------------------------------------- */

static void on_signal(uv_signal_t *signal, int number)
{
    struct control *c = signal->data;
    loop_turn(&c->loop);
    log_info("signal", KV_INT("number", number));
    if (number == SIGHUP) {
        if (c->store) c->store->ops->reload(c->store);
        reload_request(&c->reload, "signal", NULL);
    } else if (number == SIGUSR1) {
        log_reopen();
    } else if (c->phase == CONTROL_RUNNING) {
        log_info("draining", KV_UINT("bound_ms", c->deployment.current->config->timeouts.shutdown_ms));
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

static void on_policy_change(uint32_t index, void *arg)
{
    struct control *c = arg;
    fleet_partner_changed(&c->deployment.fleet, index);
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

static enum err start_admin(struct control *c, const struct endpoint *e)
{
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
    const char *path = control_socket_path(c->deployment.first->config);
    if (!path) return ERR_OK;
    const struct fleet *f = &c->deployment.fleet;
    c->worker_list = calloc(f->n, sizeof(struct worker *));
    if (!c->worker_list) return ERR_NOMEM;
    for (unsigned i = 0; i < f->n; i++)
        c->worker_list[i] = f->workers[i].worker;
    const struct commands_host host = {
        .loop = &c->loop,
        .policy = c->policy,
        .status = &c->status,
        .workers = c->worker_list,
        .nworkers = f->n,
        .reload = &c->reload,
        .store = c->store,
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
        .tls_failure = {tls_failure_names, TLS_FAILURE_COUNT},
    };
    metrics_init(&labels);
}

void control_metrics_reference(struct outbuf *o)
{
    init_metrics();
    metrics_reference(o);
    status_reference(o);
}

/* Workers, and the first generation for them. */
static enum err start_workers(struct control *c)
{
    struct deployment *d = &c->deployment;
    const struct config *config = d->first->config;
    fleet_raise_fd_limit(&config->limits, config->workers);
    enum err e = fleet_create(&d->fleet, &c->loop, config, c->policy, on_fleet_stopped, c);
    if (e == ERR_OK) e = reload_open(&c->reload, d);
    if (e == ERR_OK) e = fleet_start(&d->fleet);
    if (e) return e;
    c->status.listening = true;
    c->status.workers = d->fleet.n;
    return ERR_OK;
}

/* Everything in order; the first failure ends the start. The admin page is up before the workers, so that a
 * start that takes long can be watched. Takes `config` over. */
static enum err start(struct control *c, struct config *config)
{
    struct deployment *d = &c->deployment;
    d->loop = &c->loop;
    d->on_backend_closed = on_backend_closed;
    d->first = generation_create(1, config);
    if (!d->first) {
        config_destroy(config);
        return ERR_NOMEM;
    }
    policy_on_change(c->policy, on_policy_change, c);
    enum err e = watch_signals(c);
    if (e == ERR_OK) e = store_open(&c->loop.uv, config, c->policy, &c->store);
    if (e) return e;
    c->status.store = c->store;
    e = start_admin(c, &config->admin.address);
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
    struct deployment *d = &c->deployment;
    if (fleet_was_cut(&d->fleet) && c->exit_code == EXIT_OK) c->exit_code = EXIT_UNCLEAN;
    fleet_destroy(&d->fleet);
    generation_release(d->current);
    generation_release(d->first);
    admin_deinit(&c->admin);
    commands_deinit(&c->commands);
    free(c->worker_list);
    policy_destroy(c->policy);
}

int control_run(struct config *config, const char *version, const char *commit)
{
    struct control *c = calloc(1, sizeof *c);
    if (!c || start_log(config)) {
        config_destroy(config);
        free(c);
        return EXIT_CONFIG;
    }
    init_metrics();
    c->policy = policy_create();
    c->status = (struct status){.deployment = &c->deployment,
                                .reload = &c->reload.status,
                                .certificates = &c->reload.certificates.status,
                                .policy = c->policy,
                                .version = version,
                                .commit = commit,
                                .started_wall_ms = clock_wall_ms()};
    int code = EXIT_CONFIG;
    if (c->policy && loop_init(&c->loop, CONTROL_BUFFER_BYTES, NULL) == ERR_OK) {
        enum err e = start(c, config);
        if (e) {
            log_error("start_failed", KV_ERR(e));
            c->exit_code = EXIT_CONFIG;
            c->phase = CONTROL_DRAINING;
            drain(c, true);
            if (c->deployment.fleet.nrunning == 0) begin_close(c);
        } else {
            log_info("started", KV_STR("version", version), KV_STR("commit", commit),
                     KV_UINT("workers", c->deployment.fleet.n));
        }
        loop_run(&c->loop);
        loop_deinit(&c->loop);
        deinit(c);
        code = c->exit_code;
        log_info("stopped", KV_INT("exit_code", code));
    } else {
        log_error("start_failed", KV_STR("cause", "no memory or no event loop"));
        config_destroy(config);
        policy_destroy(c->policy);
    }
    free(c);
    log_stop(LOG_STOP_MS);
    metrics_deinit();
    return code;
}
