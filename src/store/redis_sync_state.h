/* redis_sync_state.h - what the files of redis_sync share. Internal to them.
 *
 * Thread: [control].
 */
#ifndef STORE_REDIS_SYNC_STATE_H
#define STORE_REDIS_SYNC_STATE_H

#include "store/backoff.h"
#include "store/ledger.h"
#include "store/redis_dial.h"
#include "store/redis_log.h"
#include "store/redis_master.h"
#include "store/redis_record.h"
#include "store/redis_sync.h"
#include "store/snapshot.h"

enum redis_sync_state {
    SYNC_IDLE = 0,   /* no connection; `retry` runs, but before the first one */
    SYNC_LOCATING,   /* no connection; the Sentinels were asked */
    SYNC_CONNECTING, /* conn */
    SYNC_CHECKING,   /* conn: does the log reach back to us? */
    SYNC_LOADING,    /* conn, load: records are staged */
    SYNC_APPLYING,   /* load: the idle handle brings it into force; conn, or NULL when it broke meanwhile */
    SYNC_TAILING,    /* conn: in step */
    SYNC_CLOSING,    /* everything is being closed */
};

/* What is in force, in terms of the log. */
struct redis_position {
    bool is_known; /* else only a full load helps */
    uint64_t sequence;
    char nonce[REDIS_NONCE_MAX + 1]; /* of that entry; "" when it was not in the log */
    char epoch[REDIS_EPOCH_MAX + 1];
    uint64_t exact_from; /* from this sequence on count and digest agree (a snapshot is not of one moment) */
    int64_t count_bias;  /* Redis's count less that of its records */
    uint64_t digest_bias;
};

struct redis_load;   /* redis_load.c */
struct redis_scrub;  /* redis_scrub.c */
struct redis_copy;   /* redis_copy.c */
struct redis_report; /* redis_report.c */

/* Handles of libuv. */
enum { SYNC_RETRY = 0, SYNC_ASK, SYNC_SCRUB, SYNC_COPY, SYNC_REPORT, SYNC_TIMERS };

struct redis_sync {
    struct store store; /* first: a struct store * is a struct redis_sync * */
    /* set once */
    struct loop *loop;
    const struct config_store *config;
    struct policy *policy;
    struct redis_sync_options options;
    struct redis_keys keys;
    struct redis_hasher *hasher; /* owned */
    /* state */
    enum redis_sync_state state;
    struct ledger ledger;
    struct redis_position position;
    enum store_load_reason wanted; /* a full load is due, whatever the log says; STORE_LOAD_NONE = not */
    bool is_wanted_again;          /* and another one behind the one that is under way */
    unsigned range_count;          /* entries to ask for now: fewer after a reply that was too large */
    bool is_behind;                /* tailing: meta was ahead of us, so the next XREAD must return entries */
    struct backoff backoff;
    struct {
        bool is_known; /* the last load found this difference to what Redis says */
        int64_t count;
        uint64_t digest;
    } difference;
    uint64_t confirmed_drop; /* an operator agreed to drop so many partners */
    uint64_t current_us; /* monotonic: when we were last known to be in step, or took a snapshot; 0 = never */
    uint64_t age_ms;     /* how old the data was then: that of a snapshot */
    char drop_cause[REDIS_CAUSE_MAX];   /* why we closed the connection ourselves; "" = we did not */
    enum store_away_reason drop_reason; /* valid with drop_cause */
    char logged_cause[REDIS_CAUSE_MAX];
    struct store_status status;
    /* owned */
    struct redis_master *master;   /* NULL when it is closed */
    struct redis_conn *conn;       /* NULL when there is none */
    struct socket_address address; /* of conn */
    struct redis_load *load;       /* while LOADING and APPLYING */
    struct redis_scrub *scrub;     /* while one runs */
    struct redis_copy *copy;       /* while one is written */
    struct redis_report *report;   /* NULL before start() and when it is closed */
    bool is_copy_due;              /* something has changed since the last one began */
    uint64_t copy_pause_ms;        /* at least this long to the next one */
    struct bytes scratch;          /* JSON of the record being read */
    uv_timer_t timers[SYNC_TIMERS];
    uv_idle_t apply;
    unsigned nhandles; /* initialised and not closed */
    void (*on_closed)(void *arg);
    void *on_closed_arg;
};

