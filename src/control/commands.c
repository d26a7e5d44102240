#include "control/commands.h"

#include "base/clock.h"
#include "base/container.h"
#include "base/json_out.h"
#include "base/log.h"
#include "base/metrics.h"
#include "control/explain.h"
#include "control/sockets.h"
#include "control/survey.h"
#include "net/socket.h"
#include "proxy/tunnel_list.h"
#include "store/record_value.h"

#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    BACKLOG = 16,
    ANSWER_BYTES = 4096,
    PLAN_BYTES = 1 << 20,
    TUNNELS_BYTES = 4 << 20, /* some 12,000 entries */
    /* For the workers to answer; less than proofctl waits (gateway_link.c), so that it is told why. */
    WAIT_MS = 4000,
    RELOAD_WAIT_MS = 110 * 1000, /* it may have to wait for an upgrade that fails */
};

/* An answer is one object and a line break. */
static struct json_out begin_answer(struct admin_call *call)
{
    struct json_out j = json_out_of(&call->out);
    json_out_object(&j, NULL);
    return j;
}

static void end_answer(struct json_out *j)
{
    json_out_end_object(j);
    outbuf_char(j->o, '\n');
}

static unsigned refuse(struct admin_call *call, unsigned status, const char *sentence)
{
    struct json_out j = begin_answer(call);
    json_out_text(&j, "error", sentence);
    end_answer(&j);
    return status;
}

/* --- status ---------------------------------------------------------------------------------------- */

static unsigned answer_status(void *arg, struct admin_call *call)
{
    const struct commands *c = arg;
    status_write_json(c->host.status, &call->out);
    return 200;
}

/* --- reload ---------------------------------------------------------------------------------------- */

static const struct config *in_force(const struct commands_host *host)
{
    return host->reload->deployment->current->config;
}

static void write_plan(struct admin_call *call, uint64_t generation, const char *plan)
{
    struct json_out j = begin_answer(call);
    json_out_u64(&j, "generation", generation);
    const struct outbuf before = call->out;
    json_out_raw(&j, span_str(plan));
    end_answer(&j);
    if (!call->out.overflow) return;
    call->out = before; /* thousands of changes: the log has the first ones */
    end_answer(&j);
}

/* A call that waits for the result of its reload. */
struct reload_job {
    struct reload_waiter waiter;
    struct admin_call *call;
    bool is_deferred; /* answer_reload() has returned */
    unsigned status;
};

static void on_reloaded(struct reload_waiter *w, const struct reload_result *result)
{
    struct reload_job *job = CONTAINER_OF(w, struct reload_job, waiter);
    if (result->outcome == RELOAD_DONE) {
        job->status = 200;
        write_plan(job->call, result->generation, result->plan);
    } else {
        job->status = refuse(job->call, result->outcome == RELOAD_FAILED ? 422 : 409, result->reasons);
    }
    if (!job->is_deferred) return;
    admin_answer(job->call, job->status);
    free(job);
}

static unsigned answer_reload(void *arg, struct admin_call *call)
{
    const struct commands *c = arg;
    struct reload_job *job = malloc(sizeof *job);
    if (!job) return refuse(call, 503, "out of memory");
    *job = (struct reload_job){.waiter.on_done = on_reloaded, .call = call};
    reload_request(c->host.reload, RELOAD_BY_CONTROL, &job->waiter);
    if (job->status == 0) {
        job->is_deferred = true;
        return ADMIN_LATER;
    }
    unsigned status = job->status;
    free(job);
    return status;
}

static unsigned answer_reload_plan(void *arg, struct admin_call *call)
{
    const struct commands *c = arg;
    char *plan, *reasons;
    enum err e = reload_plan(c->host.reload, &plan, &reasons);
    unsigned status = 200;
    if (e)
        status = refuse(call, reasons ? 422 : 503, reasons ? reasons : "out of memory");
    else
        write_plan(call, c->host.reload->status.generation, plan);
    free(plan);
    free(reasons);
    return status;
}

/* --- deletions ------------------------------------------------------------------------------------- */

/* `partners`, if given, must be the number that is held: so that an operator confirms the load that they have
 * seen, and not one that has taken its place since. */
