#include "store/redis_sync.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/random.h"
#include "store/redis_sync_state.h"

#include <stdio.h>
#include <stdlib.h>

enum { MESSAGES_LOGGED_MAX = 8 };

const struct redis_sync_options redis_sync_defaults = {.block_ms = 5000,
                                                       .watchdog_ms = 3000,
                                                       .ask_ms = 10000,
                                                       .held_ms = 60000,
                                                       .slice_us = 4000,
                                                       .scan_count = 500,
                                                       .range_count = 500,
                                                       .scrub_count = 100,
                                                       .scrub_pause_ms = 10,
                                                       .snapshot_quiet_ms = 5000,
                                                       .report_ms = 5000,
                                                       .report_gap_ms = 100};

static void connect_now(struct redis_sync *s);

void redis_sync_set_state(struct redis_sync *s, enum redis_sync_state to)
{
#define MAY(state) (1u << SYNC_##state)
    static const unsigned moves[] = {
        [SYNC_IDLE] = MAY(LOCATING) | MAY(CONNECTING) | MAY(CLOSING),
        [SYNC_LOCATING] = MAY(IDLE) | MAY(CONNECTING) | MAY(CLOSING),
        [SYNC_CONNECTING] = MAY(IDLE) | MAY(CHECKING) | MAY(CLOSING),
        [SYNC_CHECKING] = MAY(IDLE) | MAY(LOADING) | MAY(TAILING) | MAY(CLOSING),
        [SYNC_LOADING] = MAY(IDLE) | MAY(APPLYING) | MAY(CLOSING),
        [SYNC_APPLYING] = MAY(IDLE) | MAY(TAILING) | MAY(CLOSING),
        [SYNC_TAILING] = MAY(IDLE) | MAY(LOADING) | MAY(CLOSING),
        [SYNC_CLOSING] = 0,
    };
#undef MAY
    BUG_IF(!(moves[s->state] >> to & 1), "Redis store: impossible change of state");
    s->state = to;
    s->status.up = to == SYNC_TAILING;
    redis_report_hurry(s);
}

/* --- small things ----------------------------------------------------------------------------------- */

static uint32_t random_32(void)
{
    uint32_t r = 0;
    (void)random_bytes(&r, sizeof r); /* without randomness there is no jitter, and no harm */
    return r;
}

uint64_t redis_sync_jitter(uint64_t ms)
{
    return ms - ms / 4 + random_32() % (ms / 2 + 1);
}

void redis_sync_confirm(struct redis_sync *s)
{
    s->current_us = clock_mono_us();
    s->age_ms = 0;
}

uint64_t redis_sync_staleness_ms(const struct redis_sync *s)
{
    return s->current_us ? s->age_ms + (clock_mono_us() - s->current_us) / 1000 : 0;
}

void redis_sync_log_report(const char *id, uint64_t version, const struct record_report *report)
{
    for (uint32_t i = 0; i < report->faults.n && i < MESSAGES_LOGGED_MAX; i++)
        log_error("store_record_error", KV_STR("partner", id), KV_UINT("version", version),
                  KV_STR("problem", report->faults.list[i].text));
    for (uint32_t i = 0; i < report->warnings.n && i < MESSAGES_LOGGED_MAX; i++)
        log_warn("store_record_warning", KV_STR("partner", id), KV_UINT("version", version),
                 KV_STR("problem", report->warnings.list[i].text));
}

/* Writes the address of the server: as configured, or as the Sentinels named it last. */
static void write_server(const struct redis_sync *s, char *out, size_t cap)
{
    const struct endpoint *configured = &s->config->redis.address;
    if (configured->kind != ENDPOINT_NONE)
        (void)snprintf(out, cap, "%s", configured->text);
    else if (s->address.len)
        socket_address_format(&s->address, out, cap);
    else
        (void)snprintf(out, cap, "-");
}

/* Remembers why we are not in step. Logged only when the cause is not that of the last failure. */
static void note_failure(struct redis_sync *s, enum store_away_reason reason, const char *cause)
{
    struct store_status *status = &s->status;
    status->load_failures_total++;
    status->away_total[reason]++;
    (void)snprintf(status->last_error, sizeof status->last_error, "%s", cause); /* cutting is fine */
    if (strcmp(cause, s->logged_cause) == 0) return;
    (void)snprintf(s->logged_cause, sizeof s->logged_cause, "%s", cause);
    struct policy_stats kept;
    policy_stats(s->policy, &kept);
    char server[sizeof s->config->redis.address.text];
    write_server(s, server, sizeof server);
    log_error("store_away", KV_STR("reason", store_away_reason_text(reason)), KV_STR("cause", cause),
              KV_STR("server", server), KV_UINT("partners_kept", kept.partners),
              KV_UINT("sequence", s->position.sequence));
}

