#include "store/redis_sync_state.h"

#include "base/clock.h"
#include "base/log.h"
#include "store/record_value.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { CURSOR_MAX = 24, RECORDS_PER_CLOCK_READ = 64 };

enum { RECORDS_NAMED_MAX = 20 }; /* in the log, of one load */

/* One full load, from the meta hash to the last partner in force. */
struct redis_load {
    struct stage stage;
    struct redis_meta meta; /* before the records were read */
    uint64_t started_us;
    bool is_scanned;      /* every key was seen */
    unsigned outstanding; /* records that were asked for */
    uint64_t at;          /* the log was read up to this sequence */
    char nonce[REDIS_NONCE_MAX + 1];
    uint64_t count, digest; /* what Redis says, at that sequence */
    uint64_t found;         /* partners in force that are staged as well */
    uint64_t current_us;    /* monotonic: when the staged records were those of Redis */
    uint32_t changed, removed;
    uint32_t named;      /* records about which something was logged */
    uint64_t unnamed;    /* records about which more could have been */
    struct bytes packed; /* the record being put */
};

/* A record that was asked for. */
struct fetch {
    struct redis_sync *sync;
    char id[PARTNER_ID_MAX + 1];
};

void redis_load_discard(struct redis_sync *s)
{
    struct redis_load *load = s->load;
    if (!load) return;
    if (load->unnamed) log_warn("store_record_more", KV_UINT("records", load->unnamed));
    stage_deinit(&load->stage);
    bytes_deinit(&load->packed);
    free(load);
    s->load = NULL;
}

/* --- staging ---------------------------------------------------------------------------------------- */

/* Puts what was packed, and keeps count of the partners in force that the load has as well. */
static enum err put_packed(struct redis_sync *s, struct span id)
{
    struct redis_load *load = s->load;
    enum stage_change change;
    enum err e = stage_put(&load->stage, span_of(load->packed.p, load->packed.n), &change);
    if (e || change == STAGE_SAME || policy_find(s->policy, id) == PARTNER_INDEX_NONE) return e;
    if (change == STAGE_ADDED)
        load->found++;
    else
        load->found--;
    return ERR_OK;
}

/* A data set that is faulty as a whole must not fill the log: the first faulty records are named, the others
 * are counted. */
static bool may_name(struct redis_load *load)
{
    bool may = load->named < RECORDS_NAMED_MAX;
    load->named += may;
    load->unnamed += !may;
    return may;
}

/* Errors: ERR_NOMEM. */
static enum err stage_record(struct redis_sync *s, struct span id, uint64_t version, const redisReply *fields,
                             size_t from)
{
    struct partner_record record = {0};
    struct record_report report;
    char text[PARTNER_ID_MAX + 1];
    (void)span_to_cstr(id, text, sizeof text); /* has been checked */
    s->load->packed.n = 0;
    record_report_init(&report);
    enum err e = redis_record_read(id, fields, from, &s->scratch, &record, &report);
    if ((report.faults.n || report.warnings.n) && may_name(s->load))
        redis_sync_log_report(text, version, &report);
    if (e == ERR_PARSE) {
        e = packed_add_bare(&s->load->packed, id, version, PACKED_REFUSED);
    } else if (!e) {
        e = packed_add(&s->load->packed, &record.partner, version, 0);
        record_deinit(&record);
    }
    return e ? e : put_packed(s, id);
}

static enum err stage_deletion(struct redis_sync *s, struct span id, uint64_t version)
{
    s->load->packed.n = 0;
    enum err e = packed_add_bare(&s->load->packed, id, version, PACKED_DELETED);
    return e ? e : put_packed(s, id);
}

static void log_unusable(struct redis_sync *s, struct span id, const char *problem)
{
    if (!s->load || may_name(s->load))
        log_error("store_record_error", KV_SPAN("partner", id), KV_STR("problem", problem));
}

/* --- applying --------------------------------------------------------------------------------------- */

static void take_position(struct redis_sync *s)
{
    const struct redis_load *load = s->load;
    s->position = (struct redis_position){
        .is_known = true,
        .sequence = load->at,
        .exact_from = load->at,
        .count_bias = s->difference.is_known ? s->difference.count : 0,
        .digest_bias = s->difference.is_known ? s->difference.digest : 0,
    };
    memcpy(s->position.nonce, load->nonce, sizeof load->nonce);
    memcpy(s->position.epoch, load->meta.epoch, sizeof load->meta.epoch);
}

