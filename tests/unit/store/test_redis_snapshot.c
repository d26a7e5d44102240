/* Starting from the snapshot when Redis is away, and taking up the log from there. */
#include "helper_records.h"
#include "helper_sync.h"
#include "store/redis_sync_state.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { PARTNERS = 60, OTHER_WRITER_MS = 10000 };

static struct sync *with_snapshot(void **state)
{
    struct sync *f = sync_of(state);
    f->config.snapshot = strdup(folder_path(f->folder, "snapshot"));
    return f;
}

/* Followed, and with everything in the snapshot. */
static struct sync *saved(void **state)
{
    struct sync *f = with_snapshot(state);
    partners_set_many(&f->redis, 0, PARTNERS);
    sync_open(f);
    sync_catch_up(f);
    SYNC_UNTIL(f, sync_status(f).snapshot_at_ms > 0); /* the first one is due when all of it is loaded */
    return f;
}

/* Waits for one that was begun after this call: the second that ends. Changes keep them coming. */
static void await_snapshot(struct sync *f)
{
    for (unsigned n = 0; n < 2; n++) {
        uint64_t before = sync_status(f).snapshot_at_ms;
        for (unsigned i = 0; sync_status(f).snapshot_at_ms == before; i++) {
            partners_set(&f->redis, 100, i);
            sync_turn(f, sync_deadline(), "a snapshot");
        }
    }
}

static void test_start_without_redis(void **state)
{
    struct sync *f = saved(state);
    partners_admin(&f->redis, "SAVE");
    partners_kill(&f->redis);
    sync_restart(f);
    assert_true(policy_is_ready(f->policy)); /* at once */
    assert_int_equal(sync_partners(f), PARTNERS);
    assert_true(sync_off_ramp(f, 3));
    struct store_status s = sync_status(f);
    assert_false(s.up);
    assert_int_equal(s.sequence, PARTNERS);
    partners_revive(&f->redis);
    partners_set(&f->redis, 3, 1);
    sync_catch_up(f);
    assert_false(sync_off_ramp(f, 3));
    assert_int_equal(sync_status(f).loads_total, 0); /* the log was enough */
}

static void test_snapshot_too_old_for_the_log(void **state)
{
    struct sync *f = saved(state);
    sync_close(f);
    partners_set_many(&f->redis, PARTNERS, 5);
    partners_admin(&f->redis, "XTRIM gw:{cfg}:log MAXLEN 2");
    policy_destroy(f->policy);
    f->policy = policy_create();
    sync_open(f);
    assert_int_equal(sync_partners(f), PARTNERS);
    sync_catch_up(f);
    assert_int_equal(sync_partners(f), PARTNERS + 5);
    assert_int_equal(sync_status(f).full_loads_total[STORE_LOAD_TRIMMED], 1);
}

/* Written while changes come in, it is not of one moment; taken up, it is right all the same. */
static void test_written_while_changes_come(void **state)
{
    struct sync *f = with_snapshot(state);
    f->options.snapshot_quiet_ms = 1;
    partners_set_many(&f->redis, 0, PARTNERS);
    sync_open(f);
    sync_catch_up(f);
    for (unsigned round = 0; round < 20; round++) {
        uint64_t before = sync_status(f).snapshot_at_ms;
        for (unsigned i = 0; sync_status(f).snapshot_at_ms == before; i++) {
            partners_set(&f->redis, (round * 31 + i) % (2 * PARTNERS), i);
            if (i % 5 == 0) partners_del(&f->redis, (round * 31 + i) % (2 * PARTNERS));
            sync_turn(f, sync_deadline(), "saving while changes come");
        }
        sync_restart(f);
        sync_catch_up(f);
        assert_int_equal(sync_status(f).loads_total, 0);
        assert_false(sync_status(f).is_inconsistent);
    }
}

/* A snapshot has records that are newer than its position: what the log tells of them does not set them back.
 * Here the position of one that was loaded is moved, and the log is read in steps of one change. */
static void test_newer_records_do_not_go_back(void **state)
{
    struct sync *f = with_snapshot(state);
    f->options.range_count = 1;
    partners_set_many(&f->redis, 0, PARTNERS);
    sync_open(f);
    sync_catch_up(f);
    partners_set(&f->redis, 3, 1);
    partners_set(&f->redis, 3, 0);
    sync_catch_up(f);
    sync_restart(f);
    struct redis_position *at = &((struct redis_sync *)f->store)->position;
    uint64_t end = at->sequence;
    at->sequence -= 2;
    (void)snprintf(at->nonce, sizeof at->nonce, "n%u",
                   (unsigned)at->sequence); /* as helper_partners.c makes them */
    while (sync_status(f).sequence < end) {
        assert_true(sync_off_ramp(f, 3));
        sync_turn(f, sync_deadline(), "taking up the log");
    }
    assert_true(sync_off_ramp(f, 3));
    assert_int_equal(sync_status(f).loads_total, 0);
}

