#include "store/redis_sync_state.h"

#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>

enum { COMMAND_TEXT_MAX = 32 };

static void on_range(struct redis_conn *c, const redisReply *reply, void *arg);

/* --- asking ----------------------------------------------------------------------------------------- */

void redis_follow_ask_meta(struct redis_sync *s, redis_reply_fn fn, void *arg)
{
    const char *const argv[] = {"HMGET", s->keys.meta, REDIS_META_FIELDS};
    redis_sync_send(s, 0, fn, arg, 2 + REDIS_META_NFIELDS, argv);
}

void redis_follow_ask_range(struct redis_sync *s, uint64_t from, redis_reply_fn fn, void *arg)
{
    char begin[COMMAND_TEXT_MAX], count[COMMAND_TEXT_MAX];
    (void)snprintf(begin, sizeof begin, "%" PRIu64 "-1", from); /* both fit */
    (void)snprintf(count, sizeof count, "%u", s->range_count);
    const char *const argv[] = {"XRANGE", s->keys.log, begin, "+", "COUNT", count};
    redis_sync_send(s, 0, fn, arg, 6, argv);
}

/* Redis's count and digest are ours. */
static bool agrees(const struct redis_sync *s, uint64_t count, uint64_t digest)
{
    const struct redis_position *at = &s->position;
    return count == s->ledger.count + (uint64_t)at->count_bias &&
           digest == (s->ledger.digest ^ at->digest_bias);
}

/* --- one change ------------------------------------------------------------------------------------- */

/* Errors: ERR_NOMEM, ERR_LIMIT. */
static enum err apply_set(struct redis_sync *s, const struct redis_entry *entry)
{
    struct partner_record record = {0};
    struct record_report report = {0};
    struct errmsg why;
    char id[PARTNER_ID_MAX + 1];
    bool changed, refused;
    (void)span_to_cstr(entry->id, id, sizeof id); /* redis_entry_read() has checked it */
    enum err e = redis_record_read(entry->id, entry->reply, entry->from, &s->scratch, &record, &report);
    if (e && e != ERR_PARSE) return e;
    const struct partner *partner = e ? NULL : &record.partner;
    e = ledger_set(&s->ledger, entry->id, entry->sequence, partner, &changed, &refused, &why);
    if (!e && refused && partner) record_messages_add(&report.faults, 0, 0, "%s", why.text);
    redis_sync_log_report(id, entry->sequence, &report);
    record_deinit(&record);
    return e;
}

/* Errors: ERR_NOMEM, ERR_LIMIT. */
static enum err apply_entry(struct redis_sync *s, const struct redis_entry *entry)
{
    /* After a snapshot, some of what the log tells is in force already. Not so a record whose token still was
     * another partner's when it was loaded: what is of this very version is set once more. */
    if (entry->sequence < ledger_version(&s->ledger, entry->id)) return ERR_OK;
    return entry->is_delete ? ledger_remove(&s->ledger, entry->id) : apply_set(s, entry);
}

/* Brings one change into force and moves on to it. False: something is wrong, and a load is due. */
static bool advance(struct redis_sync *s, const redisReply *reply)
{
    struct redis_entry entry;
    struct redis_position *at = &s->position;
    if (redis_entry_read(reply, &entry) || entry.sequence != at->sequence + 1) {
        log_error("store_gap", KV_UINT("sequence", at->sequence));
        redis_load_start(s, STORE_LOAD_GAP);
        return false;
    }
    if (apply_entry(s, &entry)) {
        at->is_known = false;
        redis_sync_drop(s, "out of memory while a change was applied");
        return false;
    }
    at->sequence = entry.sequence;
    memcpy(at->nonce, entry.nonce, sizeof at->nonce);
    if (at->sequence < at->exact_from || agrees(s, entry.count, entry.digest)) return true;
    log_error("store_digest_mismatch", KV_UINT("sequence", at->sequence), KV_UINT("count", s->ledger.count),
              KV_UINT("expected", entry.count));
    redis_load_start(s, STORE_LOAD_DIGEST);
    return false;
}