static void finish(struct redis_sync *s)
{
    struct redis_load *load = s->load;
    struct store_status *status = &s->status;
    take_position(s);
    s->wanted = s->is_wanted_again ? STORE_LOAD_OPERATOR : STORE_LOAD_NONE;
    s->confirmed_drop = status->deletions_held = 0;
    s->current_us = load->current_us;
    s->age_ms = 0;
    s->difference.is_known = false;
    status->is_inconsistent = s->position.count_bias != 0 || s->position.digest_bias != 0;
    status->loads_total++;
    status->loaded_at_ms = clock_wall_ms();
    status->load_us = clock_mono_us() - load->started_us;
    log_info("store_loaded", KV_UINT("sequence", s->position.sequence), KV_UINT("records", s->ledger.count),
             KV_UINT("changed", load->changed), KV_UINT("removed", load->removed),
             KV_UINT("refused", s->ledger.refused), KV_UINT("load_ms", status->load_us / 1000));
    redis_load_discard(s);
    store_trim();
    redis_copy_schedule(s);
}

/* Memory has run out: part of the load is in force, so our position is unknown. */
static void give_up(struct redis_sync *s)
{
    ledger_sync_abort(&s->ledger);
    s->position.is_known = false;
    redis_load_discard(s);
    s->wanted = STORE_LOAD_FIRST;
    redis_sync_set_state(s, SYNC_IDLE);
    if (s->conn)
        redis_sync_drop(s, "out of memory while the partners were applied");
    else
        redis_sync_retry(s);
}

/* Applies records until the time is up. Errors: ERR_AGAIN, those of ledger_sync_put() and ledger_sync_end().
 */
static enum err apply_some(struct redis_sync *s)
{
    struct redis_load *load = s->load;
    uint64_t end_us = clock_mono_us() + s->options.slice_us;
    struct packed r, next;
    uint64_t count = load->stage.count, digest = load->stage.digest;
    for (unsigned n = 1; stage_next(&load->stage, &r); n++) {
        bool changed;
        if (stage_peek(&load->stage, &next)) ledger_sync_prefetch(&s->ledger, &next);
        enum err e = ledger_sync_put(&s->ledger, &r, &changed);
        if (e) return e;
        load->changed += changed;
        if (n % RECORDS_PER_CLOCK_READ == 0 && clock_mono_us() >= end_us) return ERR_AGAIN;
    }
    return ledger_sync_end(&s->ledger, count, digest, &load->removed);
}

/* One turn while APPLYING. */
static void on_idle(uv_idle_t *idle)
{
    struct redis_sync *s = idle->data;
    loop_turn(s->loop);
    enum err e = apply_some(s);
    policy_collect(s->policy);
    if (e == ERR_AGAIN) return;
    (void)uv_idle_stop(&s->apply); /* cannot fail */
    if (e) {
        give_up(s);
        return;
    }
    finish(s);
    if (s->conn)
        redis_follow_tail(s);
    else
        redis_sync_retry(s);
}

static void begin_apply(struct redis_sync *s)
{
    redis_copy_abort(s);
    ledger_sync_begin(&s->ledger, s->load->stage.count);
    redis_sync_set_state(s, SYNC_APPLYING);
    (void)uv_idle_start(&s->apply, on_idle); /* fails only without a callback */
}

/* --- judging ---------------------------------------------------------------------------------------- */

/* Compares the records that were read with the count and digest that Redis keeps. False: read them again. */
static bool is_consistent(struct redis_sync *s)
{
    const struct redis_load *load = s->load;
    int64_t count = (int64_t)(load->count - load->stage.count);
    uint64_t digest = load->digest ^ load->stage.digest;
    bool is_same = count == 0 && digest == 0;
    bool is_known = s->difference.is_known && s->difference.count == count && s->difference.digest == digest;
    s->difference.is_known = !is_same;
    s->difference.count = count;
    s->difference.digest = digest;
    if (is_same) return true;
    log_error("store_inconsistent", KV_UINT("records", load->stage.count), KV_UINT("expected", load->count),
              KV_STR("action", is_known
                                   ? "taken as it is: twice the same, so the records were changed by hand"
                                   : "read again"));
    return is_known;
}