static void test_refused_records_are_remembered(void **state)
{
    struct sync *f = with_snapshot(state);
    const char *names[] = {"company"}, *values[] = {"X"};
    partners_set_many(&f->redis, 0, 5);
    freeReplyObject(partners_write(&f->redis, "set", "new", "", 1, names, values));
    sync_open(f);
    sync_catch_up(f);
    freeReplyObject(partners_write(&f->redis, "set", partners_id(3), "", 1, names, values));
    sync_catch_up(f);
    await_snapshot(f);
    sync_restart(f);
    assert_int_equal(sync_status(f).records_rejected, 2);
    assert_true(sync_has(f, 3));
    sync_catch_up(f);
    partners_set(&f->redis, 4, 1);
    sync_catch_up(f);
    assert_int_equal(sync_status(f).loads_total, 0);
}

static void test_damaged_snapshot(void **state)
{
    struct sync *f = saved(state);
    sync_close(f);
    assert_int_equal(truncate(f->config.snapshot, 1000), 0);
    policy_destroy(f->policy);
    f->policy = policy_create();
    sync_open(f);
    assert_false(policy_is_ready(f->policy));
    assert_int_equal(sync_status(f).snapshot_failures_total, 1);
    sync_catch_up(f);
    assert_int_equal(sync_partners(f), PARTNERS);
}

static void test_snapshot_of_another_tag(void **state)
{
    struct sync *f = saved(state);
    sync_close(f);
    free(f->config.redis.tag);
    f->config.redis.tag = strdup("other");
    policy_destroy(f->policy);
    f->policy = policy_create();
    sync_open(f);
    assert_false(policy_is_ready(f->policy));
    assert_non_null(strstr(sync_status(f).last_error, "tag"));
}

/* From the snapshot, the guard protects as well. */
static void test_mass_deletion_after_a_start(void **state)
{
    struct sync *f = saved(state);
    sync_close(f);
    partners_admin(&f->redis, "FLUSHALL");
    partners_init(&f->redis, "e2");
    policy_destroy(f->policy);
    f->policy = policy_create();
    sync_open(f);
    SYNC_UNTIL(f, sync_status(f).deletions_held == PARTNERS);
    assert_int_equal(sync_partners(f), PARTNERS);
}

static void test_stale_from_the_start(void **state)
{
    struct sync *f = saved(state);
    f->config.redis.max_staleness_ms = 100;
    partners_kill(&f->redis);
    sync_restart(f);
    SYNC_UNTIL(f, sync_status(f).is_too_stale);
    assert_true(policy_is_ready(f->policy));
}

/* Writing takes a twentieth of the time at most: after one that took long, the next is put off. */
static void test_slow_writing_makes_pauses(void **state)
{
    struct sync *f = saved(state);
    struct redis_sync *s = (struct redis_sync *)f->store;
    SYNC_UNTIL(f, !s->copy);
    s->copy_pause_ms = 3600 * 1000;
    partners_set(&f->redis, 3, 1);
    SYNC_UNTIL(f, uv_is_active((uv_handle_t *)&s->timers[SYNC_COPY]));
    assert_true(uv_timer_get_due_in(&s->timers[SYNC_COPY]) > s->copy_pause_ms / 2);
}

static void test_folder_that_is_not_there(void **state)
{
    struct sync *f = sync_of(state);
    f->config.snapshot = strdup(folder_path(f->folder, "none/snapshot"));
    sync_open(f);
    partners_set(&f->redis, 1, 0);
    sync_catch_up(f);
    SYNC_UNTIL(f, sync_status(f).snapshot_failures_total > 0);
    assert_true(sync_has(f, 1));
}

/* Closing waits for the thread that writes. */
static void test_close_while_writing(void **state)
{
    struct sync *f = with_snapshot(state);
    f->options.snapshot_quiet_ms = 0;
    partners_set_many(&f->redis, 0, PARTNERS);
    for (unsigned turns = 0; turns < 40; turns++) {
        sync_open(f);
        sync_catch_up(f);
        for (unsigned i = 0; i < turns % 8; i++)
            sync_turn(f, sync_deadline(), "some turns");
        sync_close(f);
        assert_int_equal(access(folder_path(f->folder, "snapshot.tmp"), F_OK), -1);
    }
}

