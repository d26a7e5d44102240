#include "control/status.h"

#include "base/clock.h"
#include "base/json_out.h"
#include "base/log.h"
#include "base/metrics.h"
#include "control/certificates.h"
#include "control/handover.h"
#include "control/service.h"
#include "proxy/sources.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

/* --- readiness ------------------------------------------------------------------------------------- */

static struct store_status read_store(const struct status *s)
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
    const struct store_status store = read_store(s);
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
    const struct store_status store = read_store(s);
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
    const struct store_status store = read_store(s);
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
    const struct store_status store = read_store(s);
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

/* --- metrics --------------------------------------------------------------------------------------- */

/* Read once per scrape. */
struct facts {
    const struct status *status;
    struct store_status store;
    struct reload_status reload;
    struct certificate_status tls;
    struct policy_stats policy;
    struct rusage usage;
    struct rlimit fds;
    uint64_t resident_bytes, virtual_bytes;
};

static void read_memory(struct facts *f)
{
    FILE *file = fopen("/proc/self/statm", "re");
    unsigned long size = 0, resident = 0;
    if (!file) return; /* /proc is not mounted: the values stay 0 */
    if (fscanf(file, "%lu %lu", &size, &resident) == 2) {
        uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
        f->virtual_bytes = size * page;
        f->resident_bytes = resident * page;
    }
    (void)fclose(file);
}

static uint64_t count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    uint64_t n = 0;
    if (!dir) return 0;
    while (readdir(dir))
        n++;
    (void)closedir(dir);
    return n > 3 ? n - 3 : 0; /* without ".", ".." and the descriptor of the directory itself */
}

static void read_facts(const struct status *s, struct facts *f)
{
    *f = (struct facts){.status = s};
    f->store = read_store(s);
    f->reload = *s->reload;
    f->tls = *s->certificates;
    policy_stats(s->policy, &f->policy);
    (void)getrusage(RUSAGE_SELF, &f->usage); /* neither fails for the own process */
    (void)getrlimit(RLIMIT_NOFILE, &f->fds);
    read_memory(f);
}

static uint64_t cpu_ms(const struct facts *f)
{
    const struct timeval *u = &f->usage.ru_utime, *s = &f->usage.ru_stime;
    return ((uint64_t)u->tv_sec + (uint64_t)s->tv_sec) * 1000 +
           ((uint64_t)u->tv_usec + (uint64_t)s->tv_usec) / 1000;
}

static bool is_ready(const struct facts *f)
{
    const char *failed[CHECKS];
    return find_failed(f->status, &f->store, failed) == 0;
}