/* Applies the entries element[from] and those behind it. */
static bool advance_all(struct redis_sync *s, const redisReply *entries, size_t from)
{
    uint64_t before = s->position.sequence;
    bool ok = true;
    for (size_t i = from; ok && i < entries->elements; i++)
        ok = advance(s, entries->element[i]);
    if (s->position.sequence != before) {
        redis_copy_schedule(s);
        redis_report_hurry(s);
    }
    policy_collect(s->policy);
    return ok;
}

/* --- resuming --------------------------------------------------------------------------------------- */

/* What is wrong with our position, as far as the meta hash shows. */
static enum store_load_reason judge_meta(const struct redis_sync *s, const struct redis_meta *meta)
{
    if (s->wanted != STORE_LOAD_NONE) return s->wanted;
    if (!s->position.is_known) return STORE_LOAD_FIRST;
    if (strcmp(meta->epoch, s->position.epoch) != 0) return STORE_LOAD_EPOCH;
    /* Records of a snapshot may be newer than its position: Redis must have come to them as well. */
    bool is_older = meta->sequence < s->position.sequence || meta->sequence < s->position.exact_from;
    return is_older ? STORE_LOAD_REWOUND : STORE_LOAD_NONE;
}

/* Says what is wrong with the data set, and lets the connection go. */
static bool read_meta(struct redis_sync *s, const redisReply *reply, struct redis_meta *meta)
{
    struct errmsg why;
    if (!redis_sync_check(s, reply, "HMGET")) return false;
    enum err e = redis_meta_read(reply, meta, &why);
    if (!e) return true;
    enum store_away_reason reason = e == ERR_NOT_FOUND     ? STORE_AWAY_NO_DATA
                                    : e == ERR_UNSUPPORTED ? STORE_AWAY_SCHEMA
                                                           : STORE_AWAY_PROTOCOL;
    redis_sync_drop_for(s, reason, why.text);
    return false;
}

/* The log does not have our last entry. That is no harm when it has nothing at all (somebody deleted it) and
 * everything else says that nothing has happened. */
static void on_meta_without_log(struct redis_conn *c, const redisReply *reply, void *arg)
{
    struct redis_sync *s = arg;
    struct redis_meta meta;
    (void)c;
    if (!read_meta(s, reply, &meta)) return;
    if (meta.sequence == s->position.sequence && agrees(s, meta.count, meta.digest))
        redis_follow_tail(s);
    else
        redis_load_start(s, STORE_LOAD_TRIMMED);
}

/* After a reply from the log: it may have more. */
static void go_on(struct redis_sync *s, const redisReply *reply)
{
    if (reply->elements < s->range_count)
        redis_follow_tail(s);
    else
        redis_follow_ask_range(s, s->position.sequence + 1, on_range, s);
}

/* The first reply from the log, which should begin with the last entry that we have. */
static void on_first_range(struct redis_conn *c, const redisReply *reply, void *arg)
{
    struct redis_sync *s = arg;
    struct redis_entry first;
    (void)c;
    if (!redis_sync_check_array(s, reply, "XRANGE")) return;
    if (reply->elements == 0) {
        redis_follow_ask_meta(s, on_meta_without_log, s);
        return;
    }
    bool is_ours =
        redis_entry_read(reply->element[0], &first) == ERR_OK && first.sequence == s->position.sequence;
    if (!is_ours) {
        redis_load_start(s, STORE_LOAD_TRIMMED);
    } else if (strcmp(first.nonce, s->position.nonce) != 0) {
        redis_load_start(s, STORE_LOAD_LOST_WRITES);
    } else if (advance_all(s, reply, 1)) {
        go_on(s, reply);
    }
}

static void on_range(struct redis_conn *c, const redisReply *reply, void *arg)
{
    struct redis_sync *s = arg;
    (void)c;
    if (redis_sync_check_array(s, reply, "XRANGE") && advance_all(s, reply, 0)) go_on(s, reply);
}

static void on_check_meta(struct redis_conn *c, const redisReply *reply, void *arg)
{
    struct redis_sync *s = arg;
    struct redis_meta meta;
    (void)c;
    if (!read_meta(s, reply, &meta)) return;
    enum store_load_reason reason = judge_meta(s, &meta);
    if (reason != STORE_LOAD_NONE)
        redis_load_start(s, reason);
    else if (s->position.sequence == 0) /* no change yet when we looked last */
        redis_follow_ask_range(s, 1, on_range, s);
    else
        redis_follow_ask_range(s, s->position.sequence, on_first_range, s);
}

