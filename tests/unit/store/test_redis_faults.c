/* What can go wrong between the gateway and Redis, one thing per test: partners stay in force, the right
 * thing is counted, and it mends itself. Against a real server. */
#include "base/clock.h"
#include "helper_sync.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { PARTNERS = 40 };

/* --- the log does not continue where we were ---------------------------------------------------------- */

static void test_trimmed_log(void **state)
{
    struct sync *f = sync_cut_off(state, PARTNERS);
    partners_set_many(&f->redis, PARTNERS, 5);
    partners_admin(&f->redis, "XTRIM gw:{cfg}:log MAXLEN 2");
    sync_come_back(f);
    assert_int_equal(sync_loads_for(f, STORE_LOAD_TRIMMED), 1);
    assert_int_equal(sync_partners(f), PARTNERS + 5);
}

/* A log that somebody deleted, while nothing changed, costs nothing. */
static void test_deleted_log_without_changes(void **state)
{
    struct sync *f = sync_cut_off(state, PARTNERS);
    partners_admin(&f->redis, "DEL gw:{cfg}:log");
    sync_come_back(f);
    assert_int_equal(sync_status(f).loads_total, 1);
    partners_set(&f->redis, 0, 1);
    sync_catch_up(f);
    assert_int_equal(sync_status(f).loads_total, 1);
}

static void test_deleted_log_with_changes(void **state)
{
    struct sync *f = sync_cut_off(state, PARTNERS);
    partners_set(&f->redis, PARTNERS, 0);
    partners_admin(&f->redis, "DEL gw:{cfg}:log");
    sync_come_back(f);
    assert_int_equal(sync_loads_for(f, STORE_LOAD_TRIMMED), 1);
    assert_true(sync_has(f, PARTNERS));
}

/* The same under our eyes: XREAD says nothing about it. */
static void test_log_deleted_while_following(void **state)
{
    struct sync *f = sync_followed(state, PARTNERS);
    partners_admin(&f->redis, "MULTI");
    partners_admin(&f->redis, "HSET gw:{cfg}:meta seq %d", PARTNERS + 1);
    partners_admin(&f->redis, "DEL gw:{cfg}:log");
    partners_admin(&f->redis, "EXEC");
    SYNC_UNTIL(f, sync_loads_for(f, STORE_LOAD_GAP) == 1);
}

static void test_gap_in_the_log(void **state)
{
    struct sync *f = sync_cut_off(state, PARTNERS);
    partners_set_many(&f->redis, PARTNERS, 3);
    assert_int_equal(partners_admin(&f->redis, "XDEL gw:{cfg}:log %d-1", PARTNERS + 2), 1);
    sync_come_back(f);
    assert_int_equal(sync_loads_for(f, STORE_LOAD_GAP), 1);
    assert_int_equal(sync_partners(f), PARTNERS + 3);
}

static void test_foreign_entry_in_the_log(void **state)
{
    struct sync *f = sync_followed(state, PARTNERS);
    partners_admin(&f->redis, "XADD gw:{cfg}:log %d-1 op set id x", PARTNERS + 1);
    SYNC_UNTIL(f, sync_loads_for(f, STORE_LOAD_GAP) >= 1);
    assert_int_equal(sync_partners(f), PARTNERS);
}

/* The old master had taken a change that the new one never saw, and the new one gave its number to another.
 */
static void test_failover_that_lost_writes(void **state)
{
    struct sync *f = sync_followed(state, PARTNERS);
    struct partners_dump *replica = partners_dump(&f->redis);
    partners_set(&f->redis, 1000, 0); /* reaches the gateway, not the replica */
    sync_catch_up(f);
    assert_true(sync_has(f, 1000));
    partners_lock_out(&f->redis);
    SYNC_UNTIL(f, !sync_status(f).up);
    partners_restore(&f->redis, replica);
    partners_set(&f->redis, 2000, 0);
    sync_come_back(f);
    assert_int_equal(sync_loads_for(f, STORE_LOAD_LOST_WRITES), 1);
    assert_false(sync_has(f, 1000));
    assert_true(sync_has(f, 2000));
}

