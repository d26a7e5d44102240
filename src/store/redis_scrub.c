#include "store/redis_sync_state.h"

#include "base/log.h"
#include "store/record_value.h"

#include <stdio.h>
#include <stdlib.h>

enum { SUSPECTS_MAX = 64, CURSOR_MAX = 24 };

enum scrub_phase {
    SCRUB_CONNECTING = 0, /* conn */
    SCRUB_READING,        /* conn; every record is compared, with pauses */
    SCRUB_ASKING,         /* conn; the versions of the suspects are read once more */
    SCRUB_SETTLING,       /* conn; waits until the changes up to `settled_at` have arrived */
    SCRUB_OVER,           /* conn is closing */
};

/* A record whose version is not ours. Perhaps the change has not arrived yet. */
struct suspect {
    char id[PARTNER_ID_MAX + 1];
    uint64_t version; /* as it was read last; 0 = no record, or none with a version */
};

struct redis_scrub {
    struct redis_sync *sync;
    struct redis_conn *conn;
    enum scrub_phase phase;
    uint64_t began_at; /* sequence */
    uint64_t settled_at;
    bool is_scanned;
    bool is_crowded;      /* more suspects than there is room for */
    unsigned outstanding; /* replies */
    char cursor[CURSOR_MAX];
    uint64_t records, repairs;
    unsigned nsuspects;
    struct suspect suspects[SUSPECTS_MAX];
};

struct scrub_fetch {
    struct redis_scrub *scrub;
    char id[PARTNER_ID_MAX + 1];
};

static void on_timer(uv_timer_t *timer);

/* --- life ------------------------------------------------------------------------------------------- */

void redis_scrub_schedule(struct redis_sync *s)
{
    uint64_t ms = redis_sync_jitter(s->config->redis.scrub_interval_ms);
    (void)uv_timer_start(&s->timers[SYNC_SCRUB], on_timer, ms, 0); /* fails only while closing */
}

static void set_phase(struct redis_scrub *scrub, enum scrub_phase to)
{
    static const uint8_t moves[] = {
        [SCRUB_CONNECTING] = 1 << SCRUB_READING | 1 << SCRUB_OVER,
        [SCRUB_READING] = 1 << SCRUB_ASKING | 1 << SCRUB_OVER,
        [SCRUB_ASKING] = 1 << SCRUB_SETTLING | 1 << SCRUB_OVER,
        [SCRUB_SETTLING] = 1 << SCRUB_OVER,
        [SCRUB_OVER] = 0,
    };
    BUG_IF(!(moves[scrub->phase] & 1 << to), "scrub: impossible change of phase");
    scrub->phase = to;
}

static void end(struct redis_scrub *scrub)
{
    if (scrub->phase == SCRUB_OVER) return;
    set_phase(scrub, SCRUB_OVER);
    redis_close(scrub->conn);
}

void redis_scrub_abort(struct redis_sync *s)
{
    if (s->scrub) end(s->scrub);
}

static void on_conn_closed(struct redis_conn *c, enum err e, const char *cause, void *user)
{
    struct redis_scrub *scrub = user;
    struct redis_sync *s = scrub->sync;
    (void)c;
    if (e != ERR_CLOSED) log_warn("store_scrub_failed", KV_STR("cause", cause));
    free(scrub);
    s->scrub = NULL;
    if (s->state == SYNC_CLOSING)
        redis_sync_release_if_closed(s);
    else
        redis_scrub_schedule(s);
}

static void finish(struct redis_scrub *scrub)
{
    struct redis_sync *s = scrub->sync;
    s->status.scrubs_total++;
    s->status.scrub_repairs_total += scrub->repairs;
    log_info("store_scrubbed", KV_UINT("records", scrub->records), KV_UINT("repairs", scrub->repairs));
    if (scrub->repairs) redis_copy_schedule(s);
    end(scrub);
}

static void give_up(struct redis_scrub *scrub, const char *doing, const char *cause)
{
    log_warn("store_scrub_failed", KV_STR("command", doing), KV_STR("cause", cause));
    end(scrub);
}

