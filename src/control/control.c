#include "control/control.h"

#include "base/clock.h"
#include "base/container.h"
#include "base/log.h"
#include "base/metrics.h"
#include "control/admin.h"
#include "control/admin_pages.h"
#include "control/commands.h"
#include "control/families.h"
#include "control/handover.h"
#include "control/notify.h"
#include "control/service.h"
#include "control/signals.h"
#include "http/proxy_header.h"
#include "net/tls.h"
#include "proxy/end.h"
#include "store/store.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    COLLECT_MS = 1000,                /* how often memory of replaced policy objects is freed */
    CONTROL_BUFFER_BYTES = 64 * 1024, /* what one read takes of Redis, or of an admin request */
    ADMIN_BACKLOG = 64, /* who may come within one turn; of more than ADMIN_CONNECTIONS_MAX the slowest go */
    LOG_STOP_MS = 2000, /* for the last lines at the end: a disk that hangs must not hold it up */
    EXIT_BOUND_MS = 1000, /* for look-ups of names at the end, which cannot be called off */
    WAIT_LOOK_MS = 100,   /* how often a new process of an upgrade looks whether it can take over */
};

enum control_phase {
    CONTROL_STARTING = 0, /* no worker runs; the new process of an upgrade stays here until it can serve */
    CONTROL_RUNNING,      /* serving or draining: struct drain knows */
    CONTROL_CLOSING,      /* the workers have ended */
};

struct control {
    struct loop loop;
    struct policy *policy;
    struct store *store;
    struct admin admin;
    struct commands commands;
    struct worker **worker_list; /* those of the fleet, for commands, handover and service */
    struct status status;
    struct deployment deployment;
    struct reload reload;
    struct drain drain;
    struct handover handover;
    struct service service;
    struct upgrade_origin origin; /* the process that this one takes over from */
    struct wheel_entry wait;      /* CONTROL_STARTING */
    uv_timer_t exit_bound;        /* so that a name server that does not answer cannot hold up the exit */
    struct signals signals;
    struct wheel_entry collect;
    enum control_phase phase;
    int exit_code;
};

static void set_phase(struct control *c, enum control_phase to)
{
    static const uint8_t moves[] = {
        [CONTROL_STARTING] = 1 << CONTROL_RUNNING | 1 << CONTROL_CLOSING,
        [CONTROL_RUNNING] = 1 << CONTROL_CLOSING,
        [CONTROL_CLOSING] = 0,
    };
    BUG_IF(!(moves[c->phase] & 1 << to), "control makes a move that does not exist");
    c->phase = to;
}

/* --- end ------------------------------------------------------------------------------------------- */

/* Something is closing that can only finish when its last name look-up has. */
static bool is_closing(const struct control *c)
{
    return c->deployment.nclosing || c->store;
}

static void unbind_exit(struct control *c)
{
    if (c->exit_bound.loop && !is_closing(c)) uv_close((uv_handle_t *)&c->exit_bound, NULL);
}

static void on_store_closed(void *arg)
{
    struct control *c = arg;
    c->status.store = c->store = NULL;
    unbind_exit(c);
}

static void on_backend_closed(struct deployment *d)
{
    unbind_exit(CONTAINER_OF(d, struct control, deployment));
}

/* Exits without the threads that do not end, even if the store has not written its last snapshot. */
static void leave(struct control *c, enum log_level level, const char *cause)
{
    signals_freeze_abort();
    commands_close(&c->commands);
    LOG_AT(level, "stopped", KV_INT("exit_code", c->exit_code), KV_STR("cause", cause));
    log_leave(LOG_STOP_MS);
    (void)close_range(STDERR_FILENO + 1, ~0U, 0); /* or the listeners of such a thread would keep the files */
    deployment_remove_socket_files(&c->deployment);
    _exit(c->exit_code);
}

/* getaddrinfo() cannot be interrupted. While no look-up is under way only the store's snapshot can be late,
 * and it is waited for. */
static void on_exit_bound(uv_timer_t *timer)
{
    struct control *c = timer->data;
    if (c->loop.nlookups) leave(c, LOG_WARN, "a name server did not answer");
}

