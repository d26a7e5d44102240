#include "control/reload.h"

#include "base/clock.h"
#include "base/container.h"
#include "base/log.h"
#include "config/diff.h"
#include "control/certificates.h"
#include "control/notify.h"

#include <stdlib.h>

enum { CHANGES_LOGGED_MAX = 100 };

static const struct file_watch_options watch_options = {
    .quiet_ms = 200, .quiet_max_ms = 500, .poll_ms = 10000};

static void start(struct reload *r);

static void set_state(struct reload *r, enum reload_state to)
{
    static const unsigned moves[] = {
        [RELOAD_IDLE] = 1u << RELOAD_RESOLVING | 1u << RELOAD_PAUSED | 1u << RELOAD_CLOSED,
        [RELOAD_RESOLVING] = 1u << RELOAD_PUBLISHING | 1u << RELOAD_IDLE | 1u << RELOAD_CLOSED,
        [RELOAD_PUBLISHING] = 1u << RELOAD_IDLE | 1u << RELOAD_CLOSED,
        [RELOAD_PAUSED] = 1u << RELOAD_IDLE | 1u << RELOAD_CLOSED,
        [RELOAD_CLOSED] = 0,
    };
    BUG_IF(!(moves[r->state] >> to & 1), "a reload makes a move that does not exist");
    r->state = to;
}

static const char *trigger_text(enum reload_trigger t)
{
    static const char *const texts[] = {
        [RELOAD_BY_NOBODY] = "-",  [RELOAD_BY_START] = "start",     [RELOAD_BY_SIGNAL] = "signal",
        [RELOAD_BY_FILE] = "file", [RELOAD_BY_CONTROL] = "control", [RELOAD_BY_CERTIFICATES] = "certificates",
    };
    return texts[t];
}

static bool is_renewal(const struct reload *r)
{
    return r->trigger == RELOAD_BY_CERTIFICATES;
}

/* --- results --------------------------------------------------------------------------------------- */

static void answer(struct reload *r, struct reload_waiter **list, enum reload_outcome outcome,
                   const char *text)
{
    bool is_done = outcome == RELOAD_DONE;
    const struct reload_result result = {outcome, r->status.generation, is_done ? text : NULL,
                                         is_done ? NULL : text};
    struct reload_waiter *w = *list;
    *list = NULL;
    while (w) {
        struct reload_waiter *next = w->next; /* on_done() may free w */
        w->on_done(w, &result);
        w = next;
    }
}

/* A reload renews as well. */
static void remember(enum reload_trigger *which, enum reload_trigger trigger)
{
    if (!*which || trigger != RELOAD_BY_CERTIFICATES) *which = trigger;
}

/* Starts the reload that was requested while another one ran. */
static void start_next(struct reload *r)
{
    if (!r->again || r->state != RELOAD_IDLE) return;
    r->trigger = r->again;
    r->again = RELOAD_BY_NOBODY;
    r->waiters = r->next_waiters;
    r->next_waiters = NULL;
    start(r);
}

/* Ends the reload that runs: counts it and answers its waiters. */
static void conclude(struct reload *r, enum reload_outcome outcome, const char *text)
{
    if (!is_renewal(r)) {
        r->status.total[outcome]++;
        r->status.last_successful = outcome == RELOAD_DONE;
        notify_reloaded(outcome == RELOAD_DONE, text, r->status.generation);
    }
    loop_deadline_clear(r->deployment->loop, &r->bound);
    if (r->state == RELOAD_RESOLVING || r->state == RELOAD_PUBLISHING) set_state(r, RELOAD_IDLE);
    answer(r, &r->waiters, outcome, text);
    start_next(r);
}

/* One line per error. The lines of a report that are indented (the excerpt, what was expected) belong to the
 * error before them: the excerpt is left out here, since the place is in the error. */
static void log_reasons(const struct reload *r, const char *text)
{
    while (*text) {
        const char *end = strchrnul(text, '\n');
        if (*text != ' ')
            log_error("config_reload_failed", KV_STR("trigger", trigger_text(r->trigger)),
                      KV_UINT("generation", r->status.generation),
                      KV_SPAN("error", span_of(text, (size_t)(end - text))));
        else if (span_starts(span_str(text), SPAN("      = ")))
            log_error("config_reload_failed", KV_STR("trigger", trigger_text(r->trigger)),
                      KV_SPAN("hint", span_of(text + 8, (size_t)(end - text) - 8)));
        text = *end ? end + 1 : end;
    }
}

static void fail(struct reload *r, const char *text)
{
    bool renews = is_renewal(r);
    if (!renews) log_reasons(r, text);
    free(r->plan);
    r->plan = NULL;
    conclude(r, RELOAD_FAILED, text);
    if (renews) certificate_watch_failed(&r->certificates, text);
}