/* False, and the scrub is over, when the reply is of no use. */
static bool check(struct redis_scrub *scrub, const redisReply *reply, const char *doing)
{
    char text[REDIS_CAUSE_MAX];
    if (!reply || scrub->phase == SCRUB_OVER) return false;
    if (reply->type != REDIS_REPLY_ERROR) return true;
    (void)redis_error_explain(reply, text, sizeof text); /* the text has it */
    give_up(scrub, doing, text);
    return false;
}

static void command(struct redis_scrub *scrub, redis_reply_fn fn, void *arg, int argc,
                    const char *const *argv)
{
    if (redis_command(scrub->conn, 0, fn, arg, argc, argv, NULL) == ERR_OK)
        scrub->outstanding++;
    else
        end(scrub);
}

/* --- suspects --------------------------------------------------------------------------------------- */

static void suspect_add(struct span id, void *arg)
{
    struct redis_scrub *scrub = arg;
    if (scrub->nsuspects == SUSPECTS_MAX) {
        scrub->is_crowded = true;
        return;
    }
    struct suspect *added = &scrub->suspects[scrub->nsuspects++];
    (void)span_to_cstr(id, added->id, sizeof added->id); /* has been checked */
    added->version = 0;
}

/* True when the record still differs from ours although every change up to the reading is in force here. */
static bool is_divergent(const struct redis_scrub *scrub, const struct suspect *x)
{
    uint64_t ours = ledger_version(&scrub->sync->ledger, span_str(x->id));
    return ours != x->version && ours <= scrub->settled_at;
}

/* All changes that the suspects may have waited for are in force: reports those that are divergent. */
static void judge_suspects(struct redis_scrub *scrub)
{
    struct redis_sync *s = scrub->sync;
    unsigned ndivergent = 0;
    for (unsigned i = 0; i < scrub->nsuspects; i++) {
        if (!is_divergent(scrub, &scrub->suspects[i])) continue;
        ndivergent++;
        log_error("store_scrub_repair", KV_STR("partner", scrub->suspects[i].id),
                  KV_STR("problem", "its record was replaced or deleted by hand, past the script"));
    }
    scrub->repairs += ndivergent;
    if ((ndivergent || scrub->is_crowded) && s->wanted == STORE_LOAD_NONE) s->wanted = STORE_LOAD_SCRUB;
    finish(scrub);
}

void redis_scrub_on_progress(struct redis_sync *s)
{
    struct redis_scrub *scrub = s->scrub;
    if (scrub && scrub->phase == SCRUB_SETTLING && s->position.sequence >= scrub->settled_at)
        judge_suspects(scrub);
}

static void on_sequence(struct redis_conn *c, const redisReply *reply, void *arg)
{
    struct redis_scrub *scrub = arg;
    (void)c;
    scrub->outstanding--;
    if (!check(scrub, reply, "HGET")) return;
    if (!redis_number(reply, &scrub->settled_at)) {
        give_up(scrub, "HGET", "the answer is malformed");
        return;
    }
    set_phase(scrub, SCRUB_SETTLING);
    redis_scrub_on_progress(scrub->sync);
}

/* A key of another type stands where the record was. */
static bool is_foreign(const redisReply *reply)
{
    return reply && span_eq(redis_error_code(reply), SPAN("WRONGTYPE"));
}

static void on_version(struct redis_conn *c, const redisReply *reply, void *arg)
{
    struct scrub_fetch *fetch = arg;
    struct redis_scrub *scrub = fetch->scrub;
    (void)c;
    scrub->outstanding--;
    if (is_foreign(reply) || check(scrub, reply, "HGET"))
        for (unsigned i = 0; i < scrub->nsuspects; i++)
            if (strcmp(scrub->suspects[i].id, fetch->id) == 0 &&
                !redis_number(reply, &scrub->suspects[i].version))
                scrub->suspects[i].version = 0;
    free(fetch);
}