/* timeouts.shutdown is the workers' own, so one that hangs does not keep it. */
static void on_hang(void *arg)
{
    struct control *c = arg;
    if (c->exit_code == EXIT_OK) c->exit_code = EXIT_UNCLEAN;
    leave(c, LOG_ERROR, "a worker hangs");
}

static void bound_exit(struct control *c)
{
    if (!is_closing(c) || uv_timer_init(&c->loop.uv, &c->exit_bound)) return;
    c->exit_bound.data = c;
    (void)uv_timer_start(&c->exit_bound, on_exit_bound, EXIT_BOUND_MS, EXIT_BOUND_MS);
}

/* Closes everything that keeps the control loop alive. */
static void begin_close(struct control *c)
{
    if (c->phase == CONTROL_CLOSING) return;
    set_phase(c, CONTROL_CLOSING);
    drain_close(&c->drain);
    upgrade_give_up(&c->origin);
    handover_close(&c->handover);
    service_close(&c->service);
    admin_close(&c->admin);
    commands_close(&c->commands);
    reload_close(&c->reload);
    inherited_close(&c->deployment.inherited, false);
    deployment_close_backends(&c->deployment);
    signals_close(&c->signals);
    loop_deadline_clear(&c->loop, &c->collect);
    loop_deadline_clear(&c->loop, &c->wait);
    if (c->store) c->store->ops->close(c->store, on_store_closed, c);
    bound_exit(c);
    loop_close(&c->loop);
}

static void on_fleet_stopped(void *arg)
{
    struct control *c = arg;
    if (fleet_was_cut(&c->deployment.fleet) && c->exit_code == EXIT_OK) c->exit_code = EXIT_UNCLEAN;
    begin_close(c);
}

/* Begins to stop: cuts everything (`now`), or drains first. */
static void end(struct control *c, bool now)
{
    if (c->phase == CONTROL_STARTING) { /* no request has been accepted yet */
        if (c->deployment.fleet.nrunning == 0)
            begin_close(c); /* else the start has failed: on_fleet_stopped() */
        return;
    }
    handover_close(&c->handover);
    reload_close(&c->reload);
    const struct config_timeouts *t = &c->deployment.current->config->timeouts;
    if (now)
        drain_now(&c->drain);
    else
        drain_end(&c->drain, t->drain_delay_ms, t->shutdown_ms);
    service_stop(&c->service);
}

/* The new process serves: closes the admin listener and the control socket, so that operators reach the new
 * process only, and drains. */
static void on_taken_over(void *arg)
{
    struct control *c = arg;
    reload_close(&c->reload); /* first: its waiters are answered on the control socket */
    admin_close(&c->admin);
    commands_close(&c->commands);
    drain_end(&c->drain, 0, c->deployment.current->config->timeouts.shutdown_ms);
}

/* --- signals --------------------------------------------------------------------------------------- */

static void on_end_signal(struct control *c)
{
    bool again = drain_is_final(&c->drain);
    if (c->phase == CONTROL_CLOSING) return;
    if (c->exit_code == EXIT_CONFIG) return; /* the start has failed: it ends as fast as it can already */
    if (again) {
        log_warn("forced_quit");
        c->exit_code = EXIT_USAGE;
    }
    end(c, again);
}

static void on_signal(int number, void *arg)
{
    struct control *c = arg;
    log_info("signal", KV_INT("number", number));
    if (number == SIGHUP) {
        if (c->store) c->store->ops->reload(c->store);
        reload_request(&c->reload, RELOAD_BY_SIGNAL, NULL);
    } else if (number == SIGUSR1) {
        log_reopen();
    } else if (number == SIGUSR2) {
        handover_request(&c->handover);
    } else {
        on_end_signal(c);
    }
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
    if (sockets_open_one(&c->deployment.inherited, e, ADMIN_BACKLOG, &fd, &bound, &why)) {
        log_error("listen_failed", KV_STR("cause", why.text));
        return ERR_IO;
    }
    socket_address_format(&bound, text, sizeof text);
    log_info("admin_listening", KV_STR("address", text));
    return admin_open(&c->admin, &c->loop, fd, admin_pages, &c->status);
}

