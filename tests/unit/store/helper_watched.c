#include "helper_watched.h"

#include "helper_records.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { DEADLINE_MS = 20000, NO_POLL_MS = 3600 * 1000 };

const struct file_store_options watched_by_event = {
    .watch = {.quiet_ms = 20, .quiet_max_ms = 200, .poll_ms = NO_POLL_MS}, .slice_us = 1000};
const struct file_store_options watched_by_poll = {
    .watch = {.quiet_ms = 20, .quiet_max_ms = 200, .poll_ms = 20}, .slice_us = 1000};

static void on_beat(uv_timer_t *timer)
{
    (void)timer;
}

int watched_setup(void **state)
{
    struct watched *f = calloc(1, sizeof *f);
    assert_non_null(f);
    folder_make(f->folder);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    assert_int_equal(uv_timer_init(&f->loop, &f->beat), 0);
    assert_int_equal(uv_timer_start(&f->beat, on_beat, 5, 5), 0);
    f->policy = policy_create();
    assert_non_null(f->policy);
    *state = f;
    return 0;
}

static void on_closed(void *arg)
{
    struct watched *f = arg;
    f->nclosed++;
    f->store = NULL;
}

void watched_close(struct watched *f)
{
    f->store->ops->close(f->store, on_closed, f);
}

int watched_teardown(void **state)
{
    struct watched *f = *state;
    if (f->store) watched_close(f);
    uv_close((uv_handle_t *)&f->beat, NULL);
    assert_int_equal(uv_run(&f->loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&f->loop), 0); /* no handle is left */
    assert_int_equal(f->nclosed, 1);
    policy_destroy(f->policy);
    folder_remove(f->folder);
    free(f);
    return 0;
}

void watched_open(struct watched *f, const char *path, const struct file_store_options *options)
{
    assert_int_equal(file_store_open(&f->loop, path, f->policy, options, &f->store), ERR_OK);
}

void watched_write(struct watched *f, const char *name, unsigned first, unsigned n, unsigned edition)
{
    FILE *out = fopen(folder_path(f->folder, name), "w");
    char line[RECORD_LINE_MAX];
    assert_non_null(out);
    for (unsigned i = first; i < first + n; i++)
        fwrite(line, 1, record_line(i, edition, line), out);
    assert_int_equal(fclose(out), 0);
}

struct store_status watched_status(const struct watched *f)
{
    struct store_status s;
    f->store->ops->status(f->store, &s);
    return s;
}

uint32_t watched_partners(const struct watched *f)
{
    struct policy_stats stats;
    policy_stats(f->policy, &stats);
    return stats.partners;
}

bool watched_has(const struct watched *f, const char *id)
{
    return policy_find(f->policy, span_str(id)) != PARTNER_INDEX_NONE;
}

void watched_turn(struct watched *f, uint64_t deadline_ms, const char *condition)
{
    if (uv_now(&f->loop) > deadline_ms) fail_msg("waited in vain for: %s", condition);
    (void)uv_run(&f->loop, UV_RUN_ONCE);
}

uint64_t watched_deadline(const struct watched *f)
{
    return uv_now(&f->loop) + DEADLINE_MS;
}