static void test_restored_older_dump(void **state)
{
    struct sync *f = sync_followed(state, PARTNERS);
    struct partners_dump *dump = partners_dump(&f->redis);
    partners_set_many(&f->redis, PARTNERS, 2);
    sync_catch_up(f);
    partners_lock_out(&f->redis);
    SYNC_UNTIL(f, !sync_status(f).up);
    partners_restore(&f->redis, dump);
    partners_let_in(&f->redis);
    SYNC_UNTIL(f, sync_loads_for(f, STORE_LOAD_REWOUND) == 1 && sync_status(f).up);
    assert_int_equal(sync_partners(f), PARTNERS);
}

/* The connection stays, and XREAD waits for a number that will not come for a long time. */
static void test_restored_under_our_eyes(void **state)
{
    struct sync *f = sync_followed(state, PARTNERS);
    struct partners_dump *dump = partners_dump(&f->redis);
    partners_set_many(&f->redis, PARTNERS, 2);
    sync_catch_up(f);
    partners_restore(&f->redis, dump);
    SYNC_UNTIL(f, sync_partners(f) == PARTNERS && sync_status(f).up);
}

static void test_new_epoch(void **state)
{
    struct sync *f = sync_cut_off(state, PARTNERS);
    partners_admin(&f->redis, "FLUSHALL");
    partners_init(&f->redis, "e2");
    partners_set_many(&f->redis, 0, PARTNERS);
    sync_come_back(f);
    assert_int_equal(sync_loads_for(f, STORE_LOAD_EPOCH), 1);
    assert_int_equal(sync_partners(f), PARTNERS);
}

static void test_flushall(void **state)
{
    struct sync *f = sync_followed(state, PARTNERS);
    partners_admin(&f->redis, "FLUSHALL");
    SYNC_UNTIL(f, !sync_status(f).up && sync_error_says(f, "no partner data"));
    assert_true(sync_away(f, STORE_AWAY_NO_DATA) > 0);
    assert_int_equal(sync_partners(f), PARTNERS);
    assert_true(policy_is_ready(f->policy));
    partners_init(&f->redis, "e2");
    partners_set_many(&f->redis, 0, PARTNERS);
    sync_catch_up(f);
    assert_int_equal(sync_partners(f), PARTNERS);
}

static void test_redis_that_lost_everything(void **state)
{
    struct sync *f = sync_followed(state, PARTNERS);
    partners_kill(&f->redis);
    SYNC_UNTIL(f, !sync_status(f).up);
    partners_revive(&f->redis); /* without any data */
    SYNC_UNTIL(f, sync_error_says(f, "no partner data"));
    assert_int_equal(sync_partners(f), PARTNERS);
}

static void test_redis_that_comes_back(void **state)
{
    struct sync *f = sync_followed(state, PARTNERS);
    partners_admin(&f->redis, "SAVE");
    partners_kill(&f->redis);
    SYNC_UNTIL(f, !sync_status(f).up);
    partners_revive(&f->redis);
    sync_catch_up(f);
    assert_int_equal(sync_status(f).loads_total, 1);
}

/* --- what is there is not what it should be ----------------------------------------------------------- */

static void test_digest_mismatch(void **state)
{
    struct sync *f = sync_followed(state, PARTNERS);
    partners_admin(&f->redis, "HSET gw:{cfg}:meta digest 0123456789abcdef");
    partners_set(&f->redis, PARTNERS, 0);
    SYNC_UNTIL(f, sync_loads_for(f, STORE_LOAD_DIGEST) >= 2 && sync_status(f).up);
    struct store_status s = sync_status(f);
    assert_true(s.is_inconsistent); /* twice the same difference: Redis itself is wrong */
    assert_int_equal(sync_partners(f), PARTNERS + 1);
    uint64_t loads = s.loads_total;
    partners_set_many(&f->redis, 0, 5); /* and now it is taken into account */
    sync_catch_up(f);
    assert_int_equal(sync_status(f).loads_total, loads);
}