static unsigned answer_confirm_deletions(void *arg, struct admin_call *call)
{
    const struct commands *c = arg;
    struct store *store = c->host.store;
    struct span wanted = admin_parameter(call->query, "partners");
    struct store_status status;
    char held[24], why[160];
    store->ops->status(store, &status);
    (void)snprintf(held, sizeof held, "%" PRIu64, status.deletions_held); /* fits */
    if (wanted.n && status.deletions_held && !span_eq(wanted, span_str(held))) {
        (void)snprintf(why, sizeof why,
                       "the load that is held now would drop %s partners; nothing was confirmed",
                       held); /* fits */
        return refuse(call, 409, why);
    }
    uint64_t confirmed = store->ops->confirm(store);
    if (!confirmed) return refuse(call, 409, "no load is held: there is nothing to confirm");
    struct json_out j = begin_answer(call);
    json_out_u64(&j, "confirmed", confirmed);
    end_answer(&j);
    return 200;
}

/* --- explain --------------------------------------------------------------------------------------- */

struct explain_job {
    struct admin_call *call;
    const struct commands *commands;
    char request_id[UUID_LEN];
};

static void ask_denial(const struct survey *s, struct survey_part *part)
{
    const struct explain_job *job = s->arg;
    const struct denial *d = denials_find(&part->worker->denials, span_of(job->request_id, UUID_LEN));
    if (!d) return;
    part->count = 1;
    outbuf_bytes(&part->out, (const char *)d, sizeof *d);
}

static void write_denial(const struct explain_job *job, const struct denial *d)
{
    struct json_out j = begin_answer(job->call);
    json_out_span(&j, "request_id", span_of(d->request_id, UUID_LEN));
    json_out_time(&j, "at", d->wall_ms);
    json_out_text(&j, "reason_then", deny_text((enum deny)d->deny));
    size_t mark = j.o->n;
    json_out_object(&j, "now");
    const struct explain_query q = {
        .host = span_of(d->host, d->nhost),
        .path = span_of(d->path, d->npath),
        .source = d->caller.address,
        .seen = &d->caller,
        .route = (enum route)d->route,
        .is_misdirected = d->deny == DENY_OTHER_CERTIFICATE,
        .digest = d->has_digest ? d->digest : NULL,
        .certificate = d->has_certificate ? d->certificate : NULL,
        .wall_ms = clock_wall_ms(),
        .mono_us = clock_mono_us(),
    };
    const struct commands_host *host = &job->commands->host;
    enum deny now = explain_write(in_force(host), host->policy, host->limits, host->sources, &q, &j);
    json_out_end_object(&j);
    if (!d->has_digest && now >= DENY_TOKEN_MISSING) { /* what was sent as a token is not kept */
        j.o->n = mark;
        json_out_null(&j, "now");
    }
    end_answer(&j);
}

static void on_denials(struct survey *s)
{
    struct explain_job *job = s->arg;
    const struct denial *found = NULL;
    struct denial copy;
    for (unsigned i = 0; i < s->nparts && !found; i++) {
        if (s->parts[i].count == 0) continue;
        memcpy(&copy, s->parts[i].out.p, sizeof copy);
        found = &copy;
    }
    unsigned status = 200;
    if (found)
        write_denial(job, found);
    else
        status =
            refuse(job->call, 404,
                   "no such denial: only the last 256 of each worker are kept, and only of this process");
    admin_answer(job->call, status);
    survey_free(s);
    free(job);
}

static unsigned explain_denial(const struct commands *c, struct admin_call *call, struct span request_id)
{
    if (request_id.n != UUID_LEN) return refuse(call, 400, "a request id has 36 characters");
    struct explain_job *job = malloc(sizeof *job);
    if (!job) return refuse(call, 503, "out of memory");
    *job = (struct explain_job){.call = call, .commands = c};
    memcpy(job->request_id, request_id.p, UUID_LEN);
    if (survey_start(c->host.loop, c->host.workers, c->host.nworkers, sizeof(struct denial), ask_denial,
                     on_denials, job))
        return ADMIN_LATER;
    free(job);
    return refuse(call, 503, "out of memory");
}

