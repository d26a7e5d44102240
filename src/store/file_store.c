#include "store/file_store.h"

#include "base/clock.h"
#include "base/container.h"
#include "base/log.h"
#include "net/job.h"
#include "store/partner_apply.h"
#include "store/partner_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MESSAGES_LOGGED_MAX = 20 };

const struct file_store_options file_store_defaults = {
    .watch = {.quiet_ms = 200, .quiet_max_ms = 500, .poll_ms = 10000}, .slice_us = 4000};

enum file_store_state {
    FILE_STORE_IDLE = 0, /* no load */
    FILE_STORE_READING,  /* `load` is with its thread: only load->cancelled may be touched */
    FILE_STORE_APPLYING, /* `load` is ours; the idle handle applies it slice by slice */
    FILE_STORE_CLOSING,  /* `load` is NULL or with its thread; handles are closing */
};

/* What asked for a load; the largest wins when several wait. */
enum load_trigger {
    LOAD_NONE = 0,
    LOAD_IF_CHANGED, /* a directory event, or the regular look */
    LOAD_ALWAYS,     /* the operator */
};

/* One load, from the request to the last partner applied. */
struct load {
    struct job job; /* reads */
    struct file_store *owner;
    enum load_trigger trigger;
    uint64_t started_us;
    struct partner_file_seen last; /* what the load before saw */
    atomic_bool cancelled;         /* shared: set by the loop, read by its thread */
    enum partner_file_outcome outcome;
    struct partner_file file;
    struct partner_apply apply;
};

struct file_store {
    struct store store; /* first: a struct store * is a struct file_store * */
    /* set once */
    uv_loop_t *loop;
    struct policy *policy;
    struct file_store_options options;
    char *path;
    /* state */
    enum file_store_state state;
    enum load_trigger waiting; /* for the load that runs to end */
    struct partner_file_seen seen;
    struct store_status status;
    /* owned */
    struct load *load; /* NULL when idle */
    struct file_watch watch;
    uv_idle_t apply;
    bool is_apply_open, is_watch_open;
    void (*on_closed)(void *arg);
    void *on_closed_arg;
};

static void load_start(struct file_store *fs, enum load_trigger trigger);

static void set_state(struct file_store *fs, enum file_store_state to)
{
    static const unsigned moves[] = {
        [FILE_STORE_IDLE] = 1u << FILE_STORE_READING | 1u << FILE_STORE_CLOSING,
        [FILE_STORE_READING] = 1u << FILE_STORE_IDLE | 1u << FILE_STORE_APPLYING | 1u << FILE_STORE_CLOSING,
        [FILE_STORE_APPLYING] = 1u << FILE_STORE_IDLE | 1u << FILE_STORE_CLOSING,
        [FILE_STORE_CLOSING] = 0,
    };
    BUG_IF(!(moves[fs->state] >> to & 1), "file store: impossible change of state");
    fs->state = to;
}

/* --- results ---------------------------------------------------------------------------------------- */

/* "path", "path:line" or "path:line:column"; cut when the path is very long. */
static struct errmsg place_of(const char *path, const struct errmsg *m)
{
    struct errmsg place;
    if (m->line && m->column) {
        errmsg_set(&place, 0, 0, "%s:%u:%u", path, m->line, m->column);
    } else if (m->line) {
        errmsg_set(&place, 0, 0, "%s:%u", path, m->line);
    } else {
        errmsg_set(&place, 0, 0, "%s", path);
    }
    return place;
}

/* The message that a failed load leaves in the status. */
static struct errmsg summary_of(const struct file_store *fs, const struct record_messages *faults)
{
    struct errmsg summary, place = place_of(fs->path, &faults->list[0]);
    if (faults->total == 1) {
        errmsg_set(&summary, 0, 0, "%s: %s", place.text, faults->list[0].text);
    } else {
        errmsg_set(&summary, 0, 0, "%" PRIu64 " faults, the first: %s: %s", faults->total, place.text,
                   faults->list[0].text);
    }
    return summary;
}

