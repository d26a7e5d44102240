/* store.h - where partner data comes from; feeds the policy.
 *
 * One vtable, because there are two sources behind it: the file store (file_store.c) and Redis. A store
 * lives on the control loop, keeps the policy in step, and reports its state for readiness and metrics.
 * The store being away never empties the policy.
 *
 * Thread: [control].
 */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include "config/config.h"
#include "policy/policy.h"

#include <uv.h>

#include <stdio.h>

struct store;

/* Why a store with a change log read everything anew. */
#define STORE_LOAD_MAP(XX)                                                                                   \
    XX(FIRST, "first")             /* nothing was known before */                                            \
    XX(TRIMMED, "trimmed")         /* the log does not reach back to where we were */                        \
    XX(REWOUND, "rewound")         /* the source is older than we are: a restored dump */                    \
    XX(LOST_WRITES, "lost_writes") /* another change has the number of one we have: a failover */            \
    XX(EPOCH, "epoch")             /* the data set was made anew */                                          \
    XX(GAP, "gap")                 /* a change is missing in the log */                                      \
    XX(DIGEST, "digest")           /* count or digest differ */                                              \
    XX(SCRUB, "scrub")             /* records were changed by hand */                                        \
    XX(OPERATOR, "operator")       /* SIGHUP: reload() */

enum store_load_reason {
#define XX(name, text) STORE_LOAD_##name,
    STORE_LOAD_MAP(XX)
#undef XX
        STORE_LOAD_REASONS,
    STORE_LOAD_NONE = STORE_LOAD_REASONS,
};

/* "first", "trimmed" ... */
const char *store_load_reason_text(enum store_load_reason r);

/* Why a store with a server is not in step with it. */
#define STORE_AWAY_MAP(XX)                                                                                   \
    XX(UNREACHABLE, "unreachable") /* no connection: nobody listens, no route, no address for the name */    \
    XX(TIMEOUT, "timeout")         /* no answer in time */                                                   \
    XX(CLOSED, "closed")           /* the server closed the connection */                                    \
    XX(RESET, "reset")             /* the connection broke */                                                \
    XX(LOGIN, "login")             /* NOAUTH, WRONGPASS, NOPERM, or a password file that cannot be used */   \
    XX(TLS, "tls")                 /* the server is not who it should be, or files cannot be used */         \
    XX(LOADING, "loading")         /* LOADING, BUSY */                                                       \
    XX(NOT_MASTER, "not_master")   /* a replica, or the Sentinels name another server now */                 \
    XX(SENTINEL, "sentinel")       /* no Sentinel says where the master is */                                \
    XX(PROTOCOL, "protocol")       /* an answer that makes no sense */                                       \
    XX(NO_DATA, "no_data")         /* there is no data set: FLUSHALL, an empty server */                     \
    XX(SCHEMA, "schema")           /* the data set is of another program */                                  \
    XX(OTHER, "other")             /* the log says it */

enum store_away_reason {
#define XX(name, text) STORE_AWAY_##name,
    STORE_AWAY_MAP(XX)
#undef XX
        STORE_AWAY_REASONS,
};

/* "unreachable", "timeout" ... */
const char *store_away_reason_text(enum store_away_reason r);

struct store_status {
    bool up; /* the source answers (file: the last read succeeded; Redis: changes are followed) */
    uint64_t loaded_at_ms; /* wall clock of the last successful load; 0 = never */
    uint64_t loads_total, load_failures_total;
    uint64_t records_rejected; /* of the last load attempt */
    uint64_t load_us;          /* duration of the last successful load */
    char last_error[240];      /* of the last failed attempt; "" when the last one succeeded */

    /* Only with Redis; zero otherwise. */
    bool is_too_stale;    /* out of reach for longer than store.redis.max_staleness: not ready */
    bool is_inconsistent; /* the count or digest that Redis keeps is not that of its own records */
    uint64_t
        staleness_ms;  /* since the data was last known to be that of Redis; up to 5 s while all is well */
    uint64_t sequence; /* of the last change in force */
    uint64_t full_loads_total[STORE_LOAD_REASONS];
    uint64_t away_total[STORE_AWAY_REASONS]; /* how often it fell out of step, or a new try was in vain */
    uint64_t deletions_held; /* partners that a held resynchronisation would drop; 0 = none is held */
    uint64_t scrubs_total;   /* completed ones */
    uint64_t scrub_repairs_total;
    uint64_t snapshot_at_ms; /* wall clock of the last one written or loaded; 0 = none */
    uint64_t snapshot_failures_total;
    uint64_t report_failures_total; /* positions that could not be reported to Redis */
};

struct store_ops {
    /* Reads everything again, behind a load that is under way if there is one. What is held stays held. */
    void (*reload)(struct store *s);
    /* An operator agrees that the load that is held drops at most as many partners as it announced
     * (store_status.deletions_held). It is tried again at once. Returns that number; 0 = nothing is held,
     * and nothing was done: what is held later is not confirmed. */
    uint64_t (*confirm)(struct store *s);
    void (*status)(const struct store *s, struct store_status *out);
    void (*close)(struct store *s, void (*on_closed)(void *arg), void *arg); /* asynchronous; frees s */
};

struct store {
    const struct store_ops *ops;
};

/* Opens the store that the configuration names, loads it once and goes on watching. A first load that fails
 * is not an error here: the policy stays not ready, the status says why. Errors: ERR_NOMEM, ERR_IO (the loop
 * refused a handle). */
enum err store_open(uv_loop_t *loop, const struct config *config, struct policy *policy, struct store **out);

/* For `proofgw check`: what is wrong with the partner file as it is now, one line per fault; with Redis, the
 * files that opening the store would read later (passwords, TLS). Warnings in `report`: a gateway starts
 * without them as well, and tries again. Blocks on the disk: for commands. */
void store_check(const struct config *config, FILE *report);

/* Gives the memory that a load has left behind back to the system: half as much again as the policy takes. */
void store_trim(void);

#endif