static unsigned answer_explain(void *arg, struct admin_call *call)
{
    const struct commands *c = arg;
    uint8_t digest[TOKEN_DIGEST_BYTES], certificate[CERTIFICATE_DIGEST_BYTES];
    struct target target;
    struct span id = admin_parameter(call->query, "request_id");
    if (id.n) return explain_denial(c, call, id);
    struct explain_query q = {
        .host = admin_parameter(call->query, "host"),
        .path = admin_parameter(call->query, "path"),
        .wall_ms = clock_wall_ms(),
        .mono_us = clock_mono_us(),
    };
    struct span ip = admin_parameter(call->query, "ip");
    struct span token = admin_parameter(call->query, "token_sha256");
    struct span shown = admin_parameter(call->query, "client_cert_sha256");
    if (q.host.n == 0) return refuse(call, 400, "which host? host is missing");
    if (addr_parse(ip, &q.source)) return refuse(call, 400, "ip is not an IPv4 or IPv6 address");
    if (q.path.n == 0) q.path = SPAN("/widget/");
    if (target_parse(q.path, &target))
        return refuse(call, 400, "a request with such a path is answered with 400");
    if (token.n && !record_value_to_digest(token, digest))
        return refuse(call, 400, "token_sha256 is not 64 lower-case hexadecimal digits");
    if (token.n) q.digest = digest;
    if (shown.n && !record_value_to_digest(shown, certificate))
        return refuse(call, 400, "client_cert_sha256 is not 64 lower-case hexadecimal digits");
    if (shown.n) q.certificate = certificate;
    struct json_out j = begin_answer(call);
    (void)explain_write(in_force(&c->host), c->host.policy, c->host.limits, c->host.sources, &q,
                        &j); /* the answer has the reason */
    end_answer(&j);
    return 200;
}

/* --- tunnels --------------------------------------------------------------------------------------- */

struct tunnels_job {
    struct admin_call *call;
    bool close;
    struct tunnel_filter filter; /* into `text` */
    char text[];
};

static void ask_tunnels(const struct survey *s, struct survey_part *part)
{
    const struct tunnels_job *job = s->arg;
    part->count = job->close ? tunnel_list_close(part->worker, &job->filter)
                             : tunnel_list_write(part->worker, &job->filter, &part->out);
}

static void on_tunnels(struct survey *s)
{
    struct tunnels_job *job = s->arg;
    struct json_out j = begin_answer(job->call);
    uint64_t n = 0;
    if (!job->close) json_out_array(&j, "tunnels");
    for (unsigned i = 0; i < s->nparts; i++) {
        json_out_raw(&j, span_of(s->parts[i].out.p, s->parts[i].out.n)); /* nothing when they are closed */
        n += s->parts[i].count;
    }
    if (!job->close) json_out_end_array(&j);
    json_out_u64(&j, "count", n);
    end_answer(&j);
    if (job->close) log_warn("tunnels_closed_by_operator", KV_UINT("tunnels", n));
    admin_answer(job->call, 200);
    survey_free(s);
    free(job);
}

static struct tunnels_job *tunnels_job_create(struct admin_call *call, bool close)
{
    struct span partner = admin_parameter(call->query, "partner");
    struct span request = admin_parameter(call->query, "request_id");
    struct tunnels_job *job = malloc(sizeof *job + partner.n + request.n);
    if (!job) return NULL;
    *job = (struct tunnels_job){.call = call, .close = close};
    if (partner.n) memcpy(job->text, partner.p, partner.n);
    if (request.n) memcpy(job->text + partner.n, request.p, request.n);
    job->filter.partner_id = span_of(job->text, partner.n);
    job->filter.request_id = span_of(job->text + partner.n, request.n);
    return job;
}

static unsigned survey_tunnels(const struct commands *c, struct admin_call *call, bool close)
{
    struct tunnels_job *job = tunnels_job_create(call, close);
    size_t room = close ? 0 : (TUNNELS_BYTES - ANSWER_BYTES) / c->host.nworkers;
    if (job &&
        survey_start(c->host.loop, c->host.workers, c->host.nworkers, room, ask_tunnels, on_tunnels, job))
        return ADMIN_LATER;
    free(job);
    return refuse(call, 503, "out of memory");
}

static unsigned answer_tunnels(void *arg, struct admin_call *call)
{
    return survey_tunnels(arg, call, false);
}

static unsigned answer_tunnels_close(void *arg, struct admin_call *call)
{
    bool is_meant = admin_parameter(call->query, "partner").n ||
                    admin_parameter(call->query, "request_id").n ||
                    span_eq(admin_parameter(call->query, "all"), SPAN("true"));
    if (!is_meant) return refuse(call, 400, "which tunnels? give partner, request_id, or all=true");
    return survey_tunnels(arg, call, true);
}

/* --- the process ----------------------------------------------------------------------------------- */

static unsigned answer_log_level(void *arg, struct admin_call *call)
{
    enum log_level before = log_get_level(), level;
    (void)arg;
    if (!log_level_parse(admin_parameter(call->query, "level"), &level))
        return refuse(call, 400, "level is debug, info, warn or error");
    log_set_level(level);
    /* log_event(), which no level suppresses: the line explains why others begin or cease. */
    log_event(LOG_INFO, "log_level_changed",
              (const struct kv[]){KV_STR("from", log_level_text(before)),
                                  KV_STR("to", log_level_text(level)),
                                  {.kind = KV_END}});
    struct json_out j = begin_answer(call);
    json_out_text(&j, "level", log_level_text(level));
    end_answer(&j);
    return 200;
}