static void log_messages(const struct file_store *fs, enum log_level level, const char *event,
                         const struct record_messages *m)
{
    uint32_t shown = m->n < MESSAGES_LOGGED_MAX ? m->n : MESSAGES_LOGGED_MAX;
    for (uint32_t i = 0; i < shown; i++) {
        struct errmsg place = place_of(fs->path, &m->list[i]);
        LOG_AT(level, event, KV_STR("at", place.text), KV_STR("problem", m->list[i].text));
    }
    if (m->total > shown) LOG_AT(level, event, KV_UINT("and_more", m->total - shown));
}

/* Logs and counts a load that failed; what was loaded before stays in force. */
static void load_failed(struct file_store *fs, const struct load *load)
{
    const struct record_messages *faults = &load->file.report.faults;
    struct errmsg summary = summary_of(fs, faults);
    /* A missing file is found missing at every look: it is logged once. */
    bool is_known = load->outcome == PARTNER_FILE_UNREADABLE && load->trigger == LOAD_IF_CHANGED &&
                    !fs->status.up && strcmp(summary.text, fs->status.last_error) == 0;
    if (is_known) return;
    struct policy_stats kept;
    policy_stats(fs->policy, &kept);
    fs->status.up = false;
    fs->status.load_failures_total++;
    fs->status.records_rejected = load->file.records_rejected;
    (void)span_to_cstr(span_str(summary.text), fs->status.last_error,
                       sizeof fs->status.last_error); /* same size */
    if (load->outcome == PARTNER_FILE_INVALID) log_messages(fs, LOG_ERROR, "store_record_error", faults);
    log_error("store_load_failed", KV_STR("file", fs->path),
              KV_UINT("records_rejected", load->file.records_rejected),
              KV_UINT("partners_kept", kept.partners), KV_STR("error", summary.text));
}

static void load_succeeded(struct file_store *fs, const struct load *load)
{
    fs->status.up = true;
    fs->status.loaded_at_ms = clock_wall_ms();
    fs->status.loads_total++;
    fs->status.records_rejected = 0;
    fs->status.load_us = clock_mono_us() - load->started_us;
    fs->status.last_error[0] = '\0';
    log_messages(fs, LOG_WARN, "store_record_warning", &load->file.report.warnings);
    log_info("store_loaded", KV_STR("file", fs->path), KV_UINT("partners", load->file.nentries),
             KV_UINT("changed", load->apply.changed), KV_UINT("removed", load->apply.removed),
             KV_UINT("load_ms", fs->status.load_us / 1000));
}

/* --- one load --------------------------------------------------------------------------------------- */

static struct load *load_create(struct file_store *fs, enum load_trigger trigger)
{
    struct load *load = calloc(1, sizeof *load);
    if (!load) return NULL;
    load->owner = fs;
    load->trigger = trigger;
    load->started_us = clock_mono_us();
    load->last = fs->seen;
    return load;
}

static void load_destroy(struct load *load)
{
    partner_file_deinit(&load->file);
    free(load);
}

/* [a thread of its own, or control at start] */
static void load_read(struct load *load)
{
    const struct partner_file_seen *last = load->trigger == LOAD_ALWAYS ? NULL : &load->last;
    load->outcome = partner_file_read(load->owner->path, last, &load->cancelled, &load->file);
}

/* Ends the load and starts the one that waited for it. */
static void load_end(struct file_store *fs)
{
    enum load_trigger waiting = fs->waiting;
    load_destroy(fs->load);
    fs->load = NULL;
    store_trim();
    set_state(fs, FILE_STORE_IDLE);
    fs->waiting = LOAD_NONE;
    if (waiting != LOAD_NONE) load_start(fs, waiting);
}

/* An empty file is what a rewrite in place looks like at its start; an operator never removes everybody
 * in this way. */
static bool would_remove_all(const struct file_store *fs, struct load *load)
{
    struct policy_stats loaded;
    policy_stats(fs->policy, &loaded);
    if (load->file.nentries > 0 || loaded.partners == 0) return false;
    load->outcome = PARTNER_FILE_INVALID;
    record_messages_add(
        &load->file.report.faults, 0, 0,
        "the file has no records, which would remove every partner; keep one, with \"enabled\": false");
    return true;
}

