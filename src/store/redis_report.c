/* What this gateway has in force, said in Redis, so that `proofctl` can wait for a change and list gateways:
 * a key that expires, written on a connection of its own, because the other one is blocked in XREAD. It is a
 * courtesy to operators: whatever goes wrong here never touches the following of changes. */
#include "store/redis_sync_state.h"

#include "base/clock.h"
#include "base/json_out.h"
#include "base/log.h"
#include "base/random.h"

#include "gw_version.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    INSTANCE_CHARS = 16,
    HOST_MAX = 256,
    REPORT_BYTES_MAX = 3072, /* with a host name and an epoch that are all escapes */
    EXPIRES_AFTER = 3,       /* reports that may fail before the gateway is not listed any more */
};

struct redis_report {
    char instance[INSTANCE_CHARS + 1]; /* this process */
    char key[REDIS_KEY_MAX + INSTANCE_CHARS];
    char host[HOST_MAX];
    uint64_t started_ms; /* wall clock */
    /* what is reported, as far as it is not read off the store */
    uint64_t sequence;
    uint64_t changed_at_ms; /* wall clock: since when `sequence` is in force */
    /* the connection */
    struct redis_conn *conn; /* NULL when there is none */
    bool is_ready;           /* conn takes commands */
    bool is_waiting;         /* for the answer to a report */
    bool is_stored;          /* Redis has taken a report: there is something to take back */
    bool is_refused;         /* Redis does not take it; said once */
    bool is_closing;
    /* the timer */
    bool is_hurried;      /* it expires before the regular interval is over */
    uint64_t last_try_ms; /* loop time */
};

static void on_timer(uv_timer_t *timer);

static void arm(struct redis_sync *s, uint64_t ms)
{
    (void)uv_timer_start(&s->timers[SYNC_REPORT], on_timer, ms, 0); /* fails only while closing */
}

/* --- the text --------------------------------------------------------------------------------------- */

static const char *state_text(const struct redis_sync *s)
{
    if (s->state == SYNC_TAILING) return "live";
    bool is_loading = s->state == SYNC_LOADING || s->state == SYNC_APPLYING;
    return is_loading || !policy_is_ready(s->policy) ? "loading" : "stale";
}

static size_t write_text(const struct redis_sync *s, char *text, size_t cap)
{
    const struct redis_report *r = s->report;
    struct outbuf o = outbuf_of(text, cap);
    struct store_status status;
    struct policy_stats policy;
    s->store.ops->status(&s->store, &status);
    policy_stats(s->policy, &policy);
    struct json_out j = json_out_of(&o);
    json_out_object(&j, NULL);
    json_out_text(&j, "instance", r->instance);
    json_out_text(&j, "version", GW_VERSION);
    json_out_u64(&j, "pid", (uint64_t)getpid());
    json_out_text(&j, "host", r->host);
    json_out_u64(&j, "seq", r->sequence);
    json_out_text(&j, "epoch", s->position.epoch);
    json_out_text(&j, "state", state_text(s));
    json_out_u64(&j, "partners", policy.partners);
    json_out_u64(&j, "last_change_ms", r->changed_at_ms);
    json_out_u64(&j, "staleness_ms", status.staleness_ms);
    json_out_u64(&j, "started_ms", r->started_ms);
    json_out_end_object(&j);
    BUG_IF(o.overflow, "a report is longer than it can be");
    return o.n;
}

/* --- sending ---------------------------------------------------------------------------------------- */

/* Redis answered, and does not take it: rights, no space, too few replicas. */
static void note_refusal(struct redis_sync *s, const redisReply *reply)
{
    char cause[REDIS_CAUSE_MAX];
    (void)redis_error_explain(reply, cause, sizeof cause); /* the text is all that is needed */
    if (!s->report->is_refused)
        log_warn("store_report_refused", KV_STR("key", s->report->key), KV_STR("cause", cause),
                 KV_STR("hint", "the gateway works, but proofctl does not see it: docs/DATA.md, Rights"));
    s->report->is_refused = true;
}

static void on_stored(struct redis_conn *c, const redisReply *reply, void *arg)
{
    struct redis_sync *s = arg;
    struct redis_report *r = s->report;
    (void)c;
    r->is_waiting = false;
    bool is_taken = reply && reply->type != REDIS_REPLY_ERROR;
    if (is_taken) {
        r->is_stored = true;
        r->is_refused = false;
        return;
    }
    s->status.report_failures_total++;
    if (reply) note_refusal(s, reply);
}

