#include "helper_sync.h"

#include "base/clock.h"
#include "policy/partner_view.h"
#include "support/skip.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { DEADLINE_MS = 20000, BUFFER_BYTES = 64 * 1024, HOUR_MS = 3600 * 1000 };

static const struct redis_sync_options quick = {.block_ms = 100,
                                                .watchdog_ms = 1000,
                                                .ask_ms = 200,
                                                .held_ms = 100,
                                                .slice_us = 200,
                                                .scan_count = 10,
                                                .range_count = 10,
                                                .scrub_count = 10,
                                                .scrub_pause_ms = 1,
                                                .snapshot_quiet_ms = 10,
                                                .report_ms = 100,
                                                .report_gap_ms = 20};

static void on_beat(uv_timer_t *timer)
{
    loop_turn(timer->data);
}

static void make_config(struct sync *f)
{
    folder_write_secret(f->folder, "password", GATEWAY_PASSWORD "\n");
    f->config = (struct config_store){.kind = STORE_REDIS,
                                      .redis = {.address.kind = ENDPOINT_UNIX,
                                                .user = strdup("gateway"),
                                                .password_file = strdup(folder_path(f->folder, "password")),
                                                .tag = strdup("cfg"),
                                                .connect_timeout_ms = 2000,
                                                .command_timeout_ms = 5000,
                                                .deletion_limit = 20,
                                                .scrub_interval_ms = HOUR_MS}};
    snprintf(f->config.redis.address.host, sizeof f->config.redis.address.host, "%s",
             f->redis.server.address.un.sun_path);
}

int sync_setup(void **state)
{
    struct sync *f = calloc(1, sizeof *f);
    assert_non_null(f);
    *state = f;
    f->is_skipped = !redis_server_is_installed();
    if (f->is_skipped) return 0;
    partners_start(&f->redis);
    partners_init(&f->redis, "e1");
    folder_make(f->folder);
    make_config(f);
    f->options = quick;
    assert_int_equal(loop_init(&f->loop, BUFFER_BYTES, NULL), ERR_OK);
    assert_int_equal(uv_timer_init(&f->loop.uv, &f->beat), 0);
    f->beat.data = &f->loop;
    assert_int_equal(uv_timer_start(&f->beat, on_beat, 2, 2), 0);
    f->policy = policy_create();
    assert_non_null(f->policy);
    return 0;
}

int sync_teardown(void **state)
{
    struct sync *f = *state;
    if (!f->is_skipped) {
        if (f->store) sync_close(f);
        uv_close((uv_handle_t *)&f->beat, NULL);
        loop_close(&f->loop);
        loop_run(&f->loop);
        loop_deinit(&f->loop); /* no handle is left */
        policy_destroy(f->policy);
        partners_stop(&f->redis);
        folder_remove(f->folder);
        free(f->config.redis.user);
        free(f->config.redis.password_file);
        free(f->config.redis.tag);
        free(f->config.snapshot);
    }
    free(f);
    return 0;
}

struct sync *sync_of(void **state)
{
    struct sync *f = *state;
    if (f->is_skipped) SKIP("there is no redis-server here");
    return f;
}

void sync_open(struct sync *f)
{
    assert_int_equal(redis_sync_open(&f->loop.uv, &f->config, f->policy, &f->options, &f->store), ERR_OK);
}

static void on_closed(void *arg)
{
    struct sync *f = arg;
    f->store = NULL;
}

void sync_close(struct sync *f)
{
    f->store->ops->close(f->store, on_closed, f);
    SYNC_UNTIL(f, !f->store);
}

void sync_restart(struct sync *f)
{
    sync_close(f);
    policy_destroy(f->policy);
    f->policy = policy_create();
    assert_non_null(f->policy);
    sync_open(f);
}

struct store_status sync_status(const struct sync *f)
{
    struct store_status s;
    f->store->ops->status(f->store, &s);
    return s;
}

bool sync_error_says(const struct sync *f, const char *text)
{
    return strstr(sync_status(f).last_error, text) != NULL;
}

uint64_t sync_away(const struct sync *f, enum store_away_reason reason)
{
    return sync_status(f).away_total[reason];
}

static const struct partner_view *view_of(const struct sync *f, unsigned number)
{
    return policy_view(f->policy, policy_find(f->policy, span_str(partners_id(number))));
}

bool sync_has(const struct sync *f, unsigned number)
{
    return view_of(f, number) != NULL;
}

bool sync_off_ramp(const struct sync *f, unsigned number)
{
    const struct partner_view *v = view_of(f, number);
    assert_non_null(v);
    return v->off_ramp;
}

uint32_t sync_partners(const struct sync *f)
{
    struct policy_stats stats;
    policy_stats(f->policy, &stats);
    return stats.partners;
}

uint64_t sync_deadline(void)
{
    return clock_mono_us() / 1000 + DEADLINE_MS;
}

void sync_turn(struct sync *f, uint64_t deadline_ms, const char *condition)
{
    if (clock_mono_us() / 1000 > deadline_ms) {
        struct store_status s = {0};
        if (f->store) s = sync_status(f);
        fail_msg("in vain: %s (sequence %llu, last error \"%s\")", condition, (unsigned long long)s.sequence,
                 s.last_error);
    }
    (void)uv_run(&f->loop.uv, UV_RUN_ONCE);
}

static uint64_t last_sequence(struct sync *f)
{
    redisReply *r = redisCommand(f->redis.admin, "HGET %s seq", f->redis.keys.meta);
    uint64_t n = 0;
    assert_non_null(r);
    if (r->type == REDIS_REPLY_STRING) assert_true(span_to_u64(span_of(r->str, r->len), &n));
    freeReplyObject(r);
    return n;
}

void sync_catch_up(struct sync *f)
{
    uint64_t last = last_sequence(f);
    SYNC_UNTIL(f, sync_status(f).up && sync_status(f).sequence >= last);
}

struct sync *sync_followed(void **state, unsigned n)
{
    struct sync *f = sync_of(state);
    partners_set_many(&f->redis, 0, n);
    sync_open(f);
    sync_catch_up(f);
    return f;
}

struct sync *sync_cut_off(void **state, unsigned n)
{
    struct sync *f = sync_followed(state, n);
    partners_lock_out(&f->redis);
    SYNC_UNTIL(f, !sync_status(f).up);
    return f;
}

void sync_come_back(struct sync *f)
{
    partners_let_in(&f->redis);
    sync_catch_up(f);
}

uint64_t sync_loads_for(const struct sync *f, enum store_load_reason reason)
{
    return sync_status(f).full_loads_total[reason];
}
