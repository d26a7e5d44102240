/* helper_sync.h - the Redis store on a real loop, with a real server. */
#ifndef STORE_HELPER_SYNC_H
#define STORE_HELPER_SYNC_H

#include "helper_partners.h"
#include "net/loop.h"
#include "store/redis_sync.h"

struct sync {
    struct partners redis; /* with an empty data set of epoch "e1", unless the test stops it */
    bool is_skipped;       /* there is no redis-server here */
    char folder[FOLDER_PATH_MAX];
    struct config_store config;
    struct redis_sync_options options; /* quick ones */
    struct loop loop;
    uv_timer_t beat; /* wakes the loop up, so that conditions and the deadline are looked at */
    struct policy *policy;
    struct store *store; /* NULL when it is closed */
};

/* For cmocka. */
int sync_setup(void **state);
int sync_teardown(void **state);

/* The fixture; skips the test when there is no redis-server. */
struct sync *sync_of(void **state);

void sync_open(struct sync *f);
void sync_close(struct sync *f);
/* Closed, and forgotten what was in memory: a new process. */
void sync_restart(struct sync *f);

/* A store that is in step with `n` partners; skips as sync_of() does. */
struct sync *sync_followed(void **state, unsigned n);
/* The same, and then cut off from the server. */
struct sync *sync_cut_off(void **state, unsigned n);

struct store_status sync_status(const struct sync *f);
/* What is said last of the server. */
bool sync_error_says(const struct sync *f, const char *text);
/* How often it was away for that reason. */
uint64_t sync_away(const struct sync *f, enum store_away_reason reason);
/* Whether a partner is in force. */
bool sync_has(const struct sync *f, unsigned number);
uint32_t sync_partners(const struct sync *f);
/* The off_ramp flag of a partner, which tells editions apart. */
bool sync_off_ramp(const struct sync *f, unsigned number);

/* One turn of the loop; fails the test when the deadline has passed. */
void sync_turn(struct sync *f, uint64_t deadline_ms, const char *condition);
uint64_t sync_deadline(void);

#define SYNC_UNTIL(f, condition)                                                                             \
    for (uint64_t until_ = sync_deadline(); !(condition);)                                                   \
    sync_turn(f, until_, #condition)

/* Waits until everything that was written so far is in force. */
void sync_catch_up(struct sync *f);
/* The same after it was cut off. */
void sync_come_back(struct sync *f);

/* Full loads for that reason. */
uint64_t sync_loads_for(const struct sync *f, enum store_load_reason reason);

#endif