/* name, kind, value in thousandths?, value, help */
/* clang-format off */
#define FAMILY_MAP(XX) \
    XX("proofgw_ready", GAUGE, false, is_ready(f), \
       "1 while /readyz answers 200.") \
    XX("proofgw_workers", GAUGE, false, f->status->workers, \
       "Worker threads.") \
    XX("proofgw_workers_silent", GAUGE, false, f->status->service->nsilent, \
       "Worker threads that did not answer the main thread's last question: they hang.") \
    XX("proofgw_connection_sources", GAUGE, false, sources_count(f->status->deployment->fleet.sources), \
       "Addresses (IPv6: /64) that have client connections open, as limits.connections_per_source counts them.") \
    XX("proofgw_config_generation", GAUGE, false, f->reload.generation, \
       "Number of the configuration in force: 1 at the start, one more with each reload.") \
    XX("proofgw_config_last_reload_successful", GAUGE, false, f->reload.last_successful, \
       "1 while the configuration that was last read, at the start or by a reload, is in force; 0 = it was refused, or a worker hangs.") \
    XX("proofgw_config_last_reload_success_timestamp_seconds", GAUGE, true, f->reload.success_wall_ms, \
       "When the configuration in force was taken over.") \
    XX("proofgw_tls_certificate_reloads_total", COUNTER, false, f->tls.renewals_total, \
       "Changed certificate files that were taken over.") \
    XX("proofgw_tls_certificate_reload_failures_total", COUNTER, false, f->tls.failures_total, \
       "Changed certificate files that were refused; those before stay in force.") \
    XX("proofgw_tls_ticket_key_changes_total", COUNTER, false, f->tls.ticket_changes_total, \
       "Changes of the keys of session tickets, by time or by their file.") \
    XX("proofgw_tls_ticket_key_failures_total", COUNTER, false, f->tls.ticket_failures_total, \
       "Changes of the keys of session tickets that failed; those before stay in use.") \
    XX("proofgw_store_up", GAUGE, false, f->store.up, \
       "1 while the last read of the partner data succeeded.") \
    XX("proofgw_store_loads_total", COUNTER, false, f->store.loads_total, \
       "Partner data loads that succeeded.") \
    XX("proofgw_store_load_failures_total", COUNTER, false, f->store.load_failures_total, \
       "Partner data loads that failed; the data before them stays in force.") \
    XX("proofgw_store_records_rejected", GAUGE, false, f->store.records_rejected, \
       "Records that the last load refused.") \
    XX("proofgw_store_last_load_timestamp_seconds", GAUGE, true, f->store.loaded_at_ms, \
       "When partner data was last loaded; 0 = never.") \
    XX("proofgw_store_last_load_duration_seconds", GAUGE, true, f->store.load_us / 1000, \
       "How long that load took.") \
    XX("proofgw_store_staleness_seconds", GAUGE, true, f->store.staleness_ms, \
       "With Redis: since the data was last known to be that of Redis; up to 5 s while all is well.") \
    XX("proofgw_store_sequence", GAUGE, false, f->store.sequence, \
       "With Redis: number of the last change in force.") \
    XX("proofgw_store_inconsistent", GAUGE, false, f->store.is_inconsistent, \
       "With Redis: 1 while the count or digest that Redis keeps is not that of its own records.") \
    XX("proofgw_store_deletions_held", GAUGE, false, f->store.deletions_held, \
       "With Redis: partners that a held resynchronisation would drop; an operator has to confirm it (proofctl confirm-deletions).") \
    XX("proofgw_store_scrubs_total", COUNTER, false, f->store.scrubs_total, \
       "With Redis: complete comparisons of all records.") \
    XX("proofgw_store_scrub_repairs_total", COUNTER, false, f->store.scrub_repairs_total, \
       "With Redis: records that a comparison found changed by hand.") \
    XX("proofgw_store_snapshot_timestamp_seconds", GAUGE, true, f->store.snapshot_at_ms, \
       "With Redis: when the snapshot was last written or loaded; 0 = none.") \
    XX("proofgw_store_snapshot_failures_total", COUNTER, false, f->store.snapshot_failures_total, \
       "With Redis: snapshots that could not be written, or not be used at the start.") \
    XX("proofgw_store_report_failures_total", COUNTER, false, f->store.report_failures_total, \
       "With Redis: reports of the gateway's position, for proofctl, that Redis did not take.") \
    XX("proofgw_policy_generation", GAUGE, false, policy_generation(f->status->policy), \
       "Changes of the policy since the start.") \
    XX("proofgw_policy_partners", GAUGE, false, f->policy.partners, \
       "Partners in memory.") \
    XX("proofgw_policy_tokens", GAUGE, false, f->policy.tokens, \
       "Token digests in memory, current and previous.") \
    XX("proofgw_policy_prefixes", GAUGE, false, f->policy.prefixes, \
       "Prefixes of all allowlists, merged per list.") \
    XX("proofgw_policy_bytes", GAUGE, false, f->policy.bytes, \
       "Memory of the policy.") \
    XX("proofgw_policy_limbo_bytes", GAUGE, false, f->policy.limbo_bytes, \
       "Memory that waits for workers to look away before it is freed.") \
    XX("proofgw_log_dropped_lines_total", COUNTER, false, log_dropped_total(), \
       "Log lines dropped because the log was slower than the gateway.") \
    XX("proofgw_log_write_errors_total", COUNTER, false, log_write_errors_total(), \
       "Failed writes of log lines.") \
    XX("process_cpu_seconds_total", COUNTER, true, cpu_ms(f), \
       "User and system CPU time spent.") \
    XX("process_open_fds", GAUGE, false, count_fds(), \
       "Open file descriptors.") \
    XX("process_max_fds", GAUGE, false, f->fds.rlim_cur, \
       "Most file descriptors that may be open.") \
    XX("process_resident_memory_bytes", GAUGE, false, f->resident_bytes, \
       "Resident memory.") \
    XX("process_virtual_memory_bytes", GAUGE, false, f->virtual_bytes, \
       "Virtual memory.") \
    XX("process_start_time_seconds", GAUGE, true, f->status->started_wall_ms, \
       "When the process started.")
/* clang-format on */

#define FULL_LOADS_HELP "With Redis: complete loads, by the reason why the change log was not enough."
#define RELOADS_HELP                                                                                         \
    "Reloads of the configuration: done, failed (nothing has changed, or a worker hangs), refused (the "     \
    "process is about to end)."
#define AWAY_HELP                                                                                            \
    "With Redis: how often the gateway fell out of step with it, or tried in vain to come back, by the "     \
    "reason."
#define EXPIRY_NAME "proofgw_tls_cert_not_after_timestamp_seconds"
#define EXPIRY_HELP "When the certificates that the gateway shows expire, by file."
#define UPGRADES_HELP                                                                                        \
    "Upgrades by SIGUSR2: done (this process is about to end), failed (it goes on), refused (not the "       \
    "moment)."
#define BUILD_INFO_HELP "Version and commit of the running binary; the value is always 1."

