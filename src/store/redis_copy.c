#include "store/redis_sync_state.h"

#include "base/clock.h"
#include "base/container.h"
#include "base/log.h"
#include "net/job.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
    CHUNK_BYTES = 1 << 20,
    RECORDS_PER_COLLECT = 10000,
    REST_FACTOR = 20, /* writing takes at most a twentieth of the time */
    LAST_TRIES = 200, /* at the end, while another gateway writes: 2 s */
};

/* One snapshot being written: the loop packs a megabyte, a thread writes it, and so on. */
struct redis_copy {
    struct job job;
    struct redis_sync *sync;
    /* the thread's while it works */
    char *path; /* owned */
    struct snapshot_head head;
    struct snapshot_foot foot;
    struct snapshot_writer *writer; /* owned; NULL before the first chunk and after the last */
    struct bytes chunk;
    bool is_last;
    enum err error;
    struct errmsg why;
    /* the loop's */
    uint32_t at; /* the next index of the policy */
    uint64_t started_us;
    bool is_aborted;
};

static void pack_next(struct redis_copy *copy);

/* --- writing ---------------------------------------------------------------------------------------- */

static void copy_free(struct redis_copy *copy)
{
    snapshot_abort(copy->writer); /* NULL when it is complete */
    bytes_deinit(&copy->chunk);
    free(copy->path);
    free(copy);
}

/* [its thread; the loop at the end] */
static void write_chunk(struct redis_copy *copy)
{
    if (!copy->writer) copy->error = snapshot_create(copy->path, &copy->head, &copy->writer, &copy->why);
    if (!copy->error)
        copy->error = snapshot_append(copy->writer, span_of(copy->chunk.p, copy->chunk.n), &copy->why);
    if (copy->error || !copy->is_last) return;
    copy->error = snapshot_commit(copy->writer, &copy->foot, &copy->why);
    copy->writer = NULL;
}

/* [its thread] */
static void write_aside(struct job *job)
{
    write_chunk(CONTAINER_OF(job, struct redis_copy, job));
}

static void report(struct redis_copy *copy)
{
    struct redis_sync *s = copy->sync;
    uint64_t took_ms = (clock_mono_us() - copy->started_us) / 1000;
    if (copy->error == ERR_AGAIN) { /* another process is writing it: as good, and tried again later */
        log_info("store_snapshot_postponed", KV_STR("cause", copy->why.text));
    } else if (copy->error) {
        s->status.snapshot_failures_total++;
        log_error("store_snapshot_failed", KV_STR("cause", copy->why.text));
    } else if (copy->is_last) {
        s->status.snapshot_at_ms = clock_wall_ms();
        s->copy_pause_ms = took_ms * REST_FACTOR;
        log_info("store_snapshot", KV_STR("file", copy->path), KV_UINT("sequence", copy->head.sequence),
                 KV_UINT("took_ms", took_ms));
    }
}

static void finish(struct redis_copy *copy)
{
    struct redis_sync *s = copy->sync;
    report(copy);
    if (copy->error || !copy->is_last) s->is_copy_due = true;
    s->copy = NULL;
    copy_free(copy);
    if (s->state == SYNC_CLOSING) {
        redis_sync_release_if_closed(s);
    } else if (s->is_copy_due) {
        redis_copy_schedule(s);
    }
}

static void on_written(struct job *job, enum err e)
{
    struct redis_copy *copy = CONTAINER_OF(job, struct redis_copy, job);
    loop_turn(copy->sync->loop);
    if (e) {
        copy->error = e;
        errmsg_set(&copy->why, 0, 0, "snapshot %s: %s", copy->path, JOB_NO_THREAD);
    }
    if (copy->error || copy->is_last || copy->is_aborted)
        finish(copy);
    else
        pack_next(copy);
}