/* False when the load would drop so many partners that an accident is more likely than intent. */
static bool may_drop(struct redis_sync *s)
{
    struct policy_stats stats;
    policy_stats(s->policy, &stats);
    uint64_t before = policy_is_ready(s->policy) ? stats.partners : 0;
    uint64_t drop = before > s->load->found ? before - s->load->found : 0;
    s->status.deletions_held = 0;
    if (drop * 100 <= before * s->config->redis.deletion_limit || drop <= s->confirmed_drop) return true;
    s->status.deletions_held = drop;
    log_error("store_deletion_held", KV_UINT("partners", before), KV_UINT("would_drop", drop),
              KV_UINT("limit_percent", s->config->redis.deletion_limit),
              KV_STR("hint", "nothing was changed; if this is right: proofctl confirm-deletions"));
    return false;
}

static void judge(struct redis_sync *s)
{
    if (!is_consistent(s)) {
        redis_sync_drop(s, "the records in Redis do not have the count and digest that it keeps");
    } else if (!may_drop(s)) {
        redis_sync_drop(s, "a load that would drop too many partners waits for a confirmation");
    } else {
        s->load->current_us = clock_mono_us();
        begin_apply(s);
    }
}

/* --- reading the log -------------------------------------------------------------------------------- */

static enum err replay_entry(struct redis_sync *s, const redisReply *reply)
{
    struct redis_load *load = s->load;
    struct redis_entry entry;
    if (redis_entry_read(reply, &entry)) return ERR_PARSE;
    /* The first one is the last that was in force when the load began; it may be gone from the log. */
    bool is_first = load->nonce[0] == '\0' && entry.sequence == load->at;
    if (!is_first && entry.sequence != load->at + 1) return ERR_PARSE;
    load->at = entry.sequence;
    memcpy(load->nonce, entry.nonce, sizeof load->nonce);
    load->count = entry.count;
    load->digest = entry.digest;
    if (entry.sequence <= stage_version(&load->stage, entry.id)) return ERR_OK;
    if (entry.is_delete) return stage_deletion(s, entry.id, entry.sequence);
    return stage_record(s, entry.id, entry.sequence, entry.reply, entry.from);
}

static void on_replay(struct redis_conn *c, const redisReply *reply, void *arg)
{
    struct redis_sync *s = arg;
    (void)c;
    if (!redis_sync_check_array(s, reply, "XRANGE")) return;
    for (size_t i = 0; i < reply->elements; i++) {
        enum err e = replay_entry(s, reply->element[i]);
        if (!e) continue;
        redis_sync_drop(s,
                        e == ERR_PARSE ? "the log has a gap behind the load" : "out of memory while loading");
        return;
    }
    if (reply->elements < s->range_count)
        judge(s);
    else
        redis_follow_ask_range(s, s->load->at + 1, on_replay, s);
}

/* --- reading the records ---------------------------------------------------------------------------- */

static void ask_keys(struct redis_sync *s, const char *cursor);

static void replay_when_scanned(struct redis_sync *s)
{
    struct redis_load *load = s->load;
    if (!load->is_scanned || load->outstanding > 0) return;
    load->at = load->meta.sequence;
    load->count = load->meta.count;
    load->digest = load->meta.digest;
    redis_follow_ask_range(s, load->at > 0 ? load->at : 1, on_replay, s);
}

static void take_record(struct redis_sync *s, const char *id, const redisReply *reply)
{
    uint64_t version;
    struct span name = span_str(id);
    if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 0) return; /* deleted meanwhile */
    const redisReply *v = reply->type == REDIS_REPLY_ARRAY ? redis_field(reply, SPAN("v")) : NULL;
    if (!v || !redis_number(v, &version) || version == 0) {
        log_unusable(s, name, "it has no version: somebody wrote it past the script; it is ignored");
        return;
    }
    if (stage_record(s, name, version, reply, 0)) redis_sync_drop(s, "out of memory while loading");
}

