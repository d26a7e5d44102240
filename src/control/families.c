#include "control/families.h"

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

/* --- values ---------------------------------------------------------------------------------------- */

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
    f->store = status_read_store(s);
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

static const char *outcome_text(enum reload_outcome outcome)
{
    static const char *const text[] = {
        [RELOAD_DONE] = "done", [RELOAD_FAILED] = "failed", [RELOAD_REFUSED] = "refused"};
    return text[outcome];
}

/* --- families -------------------------------------------------------------------------------------- */

/* name, kind, value in thousandths?, value, help */
/* clang-format off */
#define FAMILY_MAP(XX) \
    XX("proofgw_ready", GAUGE, false, status_is_ready(f->status, &f->store), \
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

/* Counters with one label: name, label, how many values it has, value `i`, its count, help */
#define LABELLED_MAP(XX) \
    XX("proofgw_store_full_loads_total", "reason", STORE_LOAD_REASONS, \
       store_load_reason_text((enum store_load_reason)i), f->store.full_loads_total[i], \
       "With Redis: complete loads, by the reason why the change log was not enough.") \
    XX("proofgw_config_reloads_total", "result", RELOAD_REFUSED + 1, \
       outcome_text((enum reload_outcome)i), f->reload.total[i], \
       "Reloads of the configuration: done, failed (nothing has changed, or a worker hangs), refused (the process is about to end).") \
    XX("proofgw_upgrades_total", "result", HANDOVER_RESULTS, \
       handover_result_text((enum handover_result)i), f->status->handover->total[i], \
       "Upgrades by SIGUSR2: done (this process is about to end), failed (it goes on), refused (not the moment).") \
    XX("proofgw_store_away_total", "reason", STORE_AWAY_REASONS, \
       store_away_reason_text((enum store_away_reason)i), f->store.away_total[i], \
       "With Redis: how often the gateway fell out of step with it, or tried in vain to come back, by the reason.")
/* clang-format on */

#define BUILD_INFO_NAME "proofgw_build_info"
#define BUILD_INFO_HELP "Version and commit of the running binary; the value is always 1."
#define EXPIRY_NAME     "proofgw_tls_cert_not_after_timestamp_seconds"
#define EXPIRY_HELP     "When the certificates that the gateway shows expire, by file."

static void write_expiry(const struct tls_certificate *c, void *arg)
{
    const struct metric_label file = {"file", c->file};
    metrics_sample_milli(arg, EXPIRY_NAME, &file, 1, c->not_after_ms);
}

void families_write(const struct status *s, struct outbuf *o)
{
    struct facts facts, *f = &facts;
    const struct metric_label build[] = {{"version", s->version}, {"commit", s->commit}};
    read_facts(s, f);
    metrics_family(o, BUILD_INFO_NAME, METRIC_GAUGE, BUILD_INFO_HELP);
    metrics_sample(o, BUILD_INFO_NAME, build, 2, 1);
#define XX(name, label, values, text, count, help)                                                           \
    metrics_family(o, name, METRIC_COUNTER, help);                                                           \
    for (unsigned i = 0; i < (values); i++)                                                                  \
        metrics_sample(o, name, &(const struct metric_label){label, text}, 1, count);
    LABELLED_MAP(XX)
#undef XX
    metrics_family(o, EXPIRY_NAME, METRIC_GAUGE, EXPIRY_HELP);
    if (s->deployment->current) certificates_each(&s->deployment->current->tls, write_expiry, o);
#define XX(name, kind, milli, value, help)                                                                   \
    metrics_family(o, name, METRIC_##kind, help);                                                            \
    (milli ? metrics_sample_milli : metrics_sample)(o, name, NULL, 0, (uint64_t)(value));
    FAMILY_MAP(XX)
#undef XX
}

void families_reference(struct outbuf *o)
{
    static const char *const kinds[] = {[METRIC_COUNTER] = "counter", [METRIC_GAUGE] = "gauge"};
    outbuf_str(o, "\nOf the process as a whole; docs/DATA.md explains the reasons:\n\n"
                  "| Metric | Type | Labels | Meaning |\n|---|---|---|---|\n"
                  "| `" BUILD_INFO_NAME "` | gauge | `version`, `commit` | " BUILD_INFO_HELP " |\n");
#define XX(name, label, values, text, count, help)                                                           \
    outbuf_str(o, "| `" name "` | counter | `" label "` | " help " |\n");
    LABELLED_MAP(XX)
#undef XX
    outbuf_str(o, "| `" EXPIRY_NAME "` | gauge | `file` | " EXPIRY_HELP " |\n");
#define XX(name, kind, milli, value, help)                                                                   \
    outbuf_fmt(o, "| `%s` | %s | | %s |\n", name, kinds[METRIC_##kind], help);
    FAMILY_MAP(XX)
#undef XX
}