/* Right again after the data set was made anew. */
static void test_inconsistency_ends(void **state)
{
    struct sync *f = sync_of(state);
    partners_set_many(&f->redis, 0, PARTNERS);
    struct partners_dump *good = partners_dump(&f->redis);
    partners_admin(&f->redis, "DEL %s", partners_key(1));
    sync_open(f);
    sync_catch_up(f);
    assert_true(sync_status(f).is_inconsistent);
    assert_int_equal(sync_partners(f), PARTNERS - 1);
    partners_restore(&f->redis, good);
    f->store->ops->reload(f->store);
    SYNC_UNTIL(f, sync_partners(f) == PARTNERS && !sync_status(f).is_inconsistent);
}

static void test_other_schema(void **state)
{
    struct sync *f = sync_cut_off(state, PARTNERS);
    partners_admin(&f->redis, "HSET gw:{cfg}:meta schema 2");
    partners_let_in(&f->redis);
    SYNC_UNTIL(f, sync_error_says(f, "schema 2, this program reads 1"));
    assert_true(sync_away(f, STORE_AWAY_SCHEMA) > 0);
    assert_int_equal(sync_partners(f), PARTNERS);
    partners_admin(&f->redis, "HSET gw:{cfg}:meta schema 1");
    sync_catch_up(f);
    assert_int_equal(sync_status(f).loads_total, 1);
}

static void test_damaged_meta(void **state)
{
    struct sync *f = sync_cut_off(state, PARTNERS);
    partners_admin(&f->redis, "HSET gw:{cfg}:meta count many");
    partners_let_in(&f->redis);
    SYNC_UNTIL(f, sync_error_says(f, "damaged"));
    assert_true(sync_away(f, STORE_AWAY_PROTOCOL) > 0);
    assert_int_equal(sync_partners(f), PARTNERS);
}

/* A record with the token `token` and one field besides those that must be there. */
static void write_record(struct sync *f, unsigned number, unsigned token, const char *name, const char *value)
{
    const char *names[] = {"company",   "contact",          "client_token_sha256",
                           "widget_id", "production_cidrs", name};
    char digest[65];
    snprintf(digest, sizeof digest, "%08x%056x", token + 1, 0);
    const char *values[] = {"A & B",
                            "ops@example.com",
                            digest,
                            "0190c5b2-7a64-7000-8000-3f2a9c1d5e77",
                            "192.0.2.0/24 2001:db8::/32",
                            value};
    redisReply *r = partners_write(&f->redis, "set", partners_id(number), "", 6, names, values);
    if (r->type == REDIS_REPLY_ERROR) fail_msg("%s", r->str);
    freeReplyObject(r);
}

static void write_fields(struct sync *f, unsigned number, const char *name, const char *value)
{
    write_record(f, number, number, name, value);
}

static void test_refused_record(void **state)
{
    struct sync *f = sync_followed(state, PARTNERS);
    write_fields(f, 900, "webhook_url", "http://plain.example");
    write_fields(f, 901, "webhook_url", "https://hooks.example/x");
    sync_catch_up(f);
    assert_false(sync_has(f, 900));
    assert_true(sync_has(f, 901));
    assert_int_equal(sync_status(f).records_rejected, 1);
    assert_int_equal(sync_status(f).loads_total, 1); /* count and digest hold all the same */
    write_fields(f, 900, "enabled", "true");
    sync_catch_up(f);
    assert_true(sync_has(f, 900));
    assert_int_equal(sync_status(f).records_rejected, 0);
}

/* A slip in a field does not cut off a partner: its last good version stays, through a full load as well. */
static void test_refused_change_keeps_the_partner(void **state)
{
    struct sync *f = sync_followed(state, PARTNERS);
    write_fields(f, 3, "enabled", "perhaps");
    sync_catch_up(f);
    assert_true(sync_has(f, 3));
    assert_true(sync_off_ramp(f, 3)); /* of helper_records.h: the old one */
    f->store->ops->reload(f->store);
    SYNC_UNTIL(f, sync_status(f).loads_total == 2 && sync_status(f).up);
    assert_true(sync_off_ramp(f, 3));
    assert_int_equal(sync_status(f).records_rejected, 1);
    partners_del(&f->redis, 3);
    sync_catch_up(f);
    assert_false(sync_has(f, 3));
    assert_int_equal(sync_status(f).records_rejected, 0);
}

