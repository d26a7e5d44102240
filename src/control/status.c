#include "control/status.h"

#include "base/clock.h"
#include "base/json_out.h"
#include "base/metrics.h"
#include "control/certificates.h"
#include "control/service.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

/* --- readiness ------------------------------------------------------------------------------------- */

struct store_status status_read_store(const struct status *s)
{
    struct store_status store = {0};
    if (s->store) s->store->ops->status(s->store, &store);
    return store;
}

/* Every backend has an address. */
static bool is_resolved(const struct status *s)
{
    return deployment_unresolved(s->deployment) == 0;
}

bool status_can_serve(const struct status *s)
{
    const struct store_status store = status_read_store(s);
    return policy_is_ready(s->policy) && !store.is_too_stale && is_resolved(s);
}

static bool is_draining(const struct status *s)
{
    return s->drain->state != DRAIN_NONE;
}

enum { CHECKS = 6 };

/* Puts the names of the checks that failed into `failed`, and returns how many they are. */
static unsigned find_failed(const struct status *s, const struct store_status *store,
                            const char *failed[static CHECKS])
{
    const struct {
        const char *name;
        bool passed;
    } checks[CHECKS] = {
        {"listening", s->listening},
        {"partner_data", policy_is_ready(s->policy)},
        {"partner_data_fresh", !store->is_too_stale},
        {"backend_resolved", is_resolved(s)},
        {"not_draining", !is_draining(s)},
        {"workers_answer", s->service->nsilent == 0},
    };
    unsigned n = 0;
    for (unsigned i = 0; i < CHECKS; i++)
        if (!checks[i].passed) failed[n++] = checks[i].name;
    return n;
}

bool status_is_ready(const struct status *s, const struct store_status *store)
{
    const char *failed[CHECKS];
    return find_failed(s, store, failed) == 0;
}

/* Writes which checks failed, as `key`, and "ready": whether none did. Returns that. */
static bool write_checks(const struct status *s, const struct store_status *store, const char *key,
                         struct json_out *j)
{
    const char *failed[CHECKS];
    unsigned n = find_failed(s, store, failed);
    json_out_array(j, key);
    for (unsigned i = 0; i < n; i++)
        json_out_text(j, NULL, failed[i]);
    json_out_end_array(j);
    json_out_bool(j, "ready", n == 0);
    return n == 0;
}

bool status_write_ready(const struct status *s, struct outbuf *o)
{
    const struct store_status store = status_read_store(s);
    struct json_out j = json_out_of(o);
    json_out_object(&j, NULL);
    bool ready = write_checks(s, &store, "failed", &j);
    if (s->store) {
        json_out_bool(&j, "store_up", store.up);
        json_out_text(&j, "store_error", store.last_error);
    }
    json_out_end_object(&j);
    outbuf_char(o, '\n');
    return ready;
}

/* --- status ---------------------------------------------------------------------------------------- */

/* An instant, or null when there was none. */
static void write_time(struct json_out *j, const char *key, uint64_t wall_ms)
{
    if (wall_ms)
        json_out_time(j, key, wall_ms);
    else
        json_out_null(j, key);
}

static void write_store(const struct store_status *store, struct json_out *j)
{
    json_out_object(j, "store");
    json_out_bool(j, "up", store->up);
    write_time(j, "loaded_at", store->loaded_at_ms);
    json_out_u64(j, "sequence", store->sequence);
    json_out_u64(j, "staleness_ms", store->staleness_ms);
    json_out_u64(j, "records_rejected", store->records_rejected);
    json_out_u64(j, "deletions_held", store->deletions_held);
    write_time(j, "snapshot_at", store->snapshot_at_ms);
    json_out_text(j, "last_error", store->last_error);
    json_out_end_object(j);
}

static void write_policy(const struct policy *p, struct json_out *j)
{
    struct policy_stats stats;
    policy_stats(p, &stats);
    json_out_object(j, "policy");
    json_out_u64(j, "generation", policy_generation(p));
    json_out_u64(j, "partners", stats.partners);
    json_out_u64(j, "tokens", stats.tokens);
    json_out_u64(j, "prefixes", stats.prefixes);
    json_out_u64(j, "bytes", stats.bytes);
    json_out_end_object(j);
}

