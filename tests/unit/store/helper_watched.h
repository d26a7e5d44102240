/* helper_watched.h - a file store on a real loop, in a folder of its own. Every wait is for a condition, with
 * a deadline. */
#ifndef STORE_HELPER_WATCHED_H
#define STORE_HELPER_WATCHED_H

#include "store/file_store.h"
#include "support/folder.h"

struct watched {
    char folder[FOLDER_PATH_MAX];
    uv_loop_t loop;
    uv_timer_t beat; /* wakes the loop up, so that conditions and the deadline are looked at */
    struct policy *policy;
    struct store *store; /* NULL when it is closed */
    unsigned nclosed;
};

extern const struct file_store_options watched_by_event, watched_by_poll;

/* cmocka set-up and tear-down: `*state` is a struct watched whose store is to be opened. */
int watched_setup(void **state);
int watched_teardown(void **state);

void watched_open(struct watched *f, const char *path, const struct file_store_options *options);
void watched_close(struct watched *f);

/* Writes the records `first` to `first + n - 1` in place. */
void watched_write(struct watched *f, const char *name, unsigned first, unsigned n, unsigned edition);

struct store_status watched_status(const struct watched *f);
uint32_t watched_partners(const struct watched *f);
bool watched_has(const struct watched *f, const char *id);

/* One turn of the loop; fails the test when the deadline has passed. */
void watched_turn(struct watched *f, uint64_t deadline_ms, const char *condition);
uint64_t watched_deadline(const struct watched *f);

#define WATCHED_UNTIL(f, condition)                                                                          \
    for (uint64_t until_ = watched_deadline(f); !(condition);)                                               \
    watched_turn(f, until_, #condition)

#endif