/* Looks at what was read. True when there are partners to apply. */
static bool load_accept(struct file_store *fs)
{
    struct load *load = fs->load;
    fs->seen = load->file.seen;
    if (load->outcome == PARTNER_FILE_UNCHANGED) return false;
    if (load->outcome == PARTNER_FILE_LOADED && !would_remove_all(fs, load)) {
        partner_apply_begin(&load->apply, fs->policy, &load->file);
        return true;
    }
    load_failed(fs, load);
    return false;
}

/* Applies partners for a while. True when the load is done, well or not. */
static bool load_apply(struct file_store *fs, uint64_t budget_us)
{
    struct load *load = fs->load;
    enum err e = partner_apply_step(&load->apply, budget_us);
    if (e == ERR_AGAIN) return false;
    if (e) {
        load->outcome = PARTNER_FILE_UNREADABLE;
        fs->seen.is_valid = false; /* so that the next look tries again */
        record_messages_add(&load->file.report.faults, 0, 0, "only some of the partners were updated: %s",
                            err_text(e));
        load_failed(fs, load);
    } else {
        load_succeeded(fs, load);
    }
    return true;
}

static void on_apply(uv_idle_t *idle)
{
    struct file_store *fs = idle->data;
    if (!load_apply(fs, fs->options.slice_us)) return;
    (void)uv_idle_stop(idle); /* cannot fail */
    load_end(fs);
}

static void release_if_closed(struct file_store *fs)
{
    if (fs->is_apply_open || fs->is_watch_open || fs->load) return;
    void (*on_closed)(void *arg) = fs->on_closed;
    void *arg = fs->on_closed_arg;
    free(fs->path);
    free(fs);
    if (on_closed) on_closed(arg);
}

static void read_aside(struct job *job)
{
    load_read(CONTAINER_OF(job, struct load, job));
}

static void on_read_done(struct job *job, enum err e)
{
    struct load *load = CONTAINER_OF(job, struct load, job);
    struct file_store *fs = load->owner;
    if (e) {
        load->outcome = PARTNER_FILE_UNREADABLE;
        record_messages_add(&load->file.report.faults, 0, 0, JOB_NO_THREAD);
    }
    if (fs->state == FILE_STORE_CLOSING) {
        load_destroy(load);
        fs->load = NULL;
        release_if_closed(fs);
        return;
    }
    if (!load_accept(fs)) {
        load_end(fs);
        return;
    }
    set_state(fs, FILE_STORE_APPLYING);
    (void)uv_idle_start(&fs->apply, on_apply); /* fails only without a callback */
}

/* Starts a load, or has it follow the one that runs. */
static void load_start(struct file_store *fs, enum load_trigger trigger)
{
    if (fs->state != FILE_STORE_IDLE) {
        if (trigger > fs->waiting) fs->waiting = trigger;
        return;
    }
    fs->load = load_create(fs, trigger);
    if (!fs->load) {
        fs->seen.is_valid = false; /* so that the next look tries again */
        log_error("store_load_failed", KV_STR("file", fs->path), KV_ERR(ERR_NOMEM));
        return;
    }
    set_state(fs, FILE_STORE_READING);
    job_start(&fs->load->job, fs->loop, read_aside, on_read_done);
}

/* The first load: all of it at once, on this thread. */
static enum err load_now(struct file_store *fs)
{
    fs->load = load_create(fs, LOAD_ALWAYS);
    if (!fs->load) return ERR_NOMEM;
    set_state(fs, FILE_STORE_READING);
    load_read(fs->load);
    if (load_accept(fs)) {
        set_state(fs, FILE_STORE_APPLYING);
        (void)load_apply(fs, 0); /* the result is in the status */
    }
    load_end(fs);
    return ERR_OK;
}

static void on_look(struct file_watch *watch)
{
    load_start(CONTAINER_OF(watch, struct file_store, watch), LOAD_IF_CHANGED);
}

