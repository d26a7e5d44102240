#include "control/status.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "control/certificates.h"
#include "control/handover.h"
#include "control/service.h"
#include "proxy/sources.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

/* --- readiness ------------------------------------------------------------------------------------- */

struct check {
    const char *name;
    bool passed;
};

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

/* Writes the names of the failed checks, each in quotes. True when there are none. */
static bool write_failed_checks(const struct status *s, const struct store_status *store, struct outbuf *o)
{
    const struct check checks[] = {
        {"listening", s->listening},
        {"partner_data", policy_is_ready(s->policy)},
        {"partner_data_fresh", !store->is_too_stale},
        {"backend_resolved", is_resolved(s)},
        {"not_draining", !is_draining(s)},
        {"workers_answer", s->service->nsilent == 0},
    };
    bool ready = true;
    const char *comma = "";
    for (size_t i = 0; i < sizeof checks / sizeof checks[0]; i++) {
        if (checks[i].passed) continue;
        ready = false;
        outbuf_fmt(o, "%s\"%s\"", comma, checks[i].name);
        comma = ",";
    }
    return ready;
}

bool status_write_ready(const struct status *s, struct outbuf *o)
{
    const struct store_status store = read_store(s);
    outbuf_str(o, "{\"failed\":[");
    bool ready = write_failed_checks(s, &store, o);
    outbuf_fmt(o, "],\"ready\":%s", ready ? "true" : "false");
    if (s->store) {
        outbuf_fmt(o, ",\"store_up\":%s,\"store_error\":", store.up ? "true" : "false");
        outbuf_json(o, span_str(store.last_error));
    }
    outbuf_str(o, "}\n");
    return ready;
}

/* --- status ---------------------------------------------------------------------------------------- */

static void write_time(struct outbuf *o, const char *name, uint64_t wall_ms)
{
    char text[CLOCK_RFC3339_LEN];
    if (wall_ms == 0) {
        outbuf_fmt(o, ",\"%s\":null", name);
        return;
    }
    clock_rfc3339(wall_ms, text);
    outbuf_fmt(o, ",\"%s\":\"%.*s\"", name, CLOCK_RFC3339_LEN, text);
}

static void write_store(const struct store_status *store, struct outbuf *o)
{
    outbuf_fmt(o, ",\"store\":{\"up\":%s", store->up ? "true" : "false");
    write_time(o, "loaded_at", store->loaded_at_ms);
    outbuf_fmt(o, ",\"sequence\":%llu,\"staleness_ms\":%llu", (unsigned long long)store->sequence,
               (unsigned long long)store->staleness_ms);
    outbuf_fmt(o, ",\"records_rejected\":%llu,\"deletions_held\":%llu",
               (unsigned long long)store->records_rejected, (unsigned long long)store->deletions_held);
    write_time(o, "snapshot_at", store->snapshot_at_ms);
    outbuf_str(o, ",\"last_error\":");
    outbuf_json(o, span_str(store->last_error));
    outbuf_char(o, '}');
}

static void write_policy(const struct policy *p, struct outbuf *o)
{
    struct policy_stats stats;
    policy_stats(p, &stats);
    outbuf_fmt(o, ",\"policy\":{\"generation\":%llu,\"partners\":%u,\"tokens\":%u",
               (unsigned long long)policy_generation(p), stats.partners, stats.tokens);
    outbuf_fmt(o, ",\"prefixes\":%llu,\"bytes\":%zu}", (unsigned long long)stats.prefixes, stats.bytes);
}

static void write_reload(const struct reload_status *reload, struct outbuf *o)
{
    outbuf_fmt(o, ",\"configuration\":{\"generation\":%llu,\"last_reload_successful\":%s",
               (unsigned long long)reload->generation, reload->last_successful ? "true" : "false");
    write_time(o, "in_force_since", reload->success_wall_ms);
    outbuf_char(o, '}');
}