void redis_follow_check(struct redis_sync *s)
{
    redis_follow_ask_meta(s, on_check_meta, s);
}

/* --- tailing ---------------------------------------------------------------------------------------- */

static void on_changes(struct redis_conn *c, const redisReply *reply, void *arg);

/* A load that was asked for meanwhile begins here, where no command waits on the connection. */
static void wait_for_changes(struct redis_sync *s)
{
    if (s->wanted != STORE_LOAD_NONE) {
        redis_load_start(s, s->wanted);
        return;
    }
    char block[COMMAND_TEXT_MAX], count[COMMAND_TEXT_MAX], id[COMMAND_TEXT_MAX];
    (void)snprintf(block, sizeof block, "%" PRIu64, s->options.block_ms); /* all fit */
    (void)snprintf(count, sizeof count, "%u", s->range_count);
    (void)snprintf(id, sizeof id, "%" PRIu64 "-1", s->position.sequence);
    const char *const argv[] = {"XREAD", "BLOCK", block, "COUNT", count, "STREAMS", s->keys.log, id};
    redis_sync_send(s, s->options.block_ms + s->options.watchdog_ms, on_changes, s, 8, argv);
}

/* Nothing came for a while: a log that was deleted, or rewound, would be silent in the same way. */
static void on_quiet_meta(struct redis_conn *c, const redisReply *reply, void *arg)
{
    struct redis_sync *s = arg;
    struct redis_meta meta;
    (void)c;
    if (!read_meta(s, reply, &meta)) return;
    enum store_load_reason reason = judge_meta(s, &meta);
    bool is_ahead = meta.sequence > s->position.sequence;
    if (reason == STORE_LOAD_NONE && is_ahead && s->is_behind) reason = STORE_LOAD_GAP;
    if (reason == STORE_LOAD_NONE && !is_ahead && s->position.sequence >= s->position.exact_from &&
        !agrees(s, meta.count, meta.digest))
        reason = STORE_LOAD_DIGEST;
    if (reason != STORE_LOAD_NONE) {
        redis_load_start(s, reason);
        return;
    }
    s->is_behind = is_ahead;
    if (!is_ahead) redis_sync_confirm(s);
    redis_scrub_on_progress(s);
    wait_for_changes(s);
}

/* The entries of the one stream that was asked for; NULL when the reply is something else. */
static const redisReply *entries_of(const redisReply *reply)
{
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 1) return NULL;
    const redisReply *stream = reply->element[0];
    if (stream->type != REDIS_REPLY_ARRAY || stream->elements != 2) return NULL;
    return stream->element[1]->type == REDIS_REPLY_ARRAY ? stream->element[1] : NULL;
}

static void on_changes(struct redis_conn *c, const redisReply *reply, void *arg)
{
    struct redis_sync *s = arg;
    (void)c;
    if (!redis_sync_check(s, reply, "XREAD")) return;
    if (reply->type == REDIS_REPLY_NIL) {
        redis_follow_ask_meta(s, on_quiet_meta, s);
        return;
    }
    const redisReply *entries = entries_of(reply);
    if (!entries) {
        redis_sync_drop_for(s, STORE_AWAY_PROTOCOL, "XREAD: the answer is malformed");
        return;
    }
    s->is_behind = false;
    if (s->range_count < s->options.range_count) s->range_count++; /* large entries are behind us */
    if (!advance_all(s, entries, 0)) return;
    redis_sync_confirm(s);
    redis_scrub_on_progress(s);
    wait_for_changes(s);
}

void redis_follow_tail(struct redis_sync *s)
{
    redis_sync_set_state(s, SYNC_TAILING);
    backoff_reset(&s->backoff);
    redis_sync_confirm(s);
    s->is_behind = false;
    s->status.last_error[0] = s->logged_cause[0] = '\0';
    char name[160];
    socket_address_format(&s->address, name, sizeof name);
    log_info("store_following", KV_STR("server", name), KV_UINT("sequence", s->position.sequence),
             KV_UINT("partners", s->ledger.count), KV_UINT("refused", s->ledger.refused));
    wait_for_changes(s);
}