static enum err start_commands(struct control *c)
{
    struct errmsg why = {0};
    struct endpoint place = commands_place(c->deployment.first->config);
    if (place.kind == ENDPOINT_NONE) return ERR_OK;
    const struct commands_host host = {
        .loop = &c->loop,
        .policy = c->policy,
        .limits = c->deployment.fleet.limits,
        .sources = c->deployment.fleet.sources,
        .status = &c->status,
        .workers = c->worker_list,
        .nworkers = c->deployment.fleet.n,
        .reload = &c->reload,
        .store = c->store,
        .drain = &c->drain,
    };
    enum err e = commands_open(&c->commands, &host, &place, &c->deployment.inherited, &why);
    if (e)
        log_error("listen_failed", KV_STR("cause", why.text));
    else
        log_info("control_socket", KV_STR("path", place.host));
    return e;
}

_Static_assert((int)ROUTE_COUNT == (int)LABEL_ROUTE_MAX, "a route without a metric");
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
    families_reference(o);
}

/* Workers, and the first generation for them. Their threads do not run yet. */
static enum err make_workers(struct control *c)
{
    struct deployment *d = &c->deployment;
    const struct config *config = d->first->config;
    fleet_raise_fd_limit(&config->limits, config->workers);
    enum err e = fleet_create(&d->fleet, &c->loop, config, c->policy, on_fleet_stopped, c);
    if (e) return e;
    c->status.workers = d->fleet.n;
    c->worker_list = calloc(d->fleet.n, sizeof(struct worker *));
    if (!c->worker_list) return ERR_NOMEM;
    for (unsigned i = 0; i < d->fleet.n; i++)
        c->worker_list[i] = d->fleet.workers[i].worker;
    return reload_open(&c->reload, d);
}

static void open_handover(struct control *c)
{
    const struct handover_host host = {
        .loop = &c->loop,
        .deployment = &c->deployment,
        .workers = c->worker_list,
        .reload = &c->reload,
        .status = &c->status,
        .own = {{INHERITED_ADMIN, &c->deployment.first->config->admin.address,
                 c->admin.open ? c->admin.listener.fd : -1},
                {INHERITED_CONTROL, &c->commands.place, commands_fd(&c->commands)}},
        .on_taken_over = on_taken_over,
        .arg = c,
    };
    handover_open(&c->handover, &host);
}

/* Begins to serve: the last part of the start that can fail. */
static enum err serve(struct control *c)
{
    struct deployment *d = &c->deployment;
    bool is_upgrade = c->origin.channel >= 0;
    enum err e = start_commands(c);
    if (e == ERR_OK && is_upgrade) e = start_admin(c, &d->first->config->admin.address);
    if (e == ERR_OK) e = fleet_start(&d->fleet);
    if (e) return e;
    set_phase(c, CONTROL_RUNNING);
    c->status.listening = true;
    inherited_close(&d->inherited, !is_upgrade);
    open_handover(c);
    log_info("started", KV_STR("version", c->status.version), KV_STR("commit", c->status.commit),
             KV_UINT("workers", d->fleet.n), KV_STR("upgrade", is_upgrade ? "yes" : "no"));
    upgrade_report(&c->origin);
    service_open(&c->service, &c->loop, c->worker_list, d->fleet.n, &c->status);
    return ERR_OK;
}

static void fail_start(struct control *c, enum err e)
{
    const struct generation *first = c->deployment.first;
    const char *log = first ? first->config->logs.operations : "stderr";
    log_error("start_failed", KV_ERR(e));
    if (strcmp(log, "stderr") != 0) /* a terminal, or the journal, must not stay silent */
        (void)fprintf(stderr, "proofgw: cannot start; the last lines of %s say why\n", log);
    c->exit_code = EXIT_CONFIG;
    if (c->deployment.fleet.nrunning == 0) {
        begin_close(c);
        return;
    }
    reload_close(&c->reload); /* nothing more for workers that end */
    drain_now(&c->drain);
}

/* The new process of an upgrade: while the old one can serve and this one cannot, this one must not accept
 * connections. The old one ends the wait with a time limit. */