/* Workers hang: what was published last may still be theirs, so it stays, and no other generation is made
 * before they go on. Then this reload is done anew, and ends as any other does. */
static void fail_hanging(struct reload *r, const char *which)
{
    struct errmsg why;
    unsigned hang = r->rollout.nwaiting, all = r->deployment->fleet.n;
    errmsg_set(&why, 0, 0,
               "%u of %u workers hang, and have not taken over %s: %sstart the gateway anew (docs/ALERTS.md, "
               "ProofgwWorkerSilent)",
               hang, all, which, hang < all ? "upgrade (SIGUSR2) or " : "");
    remember(&r->missed, r->trigger);
    if (is_renewal(r) && r->state == RELOAD_PUBLISHING)
        log_reasons(r, why.text); /* certificates_refused says the rest */
    fail(r, why.text);
}

struct tally {
    unsigned live, restart;
};

static void count_change(const struct config_change *c, void *arg)
{
    struct tally *t = arg;
    if (c->live)
        t->live++;
    else
        t->restart++;
    if (t->live + t->restart > CHANGES_LOGGED_MAX) return;
    if (c->live)
        log_info("config_changed", KV_STR("key", c->path), KV_STR("before", c->before),
                 KV_STR("after", c->after));
    else
        log_warn("config_needs_restart", KV_STR("key", c->path), KV_STR("running", c->before),
                 KV_STR("file", c->after));
}

/* --- the way --------------------------------------------------------------------------------------- */

static void log_certificate(const struct tls_certificate *c, void *arg)
{
    char until[CLOCK_RFC3339_LEN];
    (void)arg;
    clock_rfc3339(c->not_after_ms, until);
    log_info("certificates_replaced", KV_STR("file", c->file), KV_STR("names", c->names),
             KV_SPAN("not_after", span_of(until, sizeof until)));
}

/* Every worker has acknowledged the generation. */
static void on_done(struct rollout *rollout)
{
    struct reload *r = CONTAINER_OF(rollout, struct reload, rollout);
    char *plan = r->plan;
    r->plan = NULL;
    certificate_watch_follow(&r->certificates);
    if (!plan) { /* the start, or one that was given up */
        if (r->state == RELOAD_PUBLISHING) set_state(r, RELOAD_IDLE);
        if (r->missed) remember(&r->again, r->missed);
        r->missed = RELOAD_BY_NOBODY;
        start_next(r);
        return;
    }
    if (is_renewal(r)) {
        r->certificates.status.renewals_total++;
        certificates_each(&r->deployment->current->tls, log_certificate, NULL);
        conclude(r, RELOAD_DONE, plan);
        free(plan);
        return;
    }
    r->status.generation = r->deployment->current->number;
    r->status.success_wall_ms = clock_wall_ms();
    log_info("config_reloaded", KV_UINT("generation", r->status.generation),
             KV_STR("trigger", trigger_text(r->trigger)),
             KV_UINT("duration_ms", (clock_mono_us() - r->started_us) / 1000));
    conclude(r, RELOAD_DONE, plan);
    free(plan);
}

/* Nothing is waited for any more. */
static void publish(struct reload *r)
{
    const struct deployment *d = r->deployment;
    struct tally tally = {0};
    struct errmsg why;
    if (rollout_listen(&r->rollout, &why)) {
        fail(r, why.text);
        return;
    }
    if (!is_renewal(r))
        config_diff(d->first->config, d->current->config, r->rollout.next->config, count_change, &tally);
    if (tally.live + tally.restart > CHANGES_LOGGED_MAX)
        log_info("config_changed", KV_UINT("and_more", tally.live + tally.restart - CHANGES_LOGGED_MAX));
    set_state(r, RELOAD_PUBLISHING);
    loop_deadline(d->loop, &r->bound, RELOAD_PUBLISH_MS);
    rollout_publish(&r->rollout);
}

static void on_progress(struct rollout *rollout)
{
    struct reload *r = CONTAINER_OF(rollout, struct reload, rollout);
    if (!rollout_unresolved(rollout)) publish(r);
}

static void on_bound(struct wheel_entry *e)
{
    struct reload *r = CONTAINER_OF(e, struct reload, bound);
    struct errmsg why;
    if (loop_deadline_is_overdue(r->deployment->loop, e)) {
        loop_deadline(r->deployment->loop, e,
                      r->state == RELOAD_PUBLISHING ? RELOAD_PUBLISH_MS : RELOAD_RESOLVE_MS);
        return;
    }
    if (r->state == RELOAD_PUBLISHING) {
        fail_hanging(r, "this one");
        return;
    }
    errmsg_set(&why, 0, 0, "%s: error: the backend %s could not be resolved within %d s", r->path,
               rollout_unresolved(&r->rollout), RELOAD_RESOLVE_MS / 1000);
    rollout_abandon(&r->rollout);
    fail(r, why.text);
}