/* --- redis_sync.c ------------------------------------------------------------------------------------ */

void redis_sync_set_state(struct redis_sync *s, enum redis_sync_state to);

/* Closes the connection because of `cause`; the rest follows when it is closed. The first cause counts. */
void redis_sync_drop_for(struct redis_sync *s, enum store_away_reason reason, const char *cause);

/* The same for STORE_AWAY_OTHER. */
void redis_sync_drop(struct redis_sync *s, const char *cause);

/* Without a connection: tries again after a pause (back-off). */
void redis_sync_retry(struct redis_sync *s);

/* Sends a command on the main connection; a failure drops it. */
void redis_sync_send(struct redis_sync *s, uint64_t timeout_ms, redis_reply_fn fn, void *arg, int argc,
                     const char *const *argv);

/* Whether a reply on the main connection can be used; when it is an error the connection is dropped. `doing`:
 * the command, for the log. */
bool redis_sync_check(struct redis_sync *s, const redisReply *reply, const char *doing);

/* The same for a reply that must be an array. */
bool redis_sync_check_array(struct redis_sync *s, const redisReply *reply, const char *doing);

/* redis_dial() to `address` as the configuration asks for. */
enum err redis_sync_dial(struct redis_sync *s, const struct socket_address *address,
                         const struct redis_events *events, void *user, struct redis_conn **out,
                         struct errmsg *why);

/* We are known to be in step at this moment. */
void redis_sync_confirm(struct redis_sync *s);

/* How long ago that was; 0 = never, or now. */
uint64_t redis_sync_staleness_ms(const struct redis_sync *s);

/* Logs what the validator said about a record. */
void redis_sync_log_report(const char *id, uint64_t version, const struct record_report *report);

/* Frees the store when it is closing and nothing is open any more. */
void redis_sync_release_if_closed(struct redis_sync *s);

/* A random moment from 0.75 to 1.25 times `ms`. */
uint64_t redis_sync_jitter(uint64_t ms);

/* --- redis_follow.c ---------------------------------------------------------------------------------- */

/* The connection is ready: finds out whether the log can be taken up where we are. */
void redis_follow_check(struct redis_sync *s);

/* In step: waits for changes. */
void redis_follow_tail(struct redis_sync *s);

/* Asks for the meta hash. */
void redis_follow_ask_meta(struct redis_sync *s, redis_reply_fn fn, void *arg);

/* XRANGE from a sequence on. */
void redis_follow_ask_range(struct redis_sync *s, uint64_t from, redis_reply_fn fn, void *arg);

/* --- redis_load.c ------------------------------------------------------------------------------------ */

/* Starts a full load on the connection. */
void redis_load_start(struct redis_sync *s, enum store_load_reason reason);

/* Frees the load that is under way, if any. */
void redis_load_discard(struct redis_sync *s);

/* --- redis_scrub.c ----------------------------------------------------------------------------------- */

/* (Re)starts the timer to the next scrub. */
void redis_scrub_schedule(struct redis_sync *s);
/* Position or connection have changed: something that the scrub waited for may have come. */
void redis_scrub_on_progress(struct redis_sync *s);
/* Gives up the scrub that is under way, if any. */
void redis_scrub_abort(struct redis_sync *s);

/* --- redis_report.c ---------------------------------------------------------------------------------- */

/* Errors: ERR_NOMEM, ERR_IO (no random numbers). */
enum err redis_report_open(struct redis_sync *s);
/* Position or state have changed: a report is due soon. */
void redis_report_hurry(struct redis_sync *s);
/* The server has changed: the report goes to the new one. */
void redis_report_move(struct redis_sync *s);
/* Takes the report back, if there is a connection; s->report is NULL when that is closed. */
void redis_report_close(struct redis_sync *s);

/* --- redis_copy.c ------------------------------------------------------------------------------------ */

/* Loads the snapshot into the policy, at the start. */
void redis_copy_load(struct redis_sync *s);
/* Something has changed: a snapshot is due some time soon. */
void redis_copy_schedule(struct redis_sync *s);
/* Gives up the snapshot that is being written, if any. */
void redis_copy_abort(struct redis_sync *s);
/* Writes the snapshot that is due, if any, before it returns: for an orderly close. Blocks. */
void redis_copy_flush(struct redis_sync *s);

#endif