/* --- connection ------------------------------------------------------------------------------------- */

static void on_retry(uv_timer_t *timer)
{
    struct redis_sync *s = timer->data;
    loop_turn(s->loop);
    connect_now(s);
}

/* No connection: tries again after `ms`. */
static void retry_after(struct redis_sync *s, uint64_t ms)
{
    if (s->state != SYNC_IDLE) redis_sync_set_state(s, SYNC_IDLE);
    (void)uv_timer_start(&s->timers[SYNC_RETRY], on_retry, ms, 0); /* fails only while closing */
}

static uint64_t next_pause(struct redis_sync *s)
{
    if (s->status.deletions_held > s->confirmed_drop) return redis_sync_jitter(s->options.held_ms);
    return backoff_next(&s->backoff, random_32());
}

void redis_sync_retry(struct redis_sync *s)
{
    retry_after(s, next_pause(s));
}

static void failed(struct redis_sync *s, enum store_away_reason reason, const char *cause)
{
    note_failure(s, reason, cause);
    redis_sync_retry(s);
}

/* `e`: of a connection or of one of its replies. */
static enum store_away_reason reason_of(enum err e)
{
    switch (e) {
    case ERR_UNREACHABLE:
    case ERR_NO_PORT: return STORE_AWAY_UNREACHABLE;
    case ERR_TIMEOUT: return STORE_AWAY_TIMEOUT;
    case ERR_EOF:
    case ERR_TRUNCATED: return STORE_AWAY_CLOSED;
    case ERR_TLS: return STORE_AWAY_TLS;
    case ERR_RESET: return STORE_AWAY_RESET;
    case ERR_REFUSED: return STORE_AWAY_LOGIN;
    case ERR_AGAIN: return STORE_AWAY_LOADING;
    case ERR_CONFLICT: return STORE_AWAY_NOT_MASTER;
    case ERR_PARSE:
    case ERR_LIMIT: return STORE_AWAY_PROTOCOL;
    case ERR_OK:
    case ERR_NOMEM:
    case ERR_RANGE:
    case ERR_NOT_FOUND:
    case ERR_EXISTS:
    case ERR_IO:
    case ERR_CLOSED:
    case ERR_UNSUPPORTED: break;
    }
    return STORE_AWAY_OTHER;
}

void redis_sync_drop(struct redis_sync *s, const char *cause)
{
    redis_sync_drop_for(s, STORE_AWAY_OTHER, cause);
}

void redis_sync_drop_for(struct redis_sync *s, enum store_away_reason reason, const char *cause)
{
    if (!s->conn || s->drop_cause[0]) return;
    s->drop_reason = reason;
    (void)snprintf(s->drop_cause, sizeof s->drop_cause, "%s", cause); /* cutting is fine */
    redis_close(s->conn);
}

void redis_sync_send(struct redis_sync *s, uint64_t timeout_ms, redis_reply_fn fn, void *arg, int argc,
                     const char *const *argv)
{
    enum err e = redis_command(s->conn, timeout_ms, fn, arg, argc, argv, NULL);
    if (!e) return;
    char cause[REDIS_CAUSE_MAX];
    (void)snprintf(cause, sizeof cause, "%s cannot be sent: %s", argv[0], err_text(e));
    redis_sync_drop_for(s, reason_of(e), cause);
}

bool redis_sync_check(struct redis_sync *s, const redisReply *reply, const char *doing)
{
    char text[REDIS_CAUSE_MAX], cause[REDIS_CAUSE_MAX];
    if (!reply) return false; /* on_conn_closed says why */
    if (s->drop_cause[0]) return false;
    if (reply->type != REDIS_REPLY_ERROR) return true;
    enum err e = redis_error_explain(reply, text, sizeof text);
    (void)snprintf(cause, sizeof cause, "%s: %.200s", doing, text);
    redis_sync_drop_for(s, reason_of(e), cause);
    return false;
}

bool redis_sync_check_array(struct redis_sync *s, const redisReply *reply, const char *doing)
{
    char cause[REDIS_CAUSE_MAX];
    if (!redis_sync_check(s, reply, doing)) return false;
    if (reply->type == REDIS_REPLY_ARRAY) return true;
    (void)snprintf(cause, sizeof cause, "%s: the answer is malformed", doing);
    redis_sync_drop_for(s, STORE_AWAY_PROTOCOL, cause);
    return false;
}

static void on_conn_ready(struct redis_conn *c, void *user)
{
    struct redis_sync *s = user;
    (void)c;
    redis_sync_set_state(s, SYNC_CHECKING);
    redis_follow_check(s);
}