/* What was not written yet is written by an orderly close. */
static void test_close_writes_what_is_due(void **state)
{
    struct sync *f = with_snapshot(state);
    f->options.snapshot_quiet_ms = 3600000;
    partners_set_many(&f->redis, 0, PARTNERS);
    sync_open(f);
    sync_catch_up(f);
    partners_set(&f->redis, 3, 1);
    sync_catch_up(f);
    assert_int_equal(sync_status(f).snapshot_at_ms, 0);
    partners_kill(&f->redis);
    sync_restart(f);
    assert_int_equal(sync_partners(f), PARTNERS);
    assert_false(sync_off_ramp(f, 3));
    assert_int_equal(sync_status(f).sequence, PARTNERS + 1);
}

/* Somebody else's lock on the snapshot, until it was in the way for the second time. */
struct other_writer {
    int lock, watch;
    pthread_t thread;
};

static void *await_second_try(void *arg)
{
    struct other_writer *w = arg;
    char room[sizeof(struct inotify_event) + NAME_MAX + 1];
    struct pollfd p = {.fd = w->watch, .events = POLLIN};
    for (unsigned tries = 0; tries < 2 && poll(&p, 1, OTHER_WRITER_MS) == 1; tries++)
        if (read(w->watch, room, sizeof room) <= 0) break;
    (void)close(w->lock);
    return NULL;
}

static void test_the_last_one_waits_for_another_writer(void **state)
{
    struct sync *f = saved(state);
    struct other_writer w;
    const char *name = folder_path(f->folder, "snapshot.lock");
    f->options.snapshot_quiet_ms = 3600000;
    sync_restart(f);
    sync_catch_up(f);
    partners_set(&f->redis, 3, 1);
    sync_catch_up(f);
    w.lock = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    w.watch = inotify_init1(IN_CLOEXEC);
    assert_true(w.lock >= 0 && flock(w.lock, LOCK_EX) == 0 && inotify_add_watch(w.watch, name, IN_OPEN) >= 0);
    assert_int_equal(pthread_create(&w.thread, NULL, await_second_try, &w), 0);
    partners_kill(&f->redis);
    sync_close(f);
    assert_int_equal(pthread_join(w.thread, NULL), 0);
    (void)close(w.watch);
    policy_destroy(f->policy);
    f->policy = policy_create();
    sync_open(f);
    assert_false(sync_off_ramp(f, 3)); /* what was due is in the snapshot */
}

/* --- written while changes came: by hand, so that it is known which came between ---------------------- */

/* Partner `number` of helper_records.h as version `version`, under its own id or another one. */
static void pack(struct bytes *to, const char *id, unsigned number, unsigned edition, uint64_t version)
{
    char line[RECORD_LINE_MAX];
    struct partner partner;
    struct record_report report = {0};
    size_t n = record_line(number, edition, line);
    assert_int_equal(record_parse_partner(span_of(line, n), 1, &partner, &report), ERR_OK);
    assert_true(span_to_cstr(span_str(id), partner.id, sizeof partner.id));
    assert_int_equal(packed_add(to, &partner, version, 0), ERR_OK);
    partner_deinit(&partner);
}

/* Begun when `from` was the last change, and ended when it was `upto`. Frees the records. */
static void write_snapshot(struct sync *f, unsigned from, unsigned upto, struct bytes *records)
{
    struct snapshot_writer *w;
    struct errmsg why;
    struct snapshot_head head = {.saved_at_ms = 1, .sequence = from, .epoch = "e1", .tag = "cfg"};
    const struct snapshot_foot foot = {.exact_from = upto};
    (void)snprintf(head.nonce, sizeof head.nonce, "n%u", from); /* as helper_partners.c makes them */
    assert_int_equal(snapshot_create(f->config.snapshot, &head, &w, &why), ERR_OK);
    assert_int_equal(snapshot_append(w, span_of(records->p, records->n), &why), ERR_OK);
    assert_int_equal(snapshot_commit(w, &foot, &why), ERR_OK);
    bytes_deinit(records);
}

/* Partners 0 and 1 are of the changes 1 and 2. While it was written came changes 3 to `upto`, and the last
 * of them set partner 3. The caller says what Redis has from change 3 on. */
static struct sync *with_changes_to(void **state, unsigned upto)
{
    struct sync *f = with_snapshot(state);
    struct bytes records = {0};
    partners_set_many(&f->redis, 0, 2);
    pack(&records, partners_id(0), 0, 0, 1);
    pack(&records, partners_id(1), 1, 0, 2);
    pack(&records, partners_id(3), 3, 0, upto);
    write_snapshot(f, 2, upto, &records);
    return f;
}

static void test_redis_lost_what_came_while_it_was_written(void **state)
{
    struct sync *f = with_changes_to(state, 5);
    partners_set(&f->redis, 3, 1); /* change 3: the partner of the snapshot looks newer */
    sync_open(f);
    assert_true(sync_off_ramp(f, 3));
    sync_catch_up(f);
    assert_int_equal(sync_loads_for(f, STORE_LOAD_REWOUND), 1);
    assert_false(sync_off_ramp(f, 3));
}