static void write_json_string(const char *text, size_t n, FILE *out)
{
    size_t room = 6 * n + 2; /* everything escaped */
    char *escaped = malloc(room);
    if (!escaped) {
        fputs("null", out);
        return;
    }
    struct outbuf o = outbuf_of(escaped, room);
    outbuf_json(&o, span_of(text, n));
    (void)fwrite(o.p, 1, o.n, out); /* to memory; fclose() tells */
    free(escaped);
}

/* NULL when memory is out. Owns: the caller. */
static char *write_plan(const struct deployment *d, const struct config *next)
{
    const struct config *first = d->first->config, *now = d->current->config;
    char *text = NULL, *plan = NULL;
    size_t n = 0, nplan = 0;
    FILE *lines = open_memstream(&text, &n), *out = open_memstream(&plan, &nplan);
    if (lines) config_plan_text(first, now, next, lines);
    bool ok = lines && fclose(lines) == 0 && out;
    if (ok) {
        fputs("\"changes\":", out);
        config_plan_json(first, now, next, out);
        fputs(",\"text\":", out);
        write_json_string(text, n, out);
    }
    free(text);
    if (out && fclose(out) == 0 && ok) return plan;
    free(plan);
    return NULL;
}

static void build(struct reload *r, struct config *config)
{
    struct deployment *d = r->deployment;
    struct errmsg why;
    struct generation *next = generation_create(d->current->number + !is_renewal(r), config);
    if (!next) config_unref(config);
    r->plan = next ? write_plan(d, config) : NULL;
    if (!r->plan) {
        generation_unref(next);
        fail(r, "out of memory");
        return;
    }
    if (rollout_prepare(&r->rollout, d, next, &why)) {
        fail(r, why.text);
        return;
    }
    set_state(r, RELOAD_RESOLVING);
    if (rollout_unresolved(&r->rollout))
        loop_deadline(d->loop, &r->bound, RELOAD_RESOLVE_MS);
    else
        publish(r);
}

static enum err read_and_load(const char *path, uint8_t digest[static 32], struct config **config,
                              FILE *report)
{
    char *bytes;
    size_t n;
    memset(digest, 0, 32); /* no digest: a file that cannot be read now counts as changed once it can be */
    enum err e = config_read(path, false, &bytes, &n, report);
    if (e) return e;
    struct span text = span_of(bytes, n);
    e = config_digest(text, digest); /* also of one that is faulty */
    if (e == ERR_OK) e = config_load_text(path, text, config, report);
    free(bytes);
    return e;
}

/* Reads the file; what is wrong with it is in `*report`, which is the caller's, also on failure; NULL when
 * memory is out. */
static enum err load(const char *path, uint8_t digest[static 32], struct config **config, char **report)
{
    size_t n = 0;
    *report = NULL;
    FILE *out = open_memstream(report, &n);
    if (!out) return ERR_NOMEM;
    enum err e = read_and_load(path, digest, config, out);
    if (fclose(out) == 0) return e;
    if (e == ERR_OK) config_unref(*config);
    free(*report);
    *report = NULL;
    return ERR_NOMEM;
}

static void start(struct reload *r)
{
    struct config *config;
    char *report;
    r->started_us = clock_mono_us();
    if (!is_renewal(r)) notify_reloading();
    if (r->rollout.nwaiting) {
        fail_hanging(r, "the one before");
        return;
    }
    if (is_renewal(r)) {
        build(r, config_ref(r->deployment->current->config));
        return;
    }
    if (load(r->path, r->digest, &config, &report))
        fail(r, report && *report ? report : "out of memory");
    else
        build(r, config);
    free(report);
}

static void note_refused(struct reload *r, enum reload_trigger trigger)
{
    if (trigger == RELOAD_BY_CERTIFICATES) return; /* there are no waiters */
    r->status.total[RELOAD_REFUSED]++;
    log_warn("config_reload_refused", KV_STR("trigger", trigger_text(trigger)), KV_STR("cause", "draining"));
}

void reload_request(struct reload *r, enum reload_trigger trigger, struct reload_waiter *w)
{
    struct reload_waiter **list = r->state == RELOAD_IDLE ? &r->waiters : &r->next_waiters;
    if (w) {
        w->next = *list;
        *list = w;
    }
    if (r->state == RELOAD_CLOSED) {
        note_refused(r, trigger);
        answer(r, &r->next_waiters, RELOAD_REFUSED, "the gateway is draining\n");
    } else if (r->state != RELOAD_IDLE) {
        remember(&r->again, trigger);
    } else {
        r->trigger = trigger;
        start(r);
    }
}