static void write_reload(const struct reload_status *reload, struct json_out *j)
{
    json_out_object(j, "configuration");
    json_out_u64(j, "generation", reload->generation);
    json_out_bool(j, "last_reload_successful", reload->last_successful);
    write_time(j, "in_force_since", reload->success_wall_ms);
    json_out_end_object(j);
}

static void write_load(struct json_out *j)
{
    json_out_u64(j, "connections", metrics_sum(METRIC_CONNECTIONS_OPEN, 0));
    json_out_object(j, "tunnels");
    json_out_u64(j, "production", metrics_sum(METRIC_TUNNELS_OPEN, ENV_PRODUCTION));
    json_out_u64(j, "sandbox", metrics_sum(METRIC_TUNNELS_OPEN, ENV_SANDBOX));
    json_out_end_object(j);
}

enum { NAMES_SHOWN_MAX = 512 }; /* bytes of one certificate: some have a hundred names */

static void write_certificate(const struct tls_certificate *c, void *arg)
{
    struct json_out *j = arg;
    size_t n = strlen(c->names);
    json_out_object(j, NULL);
    json_out_span(j, "names", span_of(c->names, n < NAMES_SHOWN_MAX ? n : NAMES_SHOWN_MAX));
    json_out_text(j, "file", c->file);
    write_time(j, "not_after", c->not_after_ms);
    json_out_bool(j, "expired", c->not_after_ms <= clock_wall_ms());
    json_out_end_object(j);
}

static void write_certificates(const struct status *s, struct json_out *j)
{
    const struct generation *current = s->deployment->current;
    json_out_array(j, "certificates");
    if (current) certificates_each(&current->tls, write_certificate, j);
    json_out_end_array(j);
    json_out_text(j, "certificates_refused", s->certificates->last_error);
}

void status_write_line(const struct status *s, char *out, size_t cap)
{
    const struct store_status store = status_read_store(s);
    uint64_t tunnels =
        metrics_sum(METRIC_TUNNELS_OPEN, ENV_PRODUCTION) + metrics_sum(METRIC_TUNNELS_OPEN, ENV_SANDBOX);
    uint64_t position = store.sequence ? store.sequence : policy_generation(s->policy);
    int n = snprintf(out, cap, "%s: %" PRIu64 " connections, %" PRIu64 " tunnels, ",
                     drain_state_text(s->drain->state), metrics_sum(METRIC_CONNECTIONS_OPEN, 0), tunnels);
    if (n < 0 || (size_t)n >= cap) return;
    if (!policy_is_ready(s->policy))
        (void)snprintf(out + n, cap - (size_t)n, "no partner data yet");
    else
        (void)snprintf(out + n, cap - (size_t)n, "partner data %" PRIu64 "%s", position,
                       status_can_serve(s) ? "" : ", not ready");
}

void status_write_json(const struct status *s, struct outbuf *o)
{
    const struct store_status store = status_read_store(s);
    uint64_t now_ms = clock_wall_ms();
    uint64_t up_ms = now_ms > s->started_wall_ms ? now_ms - s->started_wall_ms : 0;
    struct json_out j = json_out_of(o);
    json_out_object(&j, NULL);
    json_out_text(&j, "version", s->version);
    json_out_text(&j, "commit", s->commit);
    json_out_u64(&j, "pid", (uint64_t)getpid());
    write_time(&j, "started_at", s->started_wall_ms);
    json_out_u64(&j, "uptime_s", up_ms / 1000);
    json_out_u64(&j, "workers", s->workers);
    json_out_bool(&j, "draining", is_draining(s));
    json_out_text(&j, "phase", drain_state_text(s->drain->state));
    (void)write_checks(s, &store, "failed_checks", &j); /* it has written the result */
    write_reload(s->reload, &j);
    write_certificates(s, &j);
    write_load(&j);
    write_policy(s->policy, &j);
    write_store(&store, &j);
    json_out_end_object(&j);
    outbuf_char(o, '\n');
}