/* Errors: ERR_NOMEM, noted in `copy`. */
static enum err pack_chunk(struct redis_copy *copy)
{
    const struct redis_sync *s = copy->sync;
    copy->chunk.n = 0;
    enum err e = ledger_pack(&s->ledger, &copy->at, &copy->chunk, CHUNK_BYTES);
    copy->is_last = e == ERR_OK;
    if (e && e != ERR_AGAIN) {
        copy->error = e;
        errmsg_set(&copy->why, 0, 0, "%s", err_text(e));
        return e;
    }
    copy->foot = (struct snapshot_foot){.exact_from = s->position.sequence,
                                        .count_bias = s->position.count_bias,
                                        .digest_bias = s->position.digest_bias};
    if (copy->foot.exact_from < s->position.exact_from) copy->foot.exact_from = s->position.exact_from;
    return ERR_OK;
}

static void pack_next(struct redis_copy *copy)
{
    struct redis_sync *s = copy->sync;
    if (pack_chunk(copy)) {
        finish(copy);
        return;
    }
    job_start(&copy->job, &s->loop->uv, write_aside, on_written);
}

static void write_head(const struct redis_sync *s, struct snapshot_head *head)
{
    uint64_t now_ms = clock_wall_ms(), staleness_ms = redis_sync_staleness_ms(s);
    head->saved_at_ms = now_ms > staleness_ms ? now_ms - staleness_ms : 0;
    head->sequence = s->position.sequence;
    memcpy(head->nonce, s->position.nonce, sizeof s->position.nonce);
    memcpy(head->epoch, s->position.epoch, sizeof s->position.epoch);
    (void)span_to_cstr(span_str(s->config->redis.tag), head->tag, sizeof head->tag); /* at most 64 */
}

static void on_timer(uv_timer_t *timer)
{
    struct redis_sync *s = timer->data;
    loop_turn(s->loop);
    bool is_settled = s->position.is_known && s->state != SYNC_APPLYING;
    if (!is_settled) return; /* the end of the load asks again */
    struct redis_copy *copy = calloc(1, sizeof *copy);
    char *path = strdup(s->config->snapshot);
    if (!copy || !path) {
        free(copy);
        free(path);
        redis_copy_schedule(s);
        return;
    }
    copy->sync = s;
    copy->path = path;
    copy->started_us = clock_mono_us();
    write_head(s, &copy->head);
    s->copy = copy;
    s->is_copy_due = false;
    pack_next(copy);
}

void redis_copy_schedule(struct redis_sync *s)
{
    uint64_t ms = s->options.snapshot_quiet_ms;
    if (!s->config->snapshot || s->state == SYNC_CLOSING) return;
    s->is_copy_due = true;
    if (s->copy || uv_is_active((uv_handle_t *)&s->timers[SYNC_COPY])) return;
    if (ms < s->copy_pause_ms) ms = s->copy_pause_ms;
    (void)uv_timer_start(&s->timers[SYNC_COPY], on_timer, ms, 0); /* fails only while closing */
}

void redis_copy_abort(struct redis_sync *s)
{
    if (s->copy) s->copy->is_aborted = true; /* it ends when its thread is done with its chunk */
}

/* There is no later for the last one: another gateway that is writing is waited for, but not for long. */
static void write_last_chunk(struct redis_copy *copy)
{
    const struct timespec nap = {.tv_nsec = 10 * 1000 * 1000};
    write_chunk(copy);
    for (unsigned tries = 1; copy->error == ERR_AGAIN && tries < LAST_TRIES; tries++) {
        (void)nanosleep(&nap, NULL); /* cut short by a signal, it tries sooner */
        write_chunk(copy);
    }
}

void redis_copy_flush(struct redis_sync *s)
{
    if (!s->is_copy_due || !s->position.is_known || !s->config->snapshot) return;
    struct redis_copy *copy = calloc(1, sizeof *copy);
    char *path = strdup(s->config->snapshot);
    if (!copy || !path) { /* the file before it stays, and can be loaded at its own position */
        free(copy);
        free(path);
        return;
    }
    *copy = (struct redis_copy){.sync = s, .path = path, .started_us = clock_mono_us()};
    write_head(s, &copy->head);
    while (!copy->error && !copy->is_last)
        if (pack_chunk(copy) == ERR_OK) write_last_chunk(copy);
    report(copy);
    s->is_copy_due = false;
    copy_free(copy);
}