/* Asks for one record, or for its version. */
static void fetch_send(struct redis_scrub *scrub, struct span id, redis_reply_fn fn, bool only_version)
{
    char key[REDIS_KEY_MAX];
    struct scrub_fetch *fetch = malloc(sizeof *fetch);
    if (!fetch) {
        end(scrub);
        return;
    }
    fetch->scrub = scrub;
    (void)span_to_cstr(id, fetch->id, sizeof fetch->id); /* has been checked */
    redis_keys_partner(&scrub->sync->keys, id, key);
    const char *const argv[] = {only_version ? "HGET" : "HGETALL", key, "v"};
    if (redis_command(scrub->conn, 0, fn, fetch, only_version ? 3 : 2, argv, NULL) == ERR_OK) {
        scrub->outstanding++;
        return;
    }
    free(fetch);
    end(scrub);
}

/* Every record was compared: asks for the versions of the suspects once more. */
static void recheck_suspects(struct redis_scrub *scrub)
{
    struct redis_sync *s = scrub->sync;
    ledger_each_unmarked(&s->ledger, scrub->began_at, suspect_add, scrub);
    if (scrub->nsuspects == 0) {
        finish(scrub);
        return;
    }
    set_phase(scrub, SCRUB_ASKING);
    for (unsigned i = 0; i < scrub->nsuspects && scrub->phase == SCRUB_ASKING; i++)
        fetch_send(scrub, span_str(scrub->suspects[i].id), on_version, true);
    const char *const argv[] = {"HGET", s->keys.meta, "seq"};
    if (scrub->phase == SCRUB_ASKING) command(scrub, on_sequence, scrub, 3, argv);
}

/* All replies to one SCAN are there: sends the next one after a pause, to keep the load on the server low. */
static void scan_on(struct redis_scrub *scrub)
{
    struct redis_sync *s = scrub->sync;
    if (scrub->is_scanned)
        recheck_suspects(scrub);
    else
        (void)uv_timer_start(&s->timers[SYNC_SCRUB], on_timer, s->options.scrub_pause_ms, 0);
}

/* --- comparing -------------------------------------------------------------------------------------- */

/* The version is the same as ours: then the fields must be the same too. */
static void compare_fields(struct redis_scrub *scrub, const char *id, uint64_t version,
                           const redisReply *reply)
{
    struct redis_sync *s = scrub->sync;
    struct partner_record record = {0};
    struct record_report report = {0};
    struct errmsg why;
    bool changed = false, refused;
    enum err e = redis_record_read(span_str(id), reply, 0, &s->scratch, &record, &report);
    if (e && e != ERR_PARSE) {
        end(scrub);
        return;
    }
    const struct partner *partner = e ? NULL : &record.partner;
    e = ledger_set(&s->ledger, span_str(id), version, partner, &changed, &refused, &why);
    if (!e && refused && partner) record_messages_add(&report.faults, 0, 0, "%s", why.text);
    report.warnings.n = 0; /* they were said when the record came */
    redis_sync_log_report(id, version, &report);
    record_deinit(&record);
    if (e) {
        s->wanted = STORE_LOAD_FIRST; /* out of memory: the ledger is not in step any more */
        end(scrub);
    } else if (changed) {
        scrub->repairs++;
        log_error("store_scrub_repair", KV_STR("partner", id),
                  KV_STR("problem", "its fields were changed by hand, past the script"));
    }
}

static void compare(struct redis_scrub *scrub, const char *id, const redisReply *reply)
{
    struct redis_sync *s = scrub->sync;
    uint64_t version = 0;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements == 0)
        return; /* deleted: it stays unmarked, and so becomes a suspect */
    const redisReply *v = redis_field(reply, SPAN("v"));
    if (v && !redis_number(v, &version)) version = 0;
    scrub->records++;
    uint64_t ours = ledger_version(&s->ledger, span_str(id));
    ledger_mark(&s->ledger, span_str(id));
    if (ours == version && version > 0)
        compare_fields(scrub, id, version, reply);
    else if (ours != version)
        suspect_add(span_str(id), scrub);
}