/* A reply that was too large would be too large every time: asks for fewer entries from now on. */
static void learn_from(struct redis_sync *s, enum err e)
{
    if (e == ERR_LIMIT && s->range_count > 1) s->range_count = s->range_count / 8 + 1;
    if (e == ERR_CONFLICT || e == ERR_REFUSED || e == ERR_UNREACHABLE || e == ERR_TLS || e == ERR_TIMEOUT)
        redis_master_distrust(s->master);
}

static void on_conn_closed(struct redis_conn *c, enum err e, const char *cause, void *user)
{
    struct redis_sync *s = user;
    (void)c;
    char why[REDIS_CAUSE_MAX];
    enum store_away_reason reason = s->drop_cause[0] ? s->drop_reason : reason_of(e);
    (void)snprintf(why, sizeof why, "%s", s->drop_cause[0] ? s->drop_cause : cause); /* same size */
    s->drop_cause[0] = '\0';
    s->conn = NULL;
    if (s->state == SYNC_CLOSING) {
        redis_sync_release_if_closed(s);
        return;
    }
    learn_from(s, e);
    redis_scrub_abort(s);
    if (s->state == SYNC_APPLYING) {
        note_failure(s, reason, why); /* what was read is complete: it goes on into force */
        return;
    }
    redis_load_discard(s);
    failed(s, reason, why);
}

static const struct redis_events conn_events = {.on_ready = on_conn_ready, .on_closed = on_conn_closed};

enum err redis_sync_dial(struct redis_sync *s, const struct socket_address *address,
                         const struct redis_events *events, void *user, struct redis_conn **out,
                         struct errmsg *why)
{
    const struct config_redis *config = &s->config->redis;
    const struct redis_access access = {.user = config->user,
                                        .password_file = config->password_file,
                                        .tls = &config->tls,
                                        .client_name = "proofgw",
                                        .must_be_master = true,
                                        .connect_timeout_ms = config->connect_timeout_ms,
                                        .command_timeout_ms = config->command_timeout_ms};
    return redis_dial(s->loop, &access, address, redis_master_name(s->master), events, user, out, why);
}

static bool same_address(const struct socket_address *a, const struct socket_address *b)
{
    return a->len == b->len && memcmp(&a->storage, &b->storage, a->len) == 0;
}

static enum store_away_reason reason_of_dial(enum err e)
{
    if (e == ERR_TLS) return STORE_AWAY_TLS;
    return e == ERR_REFUSED ? STORE_AWAY_LOGIN : STORE_AWAY_UNREACHABLE;
}

static void connect_to(struct redis_sync *s, const struct socket_address *address)
{
    struct errmsg why;
    if (!same_address(address, &s->address)) redis_report_move(s);
    s->address = *address;
    enum err e = redis_sync_dial(s, address, &conn_events, s, &s->conn, &why);
    if (e) {
        redis_master_distrust(s->master);
        failed(s, reason_of_dial(e), why.text);
        return;
    }
    redis_sync_set_state(s, SYNC_CONNECTING);
}

static void connect_now(struct redis_sync *s)
{
    struct socket_address address;
    enum err e = redis_master_ask(s->master, &address);
    if (e == ERR_AGAIN) {
        redis_sync_set_state(s, SYNC_LOCATING);
    } else if (e) {
        failed(s, STORE_AWAY_UNREACHABLE, "the name of the server has no address so far");
    } else {
        connect_to(s, &address);
    }
}

static void on_located(enum err e, const struct socket_address *address, const char *cause, void *user)
{
    struct redis_sync *s = user;
    if (s->state == SYNC_LOCATING && e) {
        failed(s, STORE_AWAY_SENTINEL, cause);
    } else if (s->state == SYNC_LOCATING) {
        connect_to(s, address);
    } else if (s->conn && !e && !same_address(address, &s->address)) {
        redis_sync_drop_for(s, STORE_AWAY_NOT_MASTER, "the Sentinels name another master now");
    }
}

/* A master that was cut off from the others does not know it: only the Sentinels do. */
static void on_ask(uv_timer_t *timer)
{
    struct redis_sync *s = timer->data;
    struct socket_address ignored; /* with Sentinels the answer comes later */
    loop_turn(s->loop);
    if (s->conn) (void)redis_master_ask(s->master, &ignored);
}

/* --- store_ops -------------------------------------------------------------------------------------- */

static uint64_t confirm(struct store *store)
{
    struct redis_sync *s = (struct redis_sync *)store;
    if (s->state == SYNC_CLOSING || !s->status.deletions_held) return 0;
    s->confirmed_drop = s->status.deletions_held;
    log_warn("store_deletion_confirmed", KV_UINT("at_most", s->confirmed_drop));
    if (s->state == SYNC_IDLE && !s->conn) retry_after(s, 0);
    return s->confirmed_drop;
}