static void write_full_loads(const struct store_status *store, struct outbuf *o)
{
    static const char name[] = "proofgw_store_full_loads_total";
    metrics_family(o, name, METRIC_COUNTER, FULL_LOADS_HELP);
    for (unsigned i = 0; i < STORE_LOAD_REASONS; i++) {
        const struct metric_label reason = {"reason", store_load_reason_text((enum store_load_reason)i)};
        metrics_sample(o, name, &reason, 1, store->full_loads_total[i]);
    }
}

static void write_reloads(const struct reload_status *reload, struct outbuf *o)
{
    static const char name[] = "proofgw_config_reloads_total";
    static const char *const results[] = {
        [RELOAD_DONE] = "done", [RELOAD_FAILED] = "failed", [RELOAD_REFUSED] = "refused"};
    metrics_family(o, name, METRIC_COUNTER, RELOADS_HELP);
    for (unsigned i = 0; i < sizeof results / sizeof results[0]; i++) {
        const struct metric_label result = {"result", results[i]};
        metrics_sample(o, name, &result, 1, reload->total[i]);
    }
}

static void write_upgrades(const struct handover *handover, struct outbuf *o)
{
    static const char name[] = "proofgw_upgrades_total";
    metrics_family(o, name, METRIC_COUNTER, UPGRADES_HELP);
    for (unsigned i = 0; i < HANDOVER_RESULTS; i++) {
        const struct metric_label result = {"result", handover_result_text((enum handover_result)i)};
        metrics_sample(o, name, &result, 1, handover->total[i]);
    }
}

static void write_away(const struct store_status *store, struct outbuf *o)
{
    static const char name[] = "proofgw_store_away_total";
    metrics_family(o, name, METRIC_COUNTER, AWAY_HELP);
    for (unsigned i = 0; i < STORE_AWAY_REASONS; i++) {
        const struct metric_label reason = {"reason", store_away_reason_text((enum store_away_reason)i)};
        metrics_sample(o, name, &reason, 1, store->away_total[i]);
    }
}

static void write_expiry(const struct tls_certificate *c, void *arg)
{
    const struct metric_label file = {"file", c->file};
    metrics_sample_milli(arg, EXPIRY_NAME, &file, 1, c->not_after_ms);
}

static void write_expiries(const struct status *s, struct outbuf *o)
{
    metrics_family(o, EXPIRY_NAME, METRIC_GAUGE, EXPIRY_HELP);
    if (s->deployment->current) certificates_each(&s->deployment->current->tls, write_expiry, o);
}

void status_write_metrics(const struct status *s, struct outbuf *o)
{
    struct facts facts, *f = &facts;
    const struct metric_label build[] = {{"version", s->version}, {"commit", s->commit}};
    read_facts(s, f);
    metrics_family(o, "proofgw_build_info", METRIC_GAUGE, BUILD_INFO_HELP);
    metrics_sample(o, "proofgw_build_info", build, 2, 1);
    write_full_loads(&facts.store, o);
    write_reloads(&facts.reload, o);
    write_upgrades(s->handover, o);
    write_away(&facts.store, o);
    write_expiries(s, o);
#define XX(name, kind, milli, value, help)                                                                   \
    metrics_family(o, name, METRIC_##kind, help);                                                            \
    (milli ? metrics_sample_milli : metrics_sample)(o, name, NULL, 0, (uint64_t)(value));
    FAMILY_MAP(XX)
#undef XX
}

/* One row of the families that have labels. */
static void reference_labelled(struct outbuf *o, const char *name, const char *kind, const char *labels,
                               const char *help)
{
    outbuf_fmt(o, "| `%s` | %s | %s | %s |\n", name, kind, labels, help);
}

void status_reference(struct outbuf *o)
{
    static const char *const kinds[] = {[METRIC_COUNTER] = "counter", [METRIC_GAUGE] = "gauge"};
    outbuf_str(o, "\nOf the process as a whole; docs/DATA.md explains the reasons:\n\n"
                  "| Metric | Type | Labels | Meaning |\n|---|---|---|---|\n");
    reference_labelled(o, "proofgw_build_info", "gauge", "`version`, `commit`", BUILD_INFO_HELP);
    reference_labelled(o, "proofgw_store_full_loads_total", "counter", "`reason`", FULL_LOADS_HELP);
    reference_labelled(o, "proofgw_config_reloads_total", "counter", "`result`", RELOADS_HELP);
    reference_labelled(o, "proofgw_upgrades_total", "counter", "`result`", UPGRADES_HELP);
    reference_labelled(o, "proofgw_store_away_total", "counter", "`reason`", AWAY_HELP);
    reference_labelled(o, EXPIRY_NAME, "gauge", "`file`", EXPIRY_HELP);
#define XX(name, kind, milli, value, help)                                                                   \
    outbuf_fmt(o, "| `%s` | %s | | %s |\n", name, kinds[METRIC_##kind], help);
    FAMILY_MAP(XX)
#undef XX
}