static void on_wait(struct wheel_entry *entry)
{
    struct control *c = CONTAINER_OF(entry, struct control, wait);
    if (c->origin.is_ready && !status_can_serve(&c->status) && !upgrade_is_orphan(&c->origin)) {
        loop_deadline(&c->loop, &c->wait, WAIT_LOOK_MS);
        return;
    }
    enum err e = serve(c);
    if (e) fail_start(c, e);
}

static enum err take_over_sockets(struct control *c)
{
    struct inherited *in = &c->deployment.inherited;
    enum err e = upgrade_receive(in, &c->origin);
    if (e == ERR_OK && c->origin.channel < 0) e = inherited_from_service_manager(in);
    if (e)
        log_error("listen_failed", KV_STR("cause", "the sockets that were to be handed over are not usable"));
    return e;
}

/* Starts everything in order; the first failure ends the start. The admin page is up before the workers, so
 * that a start that takes long can be watched; in an upgrade, the old process goes on answering it. Takes
 * `config` over. */
static enum err start(struct control *c, struct config *config)
{
    struct deployment *d = &c->deployment;
    d->loop = &c->loop;
    d->on_backend_closed = on_backend_closed;
    d->first = generation_create(1, config);
    if (!d->first) {
        config_unref(config);
        return ERR_NOMEM;
    }
    policy_on_change(c->policy, on_policy_change, c);
    enum err e = take_over_sockets(c);
    if (e == ERR_OK) e = signals_open(&c->signals, &c->loop, on_signal, c);
    if (e == ERR_OK) e = store_open(&c->loop.uv, config, c->policy, &c->store);
    if (e) return e;
    c->status.store = c->store;
    bool is_upgrade = c->origin.channel >= 0;
    if (!is_upgrade) e = start_admin(c, &config->admin.address);
    if (e == ERR_OK) e = make_workers(c);
    if (e) return e;
    loop_deadline(&c->loop, &c->collect, COLLECT_MS);
    if (!is_upgrade) return serve(c);
    loop_deadline(&c->loop, &c->wait, 0);
    return ERR_OK;
}

static void deinit(struct control *c)
{
    struct deployment *d = &c->deployment;
    fleet_destroy(&d->fleet);
    deployment_remove_socket_files(d);
    generation_unref(d->current);
    generation_unref(d->first);
    admin_deinit(&c->admin);
    commands_deinit(&c->commands);
    free(c->worker_list);
    policy_destroy(c->policy);
}

int control_run(struct config *config, const char *version, const char *commit)
{
    struct control *c = calloc(1, sizeof *c);
    if (!c || start_log(config)) {
        config_unref(config);
        free(c);
        return EXIT_CONFIG;
    }
    init_metrics();
    c->policy = policy_create();
    drain_init(&c->drain, &c->loop, &c->deployment.fleet, on_hang, c);
    wheel_entry_init(&c->collect, on_collect);
    wheel_entry_init(&c->wait, on_wait);
    c->origin.channel = -1;
    c->status = (struct status){.deployment = &c->deployment,
                                .reload = &c->reload.status,
                                .certificates = &c->reload.certificates.status,
                                .drain = &c->drain,
                                .handover = &c->handover,
                                .service = &c->service,
                                .policy = c->policy,
                                .version = version,
                                .commit = commit,
                                .started_wall_ms = clock_wall_ms()};
    int code = EXIT_CONFIG;
    if (c->policy && loop_init(&c->loop, CONTROL_BUFFER_BYTES, NULL) == ERR_OK) {
        notify_init();
        enum err e = start(c, config);
        if (e) fail_start(c, e);
        loop_run(&c->loop);
        loop_deinit(&c->loop);
        deinit(c);
        code = c->exit_code;
        log_info("stopped", KV_INT("exit_code", code));
    } else {
        log_error("start_failed", KV_STR("cause", "no memory or no event loop"));
        config_unref(config);
        policy_destroy(c->policy);
    }
    free(c);
    notify_deinit();
    log_stop(LOG_STOP_MS);
    metrics_deinit();
    return code;
}