static void test_refused_token_of_another_partner(void **state)
{
    struct sync *f = sync_followed(state, PARTNERS);
    write_fields(f, 900, "enabled", "true");
    redisReply *r = redisCommand(f->redis.admin, "HGET %s client_token_sha256", partners_key(900));
    write_fields(f, 901, "previous_token_expires_at",
                 "2030-01-01T00:00:00Z"); /* refused: no previous token */
    const char *names[] = {"company", "contact", "client_token_sha256", "widget_id", "production_cidrs"};
    const char *values[] = {"C", "ops@example.com", r->str, "0190c5b2-7a64-7000-8000-3f2a9c1d5e77",
                            "192.0.2.1"};
    freeReplyObject(partners_write(&f->redis, "set", partners_id(902), "", 5, names, values));
    freeReplyObject(r);
    sync_catch_up(f);
    assert_true(sync_has(f, 900));
    assert_false(sync_has(f, 901));
    assert_false(sync_has(f, 902));
    assert_int_equal(sync_status(f).records_rejected, 2);
}

/* Partners whose new record is refused, and whose token another partner has now: in a full load one of the
 * two comes first. Whichever it is, what is booked is what is in force. */
static void test_refused_change_after_the_token_moved(void **state)
{
    enum { MOVED = 10 };
    struct sync *f = sync_followed(state, 0);
    for (unsigned i = 0; i < MOVED; i++)
        write_fields(f, i, "enabled", "true");
    sync_catch_up(f);
    partners_lock_out(&f->redis);
    for (unsigned i = 0; i < MOVED; i++) {
        write_fields(f, i, "enabled", "perhaps");
        write_record(f, 900 + i, i, "enabled", "true");
    }
    f->store->ops->reload(f->store);
    sync_come_back(f);
    assert_int_equal(sync_status(f).loads_total, 2);
    assert_int_equal(sync_partners(f), MOVED); /* each token has one owner */
    for (unsigned i = 0; i < MOVED; i++)
        partners_del(&f->redis, i);
    sync_catch_up(f);
    assert_int_equal(sync_status(f).loads_total, 2);
    assert_true(sync_partners(f) <= MOVED);
}

/* Keys that are no records are passed over. */
static void test_foreign_keys(void **state)
{
    struct sync *f = sync_of(state);
    partners_set_many(&f->redis, 0, 5);
    partners_admin(&f->redis, "SET gw:{cfg}:p:text 1");
    partners_admin(&f->redis, "HSET gw:{cfg}:p:no-version company X");
    partners_admin(&f->redis, "HSET gw:{cfg}:p:%s v 1", "not,an,id");
    partners_admin(&f->redis, "HSET gw:{other}:p:someone v 1");
    sync_open(f);
    sync_catch_up(f);
    assert_int_equal(sync_partners(f), 5);
    assert_false(sync_status(f).is_inconsistent);
}

#define SYNC_TEST(test) cmocka_unit_test_setup_teardown(test, sync_setup, sync_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SYNC_TEST(test_trimmed_log),
        SYNC_TEST(test_deleted_log_without_changes),
        SYNC_TEST(test_deleted_log_with_changes),
        SYNC_TEST(test_log_deleted_while_following),
        SYNC_TEST(test_gap_in_the_log),
        SYNC_TEST(test_foreign_entry_in_the_log),
        SYNC_TEST(test_failover_that_lost_writes),
        SYNC_TEST(test_restored_older_dump),
        SYNC_TEST(test_restored_under_our_eyes),
        SYNC_TEST(test_new_epoch),
        SYNC_TEST(test_flushall),
        SYNC_TEST(test_redis_that_lost_everything),
        SYNC_TEST(test_redis_that_comes_back),
        SYNC_TEST(test_digest_mismatch),
        SYNC_TEST(test_inconsistency_ends),
        SYNC_TEST(test_other_schema),
        SYNC_TEST(test_damaged_meta),
        SYNC_TEST(test_refused_record),
        SYNC_TEST(test_refused_change_keeps_the_partner),
        SYNC_TEST(test_refused_token_of_another_partner),
        SYNC_TEST(test_refused_change_after_the_token_moved),
        SYNC_TEST(test_foreign_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
