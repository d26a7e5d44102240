/* redis_sync.h - partner data from Redis: loads it, follows its changes, and survives without it.
 *
 *           .---------- back-off, jittered <-------------------- any failure ------------------------.
 *           v                                                                                        |
 *        IDLE -> LOCATING -> CONNECTING -> CHECKING -- the log reaches back to us --> TAILING -------+
 *                                             |                                        |    ^        |
 *                                             |   gap, digest, epoch, trimmed ...      |    |        |
 *                                             '------------> LOADING <-----------------'    |        |
 *                                                               | complete and plausible    |        |
 *                                                               '------------> APPLYING ----'        |
 *                                                                                                    |
 *   Redis is away, or a load is not plausible: the policy stays as it is -----------------------------'
 *
 * A load is staged beside the policy (stage.h) and reaches it only when its count and digest are those that
 * Redis keeps, and when it does not drop more partners than configured. While following, count and digest are
 * compared after every change, and the log is contiguous: what is in memory is what is in Redis, or it is
 * noticed.
 *
 * Should the records in Redis themselves not have the count and digest that Redis keeps (somebody deleted a
 * key by hand), loading again does not help. A difference that two loads in a row find the same is taken as
 * it is, reported (is_inconsistent), and added to every comparison from then on: the bias.
 *
 * Files: redis_sync.c life and connection, redis_follow.c resuming and tailing, redis_load.c full loads,
 * redis_scrub.c finding changes by hand, redis_copy.c the snapshot, redis_report.c the position for
 * operators.
 *
 * docs/DATA.md describes the protocol and every failure.
 *
 * Thread: [control].
 */
#ifndef STORE_REDIS_SYNC_H
#define STORE_REDIS_SYNC_H

#include "store/store.h"

struct redis_sync_options {
    uint64_t block_ms;          /* a quiet connection is checked so often */
    uint64_t watchdog_ms;       /* and given up when its answer is so late */
    uint64_t ask_ms;            /* the Sentinels are asked again so often */
    uint64_t held_ms;           /* a held load is tried again after this */
    uint64_t slice_us;          /* longest turn of applying partners */
    unsigned scan_count;        /* keys per SCAN of a load */
    unsigned range_count;       /* log entries per reply, at most */
    unsigned scrub_count;       /* keys per SCAN of a scrub ... */
    uint64_t scrub_pause_ms;    /* ... and the pause behind it */
    uint64_t snapshot_quiet_ms; /* from a change to the snapshot */
    uint64_t report_ms;         /* the position is reported so often; it is kept three times as long */
    uint64_t report_gap_ms;     /* at least this long from one report to the next */
};

extern const struct redis_sync_options redis_sync_defaults;

/* Loads the snapshot, if there is one (blocking, so that the policy is ready before a listener opens), then
 * connects and goes on by itself. `loop->data` is the struct loop; `config` and `policy` must outlive the
 * store. Owns: the caller, until (*out)->ops->close(). Errors: ERR_NOMEM, ERR_IO (the loop refused a handle),
 * ERR_RANGE. */
enum err redis_sync_open(uv_loop_t *loop, const struct config_store *config, struct policy *policy,
                         const struct redis_sync_options *options, struct store **out);

#endif