static unsigned answer_drain(void *arg, struct admin_call *call)
{
    const struct commands *c = arg;
    drain_begin(c->host.drain, in_force(&c->host)->timeouts.drain_delay_ms);
    outbuf_str(&call->out, "{\"draining\":true}\n");
    return 200;
}

static unsigned answer_undrain(void *arg, struct admin_call *call)
{
    const struct commands *c = arg;
    if (!drain_undo(c->host.drain)) return refuse(call, 409, "the gateway is about to end");
    outbuf_str(&call->out, "{\"draining\":false}\n");
    return 200;
}

static const struct admin_route routes[] = {
    {METHOD_GET, "/status", "application/json", STATUS_JSON_MAX, answer_status, 0},
    {METHOD_GET, "/explain", "application/json", EXPLAIN_BYTES_MAX + ANSWER_BYTES, answer_explain, WAIT_MS},
    {METHOD_GET, "/tunnels", "application/json", TUNNELS_BYTES, answer_tunnels, WAIT_MS},
    {METHOD_POST, "/tunnels/close", "application/json", ANSWER_BYTES, answer_tunnels_close, WAIT_MS},
    {METHOD_POST, "/log-level", "application/json", ANSWER_BYTES, answer_log_level, 0},
    {METHOD_GET, "/reload/plan", "application/json", PLAN_BYTES, answer_reload_plan, 0},
    {METHOD_POST, "/reload", "application/json", PLAN_BYTES, answer_reload, RELOAD_WAIT_MS},
    {METHOD_POST, "/confirm-deletions", "application/json", ANSWER_BYTES, answer_confirm_deletions, 0},
    {METHOD_POST, "/drain", "application/json", ANSWER_BYTES, answer_drain, 0},
    {METHOD_POST, "/undrain", "application/json", ANSWER_BYTES, answer_undrain, 0},
    {METHOD_GET, NULL, NULL, 0, NULL, 0},
};

struct endpoint commands_place(const struct config *config)
{
    static const char folder[] = "/run/proofgw";
    struct endpoint e = {.kind = ENDPOINT_UNIX};
    const char *path = config->admin.control_socket;
    if (path && strcmp(path, "auto") == 0)
        path = access(folder, W_OK) == 0 ? "/run/proofgw/control.sock" : NULL;
    if (!path) return (struct endpoint){.kind = ENDPOINT_NONE};
    (void)snprintf(e.host, sizeof e.host, "%s", path); /* one that does not fit is refused as too long */
    (void)snprintf(e.text, sizeof e.text, "unix:%s", e.host);
    return e;
}

static enum err open_socket(const struct endpoint *place, int *fd, struct errmsg *why)
{
    struct socket_address address;
    int sys = 0;
    if (socket_address_unix(place->host, &address)) {
        errmsg_set(why, 0, 0, "the path of the control socket has more than 107 bytes: %s", place->host);
        return ERR_RANGE;
    }
    enum err e = socket_listen_private(&address, BACKLOG, fd, &sys);
    if (!e) return ERR_OK;
    char name[sizeof place->host + 32];
    (void)snprintf(name, sizeof name, "the control socket %s", place->host); /* always fits */
    sockets_say_why(name, &address, sys, why);
    return e;
}

enum err commands_open(struct commands *c, const struct commands_host *host, const struct endpoint *place,
                       struct inherited *in, struct errmsg *why)
{
    *c = (struct commands){.host = *host};
    int fd = inherited_take(in, INHERITED_CONTROL, place, NULL);
    enum err e = fd < 0 ? open_socket(place, &fd, why) : ERR_OK;
    if (e) return e;
    c->place = *place;
    e = admin_open(&c->admin, host->loop, fd, routes, c);
    if (e) errmsg_set(why, 0, 0, "the control socket: %s", err_text(e));
    c->admin.is_private = true; /* nobody is accepted before the loop goes on */
    return e;
}

int commands_fd(const struct commands *c)
{
    return c->admin.open ? c->admin.listener.fd : -1;
}

void commands_close(struct commands *c)
{
    if (c->place.kind == ENDPOINT_NONE) return;
    admin_close(&c->admin);
    sockets_remove_file(&c->place);
    c->place.kind = ENDPOINT_NONE;
}

void commands_deinit(struct commands *c)
{
    admin_deinit(&c->admin);
}