/* --- store_ops -------------------------------------------------------------------------------------- */

static void file_store_reload(struct store *s)
{
    struct file_store *fs = (struct file_store *)s;
    if (fs->state != FILE_STORE_CLOSING) load_start(fs, LOAD_ALWAYS);
}

/* The file is the operator's word: nothing is ever held. */
static uint64_t file_store_confirm(struct store *s)
{
    (void)s;
    return 0;
}

static void file_store_status(const struct store *s, struct store_status *out)
{
    *out = ((const struct file_store *)s)->status;
}

static void on_apply_closed(uv_handle_t *handle)
{
    struct file_store *fs = handle->data;
    fs->is_apply_open = false;
    release_if_closed(fs);
}

static void on_watch_closed(struct file_watch *watch)
{
    struct file_store *fs = CONTAINER_OF(watch, struct file_store, watch);
    fs->is_watch_open = false;
    release_if_closed(fs);
}

static void file_store_close(struct store *s, void (*on_closed)(void *arg), void *arg)
{
    struct file_store *fs = (struct file_store *)s;
    if (fs->state == FILE_STORE_APPLYING) {
        partner_apply_abort(&fs->load->apply);
        load_destroy(fs->load);
        fs->load = NULL;
    } else if (fs->state == FILE_STORE_READING) {
        atomic_store(&fs->load->cancelled, true); /* its thread ends by it */
    }
    set_state(fs, FILE_STORE_CLOSING);
    fs->on_closed = on_closed;
    fs->on_closed_arg = arg;
    if (fs->is_apply_open) uv_close((uv_handle_t *)&fs->apply, on_apply_closed);
    if (fs->is_watch_open)
        file_watch_close(&fs->watch, on_watch_closed); /* frees `fs`, perhaps now */
    else
        release_if_closed(fs);
}

static const struct store_ops file_store_ops = {.reload = file_store_reload,
                                                .confirm = file_store_confirm,
                                                .status = file_store_status,
                                                .close = file_store_close};

/* --- open ------------------------------------------------------------------------------------------- */

static enum err handles_open(struct file_store *fs)
{
    if (uv_idle_init(fs->loop, &fs->apply)) return ERR_IO;
    fs->apply.data = fs;
    fs->is_apply_open = fs->is_watch_open = true;
    return file_watch_open(&fs->watch, fs->loop, fs->path, &fs->options.watch, on_look);
}

enum err file_store_open(uv_loop_t *loop, const char *path, struct policy *policy,
                         const struct file_store_options *options, struct store **out)
{
    struct file_store *fs = calloc(1, sizeof *fs);
    if (!fs) return ERR_NOMEM;
    fs->store.ops = &file_store_ops;
    fs->loop = loop;
    fs->policy = policy;
    fs->options = *options;
    fs->path = strdup(path);
    enum err e = fs->path ? handles_open(fs) : ERR_NOMEM;
    if (!e) e = load_now(fs);
    if (e) {
        file_store_close(&fs->store, NULL, NULL);
        return e;
    }
    *out = &fs->store;
    return ERR_OK;
}

/* --- check ------------------------------------------------------------------------------------------ */

static void print_messages(const char *path, const struct record_messages *m, FILE *out)
{
    for (uint32_t i = 0; i < m->n; i++)
        fprintf(out, "%s: warning: %s\n", place_of(path, &m->list[i]).text, m->list[i].text);
    if (m->total > m->n) fprintf(out, "%s: warning: and %" PRIu64 " more\n", path, m->total - m->n);
}

void file_store_check(const char *path, FILE *out)
{
    static const atomic_bool never;
    struct partner_file file;
    enum partner_file_outcome outcome = partner_file_read(path, NULL, &never, &file);
    print_messages(path, &file.report.faults, out);
    print_messages(path, &file.report.warnings, out);
    if (outcome != PARTNER_FILE_LOADED)
        fprintf(out, "%s: warning: a gateway that starts now answers 503 until this file is right\n", path);
    partner_file_deinit(&file);
}