/* --- loading ---------------------------------------------------------------------------------------- */

struct loading {
    struct redis_sync *sync;
    uint64_t count, digest;
};

static void take_number(uint64_t nrecords, void *arg)
{
    const struct loading *l = arg;
    ledger_sync_begin(&l->sync->ledger, nrecords);
}

/* A partner that was removed and added again while the file was written may be in it twice, each time as it
 * was then: the first one is forgotten, as its removal would have it. */
static enum err forget_earlier(struct loading *l, struct span id)
{
    struct ledger *ledger = &l->sync->ledger;
    uint64_t version = ledger_version(ledger, id);
    if (!version) return ERR_OK;
    l->count--;
    l->digest ^= redis_hasher_record(l->sync->hasher, id, version);
    return ledger_remove(ledger, id);
}

static enum err take_record(const struct packed *r, void *arg)
{
    struct loading *l = arg;
    bool changed;
    if (r->flags & PACKED_DELETED) return ERR_PARSE;
    enum err e = forget_earlier(l, r->id);
    if (e) return e;
    l->count++;
    l->digest ^= redis_hasher_record(l->sync->hasher, r->id, r->version);
    if (l->count % RECORDS_PER_COLLECT == 0) policy_collect(l->sync->policy); /* tables that were outgrown */
    return ledger_sync_put(&l->sync->ledger, r, &changed);
}

static void take_announcement(const struct packed *r, void *arg)
{
    const struct loading *l = arg;
    ledger_sync_prefetch(&l->sync->ledger, r);
}

static void take_up(struct redis_sync *s, const struct snapshot_head *head, const struct snapshot_foot *foot)
{
    s->position = (struct redis_position){.is_known = true,
                                          .sequence = head->sequence,
                                          .exact_from = foot->exact_from,
                                          .count_bias = foot->count_bias,
                                          .digest_bias = foot->digest_bias};
    (void)snprintf(s->position.nonce, sizeof s->position.nonce, "%.*s", REDIS_NONCE_MAX, head->nonce);
    (void)snprintf(s->position.epoch, sizeof s->position.epoch, "%.*s", REDIS_EPOCH_MAX, head->epoch);
    uint64_t now_ms = clock_wall_ms();
    s->current_us = clock_mono_us();
    s->age_ms = now_ms > head->saved_at_ms ? now_ms - head->saved_at_ms : 0;
    s->status.snapshot_at_ms = head->saved_at_ms;
    s->status.loaded_at_ms = now_ms;
    s->status.is_inconsistent = foot->count_bias != 0 || foot->digest_bias != 0;
}

void redis_copy_load(struct redis_sync *s)
{
    struct snapshot_head head;
    struct snapshot_foot foot;
    struct errmsg why;
    struct loading l = {.sync = s};
    uint64_t started_us = clock_mono_us();
    const struct snapshot_sink sink = {
        .begin = take_number, .record = take_record, .announce = take_announcement, .arg = &l};
    enum err e = snapshot_load(s->config->snapshot, s->config->redis.tag, &sink, &head, &foot, &why);
    if (!e) e = ledger_sync_end(&s->ledger, l.count, l.digest, NULL);
    if (!e) {
        take_up(s, &head, &foot);
        policy_collect(s->policy);
        store_trim();
        s->status.load_us = clock_mono_us() - started_us;
        log_info("store_snapshot_loaded", KV_STR("file", s->config->snapshot), KV_UINT("records", l.count),
                 KV_UINT("sequence", head.sequence), KV_UINT("load_ms", s->status.load_us / 1000));
        return;
    }
    if (e == ERR_NOMEM) errmsg_set(&why, 0, 0, "snapshot %s: out of memory", s->config->snapshot);
    ledger_sync_abort(&s->ledger);
    if (e == ERR_NOT_FOUND) {
        log_info("store_snapshot_absent", KV_STR("file", s->config->snapshot));
        return;
    }
    s->status.snapshot_failures_total++;
    (void)snprintf(s->status.last_error, sizeof s->status.last_error, "%s", why.text); /* cutting is fine */
    log_error("store_snapshot_refused", KV_STR("cause", why.text));
}