static void send_report(struct redis_sync *s)
{
    struct redis_report *r = s->report;
    char text[REPORT_BYTES_MAX], expiry[24];
    size_t n = write_text(s, text, sizeof text);
    r->last_try_ms = uv_now(&s->loop->uv);
    (void)snprintf(expiry, sizeof expiry, "%" PRIu64, EXPIRES_AFTER * s->options.report_ms); /* fits */
    const char *const argv[] = {"SET", r->key, text, "PX", expiry};
    const size_t lengths[] = {3, strlen(r->key), n, 2, strlen(expiry)};
    r->is_waiting = redis_command(r->conn, 0, on_stored, s, 5, argv, lengths) == ERR_OK;
    if (!r->is_waiting) s->status.report_failures_total++;
}

/* --- the connection --------------------------------------------------------------------------------- */

static void on_conn_ready(struct redis_conn *c, void *user)
{
    struct redis_sync *s = user;
    (void)c;
    s->report->is_ready = true;
    send_report(s);
}

static void report_free(struct redis_sync *s)
{
    free(s->report);
    s->report = NULL;
}

static void on_conn_closed(struct redis_conn *c, enum err e, const char *cause, void *user)
{
    struct redis_sync *s = user;
    struct redis_report *r = s->report;
    (void)c, (void)cause; /* the connection that follows changes says it, to the same server */
    r->conn = NULL;
    r->is_ready = r->is_waiting = false;
    if (!r->is_closing) {
        if (e != ERR_CLOSED) s->status.report_failures_total++;
        return;
    }
    report_free(s);
    redis_sync_release_if_closed(s);
}

static const struct redis_events conn_events = {.on_ready = on_conn_ready, .on_closed = on_conn_closed};

static void dial(struct redis_sync *s)
{
    struct errmsg why;
    if (s->address.len == 0) return; /* no server is known so far */
    if (redis_sync_dial(s, &s->address, &conn_events, s, &s->report->conn, &why))
        s->status.report_failures_total++;
}

static void on_timer(uv_timer_t *timer)
{
    struct redis_sync *s = timer->data;
    struct redis_report *r = s->report;
    loop_turn(s->loop);
    r->last_try_ms = uv_now(&s->loop->uv);
    r->is_hurried = false;
    arm(s, s->options.report_ms);
    if (!r->conn)
        dial(s);
    else if (r->is_waiting)
        redis_report_hurry(s); /* what is on its way does not have the latest */
    else if (r->is_ready)
        send_report(s);
}

/* --- for the store ---------------------------------------------------------------------------------- */

static void note_position(struct redis_sync *s)
{
    if (s->report->sequence == s->position.sequence) return;
    s->report->sequence = s->position.sequence;
    s->report->changed_at_ms = clock_wall_ms();
}

void redis_report_hurry(struct redis_sync *s)
{
    struct redis_report *r = s->report;
    if (!r || r->is_closing) return;
    note_position(s);
    /* Without a connection, only that the other one was made is a reason to try before it is time. */
    bool is_useful = r->conn ? !r->is_refused : s->state == SYNC_CHECKING;
    if (!is_useful || r->is_hurried) return;
    r->is_hurried = true;
    uint64_t now = uv_now(&s->loop->uv), next = r->last_try_ms + s->options.report_gap_ms;
    arm(s, next > now ? next - now : 0);
}

void redis_report_move(struct redis_sync *s)
{
    if (s->report->conn) redis_close(s->report->conn);
}

enum err redis_report_open(struct redis_sync *s)
{
    unsigned char random[INSTANCE_CHARS / 2];
    size_t host_bytes = HOST_MAX;
    if (random_bytes(random, sizeof random)) return ERR_IO;
    struct redis_report *r = calloc(1, sizeof *r);
    if (!r) return ERR_NOMEM;
    for (size_t i = 0; i < sizeof random; i++)
        (void)snprintf(r->instance + 2 * i, 3, "%02x", random[i]);                /* fits */
    (void)snprintf(r->key, sizeof r->key, "%s%s", s->keys.gateways, r->instance); /* fits */
    if (uv_os_gethostname(r->host, &host_bytes)) r->host[0] = '\0';
    r->started_ms = clock_wall_ms();
    s->report = r;
    arm(s, s->options.report_ms);
    return ERR_OK;
}

static void on_taken_back(struct redis_conn *c, const redisReply *reply, void *arg)
{
    (void)c, (void)reply, (void)arg; /* nobody waits for it: what stays there expires */
}

void redis_report_close(struct redis_sync *s)
{
    struct redis_report *r = s->report;
    if (!r) return;
    r->is_closing = true;
    if (!r->conn) {
        report_free(s);
        return;
    }
    /* The command is with the kernel before the connection is closed, and Redis reads it before the end. */
    const char *const argv[] = {"DEL", r->key};
    if (r->is_stored && r->is_ready) (void)redis_command(r->conn, 0, on_taken_back, s, 2, argv, NULL);
    redis_close(r->conn);
}