/* True when the file can be read, and is not what was read last; once for each content. */
static bool has_changed(struct reload *r)
{
    char *bytes;
    size_t n;
    uint8_t digest[sizeof r->digest];
    FILE *nowhere =
        fopen("/dev/null", "we"); /* a file that is missing while it is being replaced is not reported */
    if (!nowhere) return false;
    bool changed = false;
    if (config_read(r->path, false, &bytes, &n, nowhere) == ERR_OK) {
        changed = config_digest(span_of(bytes, n), digest) == ERR_OK &&
                  memcmp(digest, r->digest, sizeof digest) != 0;
        free(bytes);
    }
    (void)fclose(nowhere); /* nothing to lose */
    if (changed) memcpy(r->digest, digest, sizeof digest);
    return changed;
}

static void on_look(struct file_watch *watch)
{
    struct reload *r = CONTAINER_OF(watch, struct reload, watch);
    loop_turn(r->deployment->loop);
    if (!r->deployment->current->config->reload_on_change || r->state == RELOAD_CLOSED) return;
    if (has_changed(r)) reload_request(r, RELOAD_BY_FILE, NULL);
}

bool reload_pause(struct reload *r)
{
    if (r->state != RELOAD_IDLE) return false;
    set_state(r, RELOAD_PAUSED);
    return true;
}

void reload_resume(struct reload *r)
{
    if (r->state != RELOAD_PAUSED) return;
    set_state(r, RELOAD_IDLE);
    start_next(r);
}

enum err reload_plan(const struct reload *r, char **plan, char **reasons)
{
    struct config *config;
    uint8_t digest[32];
    struct errmsg why;
    *plan = NULL;
    enum err e = load(r->path, digest, &config, reasons);
    if (e) return e;
    free(*reasons); /* empty */
    *reasons = NULL;
    if (rollout_check(r->deployment, config, &why)) {
        *reasons = strdup(why.text);
        e = *reasons ? ERR_PARSE : ERR_NOMEM;
    } else {
        *plan = write_plan(r->deployment, config);
        e = *plan ? ERR_OK : ERR_NOMEM;
    }
    config_unref(config);
    return e;
}

void reload_close(struct reload *r)
{
    static const char text[] = "the gateway is draining\n";
    bool was_resolving = r->state == RELOAD_RESOLVING;
    if (r->state == RELOAD_CLOSED) return;
    certificate_watch_close(&r->certificates);
    file_watch_close(&r->watch, NULL); /* harmless when the start did not get so far */
    set_state(r, RELOAD_CLOSED);       /* what is being published still ends */
    if (r->deployment) loop_deadline_clear(r->deployment->loop, &r->bound);
    if (was_resolving) {
        rollout_abandon(&r->rollout);
        free(r->plan);
        r->plan = NULL;
        note_refused(r, r->trigger);
        answer(r, &r->waiters, RELOAD_REFUSED, text);
    }
    if (r->again) note_refused(r, r->again); /* a signal has nobody who waits for an answer */
    r->again = RELOAD_BY_NOBODY;
    answer(r, &r->next_waiters, RELOAD_REFUSED, text);
}

static void on_certificates(struct certificate_watch *w)
{
    reload_request(CONTAINER_OF(w, struct reload, certificates), RELOAD_BY_CERTIFICATES, NULL);
}

enum err reload_open(struct reload *r, struct deployment *d)
{
    struct errmsg why;
    *r = (struct reload){.deployment = d, .state = RELOAD_PUBLISHING, .trigger = RELOAD_BY_START};
    r->rollout.on_progress = on_progress;
    r->rollout.on_done = on_done;
    wheel_entry_init(&r->bound, on_bound);
    certificate_watch_open(&r->certificates, d, on_certificates);
    memcpy(r->digest, d->first->config->digest, sizeof r->digest);
    r->path = d->first->config->path;
    struct generation *next = generation_create(d->first->number, config_ref(d->first->config));
    if (!next) {
        config_unref(d->first->config); /* the reference that it would have taken */
        return ERR_NOMEM;
    }
    enum err e = rollout_prepare(&r->rollout, d, next, &why);
    if (e == ERR_OK) e = rollout_listen(&r->rollout, &why);
    if (e) {
        log_error("listen_failed", KV_STR("cause", why.text));
        return e;
    }
    r->status =
        (struct reload_status){.last_successful = true, .success_wall_ms = clock_wall_ms(), .generation = 1};
    rollout_publish(&r->rollout);
    for (unsigned i = 0; i < d->fleet.n; i++)
        if (r->rollout.updates[i]->nfailed) return ERR_IO;
    return file_watch_open(&r->watch, &d->loop->uv, r->path, &watch_options, on_look);
}