static void on_record(struct redis_conn *c, const redisReply *reply, void *arg)
{
    struct fetch *fetch = arg;
    struct redis_sync *s = fetch->sync;
    (void)c;
    if (s->load) s->load->outstanding--;
    bool is_foreign = reply && span_eq(redis_error_code(reply), SPAN("WRONGTYPE"));
    if (is_foreign) log_unusable(s, span_str(fetch->id), "its key is no hash; it is ignored");
    if (s->load && !is_foreign && redis_sync_check(s, reply, "HGETALL")) take_record(s, fetch->id, reply);
    free(fetch);
    if (s->load && !s->drop_cause[0] && reply) replay_when_scanned(s);
}

static void ask_record(struct redis_sync *s, const redisReply *key)
{
    struct span id, name = {key->str, key->len};
    char text[REDIS_KEY_MAX];
    if (key->type != REDIS_REPLY_STRING || !redis_keys_id(&s->keys, name, &id)) return;
    if (!record_value_is_partner_id(id)) {
        log_unusable(s, id, "its key is no partner id; it is ignored");
        return;
    }
    struct fetch *fetch = malloc(sizeof *fetch);
    if (!fetch) {
        redis_sync_drop(s, "out of memory while loading");
        return;
    }
    fetch->sync = s;
    (void)span_to_cstr(id, fetch->id, sizeof fetch->id); /* has been checked */
    redis_keys_partner(&s->keys, id, text);
    const char *const argv[] = {"HGETALL", text};
    if (redis_command(s->conn, 0, on_record, fetch, 2, argv, NULL)) {
        free(fetch);
        redis_sync_drop(s, "HGETALL cannot be sent");
        return;
    }
    s->load->outstanding++;
}

static void on_keys(struct redis_conn *c, const redisReply *reply, void *arg)
{
    struct redis_sync *s = arg;
    (void)c;
    char cursor[CURSOR_MAX];
    if (!redis_sync_check_array(s, reply, "SCAN")) return;
    bool ok = reply->elements == 2 && reply->element[0]->type == REDIS_REPLY_STRING &&
              reply->element[1]->type == REDIS_REPLY_ARRAY &&
              span_to_cstr(span_of(reply->element[0]->str, reply->element[0]->len), cursor, sizeof cursor);
    if (!ok) {
        redis_sync_drop(s, "SCAN: the answer is malformed");
        return;
    }
    const redisReply *keys = reply->element[1];
    for (size_t i = 0; i < keys->elements && !s->drop_cause[0]; i++)
        ask_record(s, keys->element[i]);
    if (s->drop_cause[0]) return;
    s->load->is_scanned = strcmp(cursor, "0") == 0;
    if (s->load->is_scanned)
        replay_when_scanned(s);
    else
        ask_keys(s, cursor); /* its reply comes behind those of the records: they never pile up */
}

static void ask_keys(struct redis_sync *s, const char *cursor)
{
    char count[16];
    (void)snprintf(count, sizeof count, "%u", s->options.scan_count); /* fits */
    const char *const argv[] = {"SCAN", cursor, "MATCH", s->keys.pattern, "COUNT", count};
    redis_sync_send(s, 0, on_keys, s, 6, argv);
}

static void on_meta(struct redis_conn *c, const redisReply *reply, void *arg)
{
    struct redis_sync *s = arg;
    struct errmsg why;
    (void)c;
    if (!redis_sync_check(s, reply, "HMGET")) return;
    if (redis_meta_read(reply, &s->load->meta, &why))
        redis_sync_drop(s, why.text);
    else
        ask_keys(s, "0");
}

void redis_load_start(struct redis_sync *s, enum store_load_reason reason)
{
    redis_scrub_abort(s);
    redis_sync_set_state(s, SYNC_LOADING);
    s->status.full_loads_total[reason]++;
    s->wanted = reason; /* until it is in force: when it fails, it is tried again */
    s->is_wanted_again = false;
    /* What was revoked since then is valid again. */
    bool is_older = reason == STORE_LOAD_REWOUND || reason == STORE_LOAD_LOST_WRITES;
    LOG_AT(is_older ? LOG_WARN : LOG_INFO, "store_load_started",
           KV_STR("reason", store_load_reason_text(reason)), KV_UINT("sequence", s->position.sequence));
    s->load = calloc(1, sizeof *s->load);
    if (!s->load) {
        redis_sync_drop(s, "out of memory while loading");
        return;
    }
    stage_init(&s->load->stage, s->hasher);
    s->load->started_us = clock_mono_us();
    redis_follow_ask_meta(s, on_meta, s);
}