static void write_load(struct outbuf *o)
{
    outbuf_fmt(o, ",\"connections\":%llu", (unsigned long long)metrics_sum(METRIC_CONNECTIONS_OPEN, 0));
    outbuf_fmt(o, ",\"tunnels\":{\"production\":%llu,\"sandbox\":%llu}",
               (unsigned long long)metrics_sum(METRIC_TUNNELS_OPEN, ENV_PRODUCTION),
               (unsigned long long)metrics_sum(METRIC_TUNNELS_OPEN, ENV_SANDBOX));
}

enum { NAMES_SHOWN_MAX = 512 }; /* bytes of one certificate: some have a hundred names */

static void write_certificate(const struct tls_certificate *c, void *arg)
{
    struct outbuf *o = arg;
    size_t n = strlen(c->names);
    outbuf_str(o, o->p[o->n - 1] == '[' ? "{\"names\":" : ",{\"names\":");
    outbuf_json(o, span_of(c->names, n < NAMES_SHOWN_MAX ? n : NAMES_SHOWN_MAX));
    outbuf_str(o, ",\"file\":");
    outbuf_json(o, span_str(c->file));
    write_time(o, "not_after", c->not_after_ms);
    outbuf_fmt(o, ",\"expired\":%s}", c->not_after_ms <= clock_wall_ms() ? "true" : "false");
}

static void write_certificates(const struct status *s, struct outbuf *o)
{
    const struct generation *current = s->deployment->current;
    outbuf_str(o, ",\"certificates\":[");
    if (current) certificates_each(&current->tls, write_certificate, o);
    outbuf_str(o, "],\"certificates_refused\":");
    outbuf_json(o, span_str(s->certificates->last_error));
}

void status_write_line(const struct status *s, char *out, size_t cap)
{
    const struct store_status store = read_store(s);
    uint64_t tunnels =
        metrics_sum(METRIC_TUNNELS_OPEN, ENV_PRODUCTION) + metrics_sum(METRIC_TUNNELS_OPEN, ENV_SANDBOX);
    uint64_t position = store.sequence ? store.sequence : policy_generation(s->policy);
    int n =
        snprintf(out, cap, "%s: %llu connections, %llu tunnels, ", drain_state_text(s->drain->state),
                 (unsigned long long)metrics_sum(METRIC_CONNECTIONS_OPEN, 0), (unsigned long long)tunnels);
    if (n < 0 || (size_t)n >= cap) return;
    if (!policy_is_ready(s->policy))
        (void)snprintf(out + n, cap - (size_t)n, "no partner data yet");
    else
        (void)snprintf(out + n, cap - (size_t)n, "partner data %llu%s", (unsigned long long)position,
                       status_can_serve(s) ? "" : ", not ready");
}

void status_write_json(const struct status *s, struct outbuf *o)
{
    const struct store_status store = read_store(s);
    uint64_t now_ms = clock_wall_ms();
    uint64_t up_ms = now_ms > s->started_wall_ms ? now_ms - s->started_wall_ms : 0;
    outbuf_fmt(o, "{\"version\":\"%s\",\"commit\":\"%s\",\"pid\":%ld", s->version, s->commit, (long)getpid());
    write_time(o, "started_at", s->started_wall_ms);
    outbuf_fmt(o, ",\"uptime_s\":%llu,\"workers\":%u,\"draining\":%s,\"phase\":\"%s\"",
               (unsigned long long)(up_ms / 1000), s->workers, is_draining(s) ? "true" : "false",
               drain_state_text(s->drain->state));
    outbuf_str(o, ",\"failed_checks\":[");
    bool ready = write_failed_checks(s, &store, o);
    outbuf_fmt(o, "],\"ready\":%s", ready ? "true" : "false");
    write_reload(s->reload, o);
    write_certificates(s, o);
    write_load(o);
    write_policy(s->policy, o);
    write_store(&store, o);
    outbuf_str(o, "}\n");
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
    char names[256];
    struct outbuf o = outbuf_of(names, sizeof names);
    return write_failed_checks(f->status, &f->store, &o);
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