/* The same, but other changes have taken the numbers of the lost ones by now. */
static void test_other_changes_came_in_their_place(void **state)
{
    struct sync *f = with_changes_to(state, 5);
    partners_set(&f->redis, 3, 1);
    partners_set_many(&f->redis, 4, 3);
    sync_open(f);
    sync_catch_up(f);
    assert_int_equal(sync_loads_for(f, STORE_LOAD_DIGEST), 1);
    assert_false(sync_off_ramp(f, 3));
    assert_int_equal(sync_partners(f), 6);
}

/* Nor does the digest tell when they are of the same partners. */
static void test_other_changes_of_the_same_partners_came(void **state)
{
    struct sync *f = with_changes_to(state, 3);
    partners_set(&f->redis, 3, 1);
    sync_open(f);
    assert_true(sync_off_ramp(f, 3));
    sync_catch_up(f);
    assert_false(sync_off_ramp(f, 3));
    assert_int_equal(sync_status(f).loads_total, 0);
}

/* It has the partner that had the token, written before the change, and the one that has it now. */
static void test_token_changed_hands_meanwhile(void **state)
{
    struct sync *f = with_snapshot(state);
    struct bytes records = {0};
    partners_set_many(&f->redis, 0, 2);
    partners_rename(&f->redis, 0, "heir");
    pack(&records, partners_id(0), 0, 0, 1);
    pack(&records, partners_id(1), 1, 0, 2);
    pack(&records, "heir", 0, 0, 4);
    write_snapshot(f, 2, 4, &records);
    sync_open(f);
    assert_int_equal(sync_status(f).records_rejected, 1);
    sync_catch_up(f);
    assert_int_not_equal(policy_find(f->policy, SPAN("heir")), PARTNER_INDEX_NONE);
    assert_int_equal(sync_status(f).records_rejected, 0);
    assert_int_equal(sync_partners(f), 2);
    partners_set(&f->redis, 1, 1);
    sync_catch_up(f);
    assert_int_equal(sync_status(f).loads_total, 0); /* count and digest are right, too */
}

/* It has both, what was removed and what came in its place. */
static void test_partner_came_back_meanwhile(void **state)
{
    struct sync *f = with_snapshot(state);
    struct bytes records = {0};
    const char *names[] = {"company"}, *values[] = {"X"};
    partners_set_many(&f->redis, 0, 2);
    partners_del(&f->redis, 0);
    partners_set(&f->redis, 0, 1);
    partners_del(&f->redis, 1);
    freeReplyObject(partners_write(&f->redis, "set", partners_id(1), "", 1, names, values));
    pack(&records, partners_id(0), 0, 0, 1);
    pack(&records, partners_id(1), 1, 0, 2);
    pack(&records, partners_id(0), 0, 1, 4);
    assert_int_equal(packed_add_bare(&records, span_str(partners_id(1)), 6, PACKED_REFUSED), ERR_OK);
    write_snapshot(f, 2, 6, &records);
    sync_open(f);
    assert_int_equal(sync_partners(f), 1);
    assert_false(sync_off_ramp(f, 0));
    assert_false(sync_has(f, 1)); /* what came in its place is not valid, and what it had is gone */
    sync_catch_up(f);
    partners_set(&f->redis, 3, 0);
    sync_catch_up(f);
    assert_int_equal(sync_status(f).loads_total, 0);
    assert_int_equal(sync_status(f).records_rejected, 1);
    assert_int_equal(sync_partners(f), 2);
}

#define SYNC_TEST(test) cmocka_unit_test_setup_teardown(test, sync_setup, sync_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SYNC_TEST(test_start_without_redis),
        SYNC_TEST(test_snapshot_too_old_for_the_log),
        SYNC_TEST(test_written_while_changes_come),
        SYNC_TEST(test_newer_records_do_not_go_back),
        SYNC_TEST(test_refused_records_are_remembered),
        SYNC_TEST(test_damaged_snapshot),
        SYNC_TEST(test_snapshot_of_another_tag),
        SYNC_TEST(test_mass_deletion_after_a_start),
        SYNC_TEST(test_stale_from_the_start),
        SYNC_TEST(test_slow_writing_makes_pauses),
        SYNC_TEST(test_folder_that_is_not_there),
        SYNC_TEST(test_close_while_writing),
        SYNC_TEST(test_close_writes_what_is_due),
        SYNC_TEST(test_the_last_one_waits_for_another_writer),
        SYNC_TEST(test_redis_lost_what_came_while_it_was_written),
        SYNC_TEST(test_other_changes_came_in_their_place),
        SYNC_TEST(test_other_changes_of_the_same_partners_came),
        SYNC_TEST(test_token_changed_hands_meanwhile),
        SYNC_TEST(test_partner_came_back_meanwhile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