static void on_record(struct redis_conn *c, const redisReply *reply, void *arg)
{
    struct scrub_fetch *fetch = arg;
    struct redis_scrub *scrub = fetch->scrub;
    (void)c;
    scrub->outstanding--;
    if (!is_foreign(reply) && check(scrub, reply, "HGETALL")) compare(scrub, fetch->id, reply);
    free(fetch);
    if (!reply || scrub->phase != SCRUB_READING || scrub->outstanding > 0) return;
    scan_on(scrub);
}

static void on_keys(struct redis_conn *c, const redisReply *reply, void *arg)
{
    struct redis_scrub *scrub = arg;
    (void)c;
    scrub->outstanding--;
    if (!check(scrub, reply, "SCAN")) return;
    bool ok =
        reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 &&
        reply->element[0]->type == REDIS_REPLY_STRING && reply->element[1]->type == REDIS_REPLY_ARRAY &&
        span_to_cstr(span_of(reply->element[0]->str, reply->element[0]->len), scrub->cursor, CURSOR_MAX);
    if (!ok) {
        give_up(scrub, "SCAN", "the answer is malformed");
        return;
    }
    scrub->is_scanned = strcmp(scrub->cursor, "0") == 0;
    const redisReply *keys = reply->element[1];
    for (size_t i = 0; i < keys->elements && scrub->phase == SCRUB_READING; i++) {
        struct span id, key = {keys->element[i]->str, keys->element[i]->len};
        bool is_partner = keys->element[i]->type == REDIS_REPLY_STRING &&
                          redis_keys_id(&scrub->sync->keys, key, &id) && record_value_is_partner_id(id);
        if (is_partner) fetch_send(scrub, id, on_record, false);
    }
    if (scrub->phase == SCRUB_READING && scrub->outstanding == 0) scan_on(scrub);
}

static void ask_keys(struct redis_scrub *scrub)
{
    char count[16];
    (void)snprintf(count, sizeof count, "%u", scrub->sync->options.scrub_count); /* fits */
    const char *const argv[] = {"SCAN", scrub->cursor, "MATCH", scrub->sync->keys.pattern, "COUNT", count};
    command(scrub, on_keys, scrub, 6, argv);
}

/* --- start ------------------------------------------------------------------------------------------ */

static void on_conn_ready(struct redis_conn *c, void *user)
{
    struct redis_scrub *scrub = user;
    struct redis_sync *s = scrub->sync;
    (void)c;
    if (scrub->phase == SCRUB_OVER) return;
    set_phase(scrub, SCRUB_READING);
    scrub->began_at = s->position.sequence;
    ledger_unmark(&s->ledger);
    memcpy(scrub->cursor, "0", sizeof "0");
    ask_keys(scrub);
}

static const struct redis_events conn_events = {.on_ready = on_conn_ready, .on_closed = on_conn_closed};

static void start(struct redis_sync *s)
{
    struct errmsg why;
    struct redis_scrub *scrub = calloc(1, sizeof *scrub);
    if (!scrub) {
        redis_scrub_schedule(s);
        return;
    }
    scrub->sync = s;
    if (redis_sync_dial(s, &s->address, &conn_events, scrub, &scrub->conn, &why)) {
        log_warn("store_scrub_failed", KV_STR("cause", why.text));
        free(scrub);
        redis_scrub_schedule(s);
        return;
    }
    s->scrub = scrub;
}

static void on_timer(uv_timer_t *timer)
{
    struct redis_sync *s = timer->data;
    loop_turn(s->loop);
    if (s->scrub && s->scrub->phase == SCRUB_READING)
        ask_keys(s->scrub);
    else if (s->state == SYNC_TAILING && !s->scrub && s->position.sequence >= s->position.exact_from)
        start(s);
    else if (!s->scrub)
        redis_scrub_schedule(s);
}