static void reload(struct store *store)
{
    struct redis_sync *s = (struct redis_sync *)store;
    if (s->state == SYNC_CLOSING) return;
    /* While tailing, wait_for_changes() starts it. One that is under way may have read already what the
     * operator has changed since. */
    if (s->wanted == STORE_LOAD_NONE) s->wanted = STORE_LOAD_OPERATOR;
    if (s->load) s->is_wanted_again = true;
    if (s->state == SYNC_IDLE && !s->conn) retry_after(s, 0);
}

static void status(const struct store *store, struct store_status *out)
{
    const struct redis_sync *s = (const struct redis_sync *)store;
    uint64_t limit = s->config->redis.max_staleness_ms;
    *out = s->status;
    out->sequence = s->position.sequence;
    out->records_rejected = s->ledger.refused;
    out->staleness_ms = redis_sync_staleness_ms(s);
    out->is_too_stale = limit && out->staleness_ms > limit;
}

void redis_sync_release_if_closed(struct redis_sync *s)
{
    if (s->state != SYNC_CLOSING || s->nhandles > 0 || s->conn || s->scrub || s->copy || s->report ||
        s->master)
        return;
    void (*on_closed)(void *arg) = s->on_closed;
    void *arg = s->on_closed_arg;
    redis_copy_flush(s);
    ledger_deinit(&s->ledger);
    redis_hasher_destroy(s->hasher);
    bytes_deinit(&s->scratch);
    free(s);
    if (on_closed) on_closed(arg);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct redis_sync *s = handle->data;
    s->nhandles--;
    redis_sync_release_if_closed(s);
}

static void on_master_closed(void *arg)
{
    struct redis_sync *s = arg;
    s->master = NULL;
    redis_sync_release_if_closed(s);
}

static void close_store(struct store *store, void (*on_closed)(void *arg), void *arg)
{
    struct redis_sync *s = (struct redis_sync *)store;
    s->on_closed = on_closed;
    s->on_closed_arg = arg;
    bool is_applying = s->state == SYNC_APPLYING;
    redis_sync_set_state(s, SYNC_CLOSING);
    if (is_applying) {
        ledger_sync_abort(&s->ledger);
        s->position.is_known = false; /* what is in force is not of one position */
    }
    redis_load_discard(s);
    redis_scrub_abort(s);
    redis_copy_abort(s);
    redis_report_close(s);
    if (s->conn) redis_close(s->conn);
    for (unsigned i = 0, n = s->nhandles; i < n; i++) /* in the order of open_handles() */
        uv_close(i < SYNC_TIMERS ? (uv_handle_t *)&s->timers[i] : (uv_handle_t *)&s->apply, on_handle_closed);
    if (s->master)
        redis_master_close(s->master, on_master_closed, s);
    else
        redis_sync_release_if_closed(s);
}

static const struct store_ops redis_sync_ops = {
    .reload = reload, .confirm = confirm, .status = status, .close = close_store};

/* --- open ------------------------------------------------------------------------------------------- */

static enum err open_handles(struct redis_sync *s)
{
    for (unsigned i = 0; i < SYNC_TIMERS; i++, s->nhandles++) {
        if (uv_timer_init(&s->loop->uv, &s->timers[i])) return ERR_IO;
        s->timers[i].data = s;
    }
    if (uv_idle_init(&s->loop->uv, &s->apply)) return ERR_IO;
    s->apply.data = s;
    s->nhandles++;
    return ERR_OK;
}

static enum err start(struct redis_sync *s)
{
    if (!s->hasher) return ERR_NOMEM;
    enum err e = open_handles(s);
    if (!e) e = redis_master_open(s->loop, &s->config->redis, on_located, s, &s->master);
    if (!e) e = redis_report_open(s);
    if (e) return e;
    if (s->config->snapshot) redis_copy_load(s);
    if (redis_master_may_move(s->master))
        (void)uv_timer_start(&s->timers[SYNC_ASK], on_ask, s->options.ask_ms, s->options.ask_ms);
    redis_scrub_schedule(s);
    retry_after(s, 0);
    return ERR_OK;
}

enum err redis_sync_open(uv_loop_t *loop, const struct config_store *config, struct policy *policy,
                         const struct redis_sync_options *options, struct store **out)
{
    struct redis_sync *s = calloc(1, sizeof *s);
    if (!s) return ERR_NOMEM;
    s->store.ops = &redis_sync_ops;
    s->loop = loop->data;
    s->config = config;
    s->policy = policy;
    s->options = *options;
    s->range_count = options->range_count;
    s->wanted = STORE_LOAD_NONE;
    s->hasher = redis_hasher_create();
    redis_keys_init(&s->keys, config->redis.tag);
    ledger_init(&s->ledger, policy, s->hasher);
    enum err e = start(s);
    if (e) {
        close_store(&s->store, NULL, NULL);
        return e;
    }
    *out = &s->store;
    return ERR_OK;
}
