/* The keys, the script on a real server, and the digest in C and in Lua. */
#include "helper_partners.h"
#include "helper_records.h"
#include "store/redis_log.h"
#include "store/redis_record.h"
#include "support/skip.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static int set_up(void **state)
{
    struct partners *p = calloc(1, sizeof *p);
    assert_non_null(p);
    *state = p;
    if (!redis_server_is_installed()) return 0;
    partners_start(p);
    partners_init(p, "e1");
    return 0;
}

static int tear_down(void **state)
{
    struct partners *p = *state;
    if (p->server.pid) partners_stop(p);
    free(p);
    return 0;
}

static struct partners *partners_of(void **state)
{
    struct partners *p = *state;
    if (!p->server.pid) SKIP("there is no redis-server here");
    return p;
}

static struct redis_meta meta_of(struct partners *p)
{
    struct redis_meta meta;
    struct errmsg why;
    const char *argv[] = {"HMGET", p->keys.meta, REDIS_META_FIELDS};
    redisReply *r = redisCommandArgv(p->operator, 2 + REDIS_META_NFIELDS, argv, NULL);
    assert_non_null(r);
    assert_int_equal(redis_meta_read(r, &meta, &why), ERR_OK);
    freeReplyObject(r);
    return meta;
}

static void test_keys(void **state)
{
    (void)state;
    struct redis_keys k;
    char key[REDIS_KEY_MAX];
    struct span id;
    redis_keys_init(&k, "cfg");
    assert_string_equal(k.seq, "gw:{cfg}:seq");
    assert_string_equal(k.log, "gw:{cfg}:log");
    assert_string_equal(k.meta, "gw:{cfg}:meta");
    assert_string_equal(k.pattern, "gw:{cfg}:p:*");
    redis_keys_partner(&k, SPAN("acme"), key);
    assert_string_equal(key, "gw:{cfg}:p:acme");
    assert_true(redis_keys_id(&k, span_str(key), &id) && span_eq(id, SPAN("acme")));
    assert_false(redis_keys_id(&k, SPAN("gw:{cfg}:meta"), &id));
}

static void test_the_longest_key_fits(void **state)
{
    (void)state;
    struct redis_keys k;
    char tag[65], key[REDIS_KEY_MAX];
    memset(tag, 't', 64);
    tag[64] = 0;
    redis_keys_init(&k, tag);
    redis_keys_partner(&k, span_of(tag, 64), key);
    assert_int_equal(strlen(key), 64 + 64 + strlen("gw:{}:p:"));
}

static void test_digest_text(void **state)
{
    (void)state;
    char text[REDIS_DIGEST_CHARS + 1];
    uint64_t digest = 0;
    redis_digest_format(0x00ab000000000001, text);
    assert_string_equal(text, "00ab000000000001");
    assert_true(redis_digest_parse(SPAN("00ab000000000001"), &digest));
    assert_int_equal(digest, 0x00ab000000000001);
    assert_false(redis_digest_parse(SPAN("00AB000000000001"), &digest));
    assert_false(redis_digest_parse(SPAN("0ab000000000001"), &digest));
    assert_false(redis_digest_parse(SPAN("00ab00000000000g"), &digest));
}

/* Known answer: printf %s acme:1 | sha1sum. */
static void test_hash_of_a_record(void **state)
{
    (void)state;
    struct redis_hasher *h = redis_hasher_create();
    assert_non_null(h);
    assert_int_equal(redis_hasher_record(h, SPAN("acme"), 1), 0x76bbea457c794d4c);
    assert_int_not_equal(redis_hasher_record(h, SPAN("acme"), 2), 0x76bbea457c794d4c);
    redis_hasher_destroy(h);
}

/* After any sequence of writes, count and digest are those of the records, computed in C. */
static void test_digest_is_that_of_lua(void **state)
{
    enum { NUMBERS = 20, WRITES = 300 };
    struct partners *p = partners_of(state);
    struct redis_hasher *h = redis_hasher_create();
    uint64_t versions[NUMBERS] = {0}, seed = 7;
    assert_non_null(h);
    for (uint64_t i = 1; i <= WRITES; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        unsigned number = (unsigned)(seed >> 33) % NUMBERS;
        bool is_delete = versions[number] && seed >> 60 < 5;
        if (is_delete)
            partners_del(p, number);
        else
            partners_set(p, number, (unsigned)i);
        versions[number] = is_delete ? 0 : i;
    }
    uint64_t digest = 0, count = 0;
    for (unsigned i = 0; i < NUMBERS; i++) {
        if (!versions[i]) continue;
        count++;
        digest ^= redis_hasher_record(h, span_str(partners_id(i)), versions[i]);
    }
    struct redis_meta meta = meta_of(p);
    assert_int_equal(meta.sequence, WRITES);
    assert_int_equal(meta.count, count);
    assert_int_equal(meta.digest, digest);
    assert_string_equal(meta.epoch, "e1");
    redis_hasher_destroy(h);
}

/* What was written is what is read, and its entry in the log says the same. */
static void test_record_comes_back(void **state)
{
    struct partners *p = partners_of(state);
    for (unsigned number = 0; number < 40; number++) {
        char line[RECORD_LINE_MAX];
        struct partner_record wanted, found;
        struct record_report report = {0};
        struct bytes scratch = {0};
        size_t n = record_line(number, 0, line);
        partners_set(p, number, 0);
        assert_int_equal(record_parse(span_of(line, n), 1, &wanted, &report), ERR_OK);
        redisReply *r = redisCommand(p->operator, "HGETALL %s", partners_key(number));
        assert_int_equal(redis_record_read(span_str(partners_id(number)), r, 0, &scratch, &found, &report),
                         ERR_OK);
        assert_string_equal(found.company, wanted.company);
        assert_string_equal(found.contact, wanted.contact);
        if (wanted.webhook_url)
            assert_string_equal(found.webhook_url, wanted.webhook_url);
        else
            assert_null(found.webhook_url);
        for (unsigned env = 0; env < ENV_COUNT; env++) {
            assert_int_equal(found.partner.ncidrs[env], wanted.partner.ncidrs[env]);
            for (uint32_t i = 0; i < wanted.partner.ncidrs[env]; i++)
                assert_int_equal(cidr_compare(&found.partner.cidrs[env][i], &wanted.partner.cidrs[env][i]),
                                 0);
        }
        assert_memory_equal(found.partner.digest, wanted.partner.digest, sizeof wanted.partner.digest);
        assert_int_equal(found.partner.previous_expires_ms, wanted.partner.previous_expires_ms);
        assert_memory_equal(found.partner.widget_id, wanted.partner.widget_id, UUID_BYTES);
        assert_true(found.partner.off_ramp == wanted.partner.off_ramp &&
                    found.partner.enabled == wanted.partner.enabled);
        freeReplyObject(r);
        record_deinit(&found);
        record_deinit(&wanted);
        bytes_deinit(&scratch);
    }
}

static void test_log_entry(void **state)
{
    struct partners *p = partners_of(state);
    struct redis_entry e;
    partners_set(p, 7, 0);
    partners_del(p, 7);
    redisReply *r = redisCommand(p->operator, "XRANGE %s - +", p->keys.log);
    assert_int_equal(r->elements, 2);
    assert_int_equal(redis_entry_read(r->element[0], &e), ERR_OK);
    assert_true(e.sequence == 1 && !e.is_delete && e.count == 1);
    assert_true(span_eq(e.id, SPAN("partner-000007")));
    assert_string_equal(e.nonce, "n1");
    assert_int_equal(redis_entry_read(r->element[1], &e), ERR_OK);
    assert_true(e.sequence == 2 && e.is_delete && e.count == 0 && e.digest == 0);
    assert_int_equal(redis_entry_read(r, &e), ERR_PARSE);
    freeReplyObject(r);
}

/* --- what the script refuses, without having changed anything ------------------------------------------ */

struct refusal {
    const char *op, *id, *expected;
    size_t nfields;
    const char *names[3], *values[3];
    const char *error;
};

static void assert_refused(struct partners *p, const struct refusal *x)
{
    struct redis_meta before = meta_of(p);
    redisReply *r = partners_write(p, x->op, x->id, x->expected, x->nfields, x->names, x->values);
    if (r->type != REDIS_REPLY_ERROR || strncmp(r->str, x->error, strlen(x->error)) != 0)
        fail_msg("%s %s: \"%s\", not %s", x->op, x->id, r->str ? r->str : "no text", x->error);
    freeReplyObject(r);
    struct redis_meta after = meta_of(p);
    assert_true(before.sequence == after.sequence && before.count == after.count &&
                before.digest == after.digest);
    assert_int_equal(partners_admin(p, "XLEN gw:{cfg}:log"), before.sequence);
}

static void test_script_refuses(void **state)
{
    static const struct refusal refusals[] = {
        {"put", "a", "", 1, {"company"}, {"x"}, "BADARG op"},
        {"set", "a b", "", 1, {"company"}, {"x"}, "BADARG partner id"},
        {"set", "", "", 1, {"company"}, {"x"}, "BADARG partner id"},
        {"set", "a", "", 0, {0}, {0}, "BADARG fields"},
        {"set", "a", "", 1, {"v"}, {"9"}, "BADARG this field"},
        {"set", "a", "", 1, {"op"}, {"9"}, "BADARG this field"},
        {"set", "a", "", 2, {"company", "company"}, {"x", "y"}, "BADARG this field"},
        {"set", "a", "x", 1, {"company"}, {"x"}, "BADARG expected"},
        {"set", "a", "7", 1, {"company"}, {"x"}, "CONFLICT 0"},
        {"set", "partner-000001", "0", 1, {"company"}, {"x"}, "CONFLICT 1"},
        {"del", "partner-000001", "2", 0, {0}, {0}, "CONFLICT 1"},
        {"set", "a", "0@n1@n1", 1, {"company"}, {"x"}, "BADARG expected"},
        {"set", "a", "0@", 1, {"company"}, {"x"}, "NEWER 1"},
        {"set", "a", "@n0", 1, {"company"}, {"x"}, "NEWER 1"},
        {"set", "partner-000001", "1@n10", 1, {"company"}, {"x"}, "NEWER 1"},
        {"del", "partner-000001", "1@n0", 0, {0}, {0}, "NEWER 1"},
        {"set", "a", "7@n0", 1, {"company"}, {"x"}, "CONFLICT 0"},
        {"del", "partner-000002", "", 0, {0}, {0}, "NOTFOUND"},
        {"del", "partner-000001", "", 1, {"company"}, {"x"}, "BADARG del"},
    };
    struct partners *p = partners_of(state);
    partners_set(p, 1, 0);
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++)
        assert_refused(p, &refusals[i]);
}

/* A writer that names the last writing that it knows of, and knows them all. */
static void test_script_follows_a_change(void **state)
{
    static const char *const steps[][3] = {
        {"set", "a", "0@0"}, {"set", "a", "1@n1"}, {"set", "b", "@n2"}, {"del", "a", "2@n3"}};
    const char *names[] = {"company"}, *values[] = {"x"};
    struct partners *p = partners_of(state);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        size_t nfields = strcmp(steps[i][0], "set") == 0;
        redisReply *r = partners_write(p, steps[i][0], steps[i][1], steps[i][2], nfields, names, values);
        if (r->type != REDIS_REPLY_ARRAY) fail_msg("%s: %s", steps[i][2], r->str);
        freeReplyObject(r);
    }
    assert_int_equal(meta_of(p).sequence, 4);
}

static void test_script_checks_the_schema(void **state)
{
    static const struct refusal refusal = {"set", "a", "", 1, {"company"}, {"x"}, "SCHEMA"};
    struct partners *p = partners_of(state);
    partners_admin(p, "HSET gw:{cfg}:meta schema 2");
    redisReply *r = partners_write(p, refusal.op, refusal.id, "", 1, refusal.names, refusal.values);
    assert_int_equal(r->type, REDIS_REPLY_ERROR);
    assert_memory_equal(r->str, "SCHEMA", 6);
    freeReplyObject(r);
    partners_admin(p, "DEL gw:{cfg}:meta");
    r = partners_write(p, refusal.op, refusal.id, "", 1, refusal.names, refusal.values);
    assert_memory_equal(r->str, "SCHEMA", 6);
    freeReplyObject(r);
    assert_int_equal(partners_admin(p, "EXISTS gw:{cfg}:p:a gw:{cfg}:log"), 0);
}

/* A counter that was reset fails loudly, and leaves record and digest alone. */
static void test_script_and_a_reset_counter(void **state)
{
    struct partners *p = partners_of(state);
    partners_set_many(p, 0, 3);
    struct redis_meta before = meta_of(p);
    partners_admin(p, "DEL gw:{cfg}:seq");
    const char *names[] = {"company"}, *values[] = {"x"};
    redisReply *r = partners_write(p, "set", "partner-000001", "", 1, names, values);
    assert_int_equal(r->type, REDIS_REPLY_ERROR);
    freeReplyObject(r);
    struct redis_meta after = meta_of(p);
    assert_true(before.sequence == after.sequence && before.digest == after.digest);
    assert_int_equal(partners_admin(p, "HEXISTS gw:{cfg}:p:partner-000001 widget_id"), 1);
}

static void test_init_only_once(void **state)
{
    struct partners *p = partners_of(state);
    redisReply *r = redisCommand(p->operator, "EVAL %s 3 %s %s %s e2", redis_script_init, p->keys.seq,
                                 p->keys.log, p->keys.meta);
    assert_int_equal(r->type, REDIS_REPLY_ERROR);
    assert_memory_equal(r->str, "EXISTS", 6);
    freeReplyObject(r);
    assert_string_equal(meta_of(p).epoch, "e1");
}

/* --- reading what nobody should have written ------------------------------------------------------------ */

static void assert_unreadable(struct partners *p, const char *name, const char *value, const char *problem)
{
    struct partner_record record;
    struct record_report report = {0};
    struct bytes scratch = {0};
    partners_set(p, 1, 0);
    partners_admin(p, "HSET %s %s %s", partners_key(1), name, value);
    redisReply *r = redisCommand(p->operator, "HGETALL %s", partners_key(1));
    assert_int_equal(redis_record_read(span_str(partners_id(1)), r, 0, &scratch, &record, &report),
                     ERR_PARSE);
    assert_true(report.faults.n > 0);
    if (!strstr(report.faults.list[0].text, problem)) fail_msg("%s", report.faults.list[0].text);
    freeReplyObject(r);
    bytes_deinit(&scratch);
}

static void test_values_that_are_refused(void **state)
{
    struct partners *p = partners_of(state);
    assert_unreadable(p, "enabled", "yes", "true or false");
    assert_unreadable(p, "company", "a\nb", "control characters");
    assert_unreadable(p, "company", "\xff", "UTF-8");
    assert_unreadable(p, "production_cidrs", "10.0.0.0/8,10.1.2.3/24", "production_cidrs");
    assert_unreadable(p, "production_cidrs", "192.0.2.1 ", "production_cidrs");
    assert_unreadable(p, "comment", "hello", "unknown key");
    assert_unreadable(p, "partner_id", "other", "twice");
}

/* A value is text, whatever stands in it. */
static void test_values_are_never_structure(void **state)
{
    struct partners *p = partners_of(state);
    struct partner_record record;
    struct record_report report = {0};
    struct bytes scratch = {0};
    const char *value = "x\",\"enabled\":false,\"y\":\"\\";
    partners_set(p, 1, 0);
    partners_admin(p, "HSET %s company %s", partners_key(1), value);
    redisReply *r = redisCommand(p->operator, "HGETALL %s", partners_key(1));
    assert_int_equal(redis_record_read(span_str(partners_id(1)), r, 0, &scratch, &record, &report), ERR_OK);
    assert_string_equal(record.company, value);
    assert_true(record.partner.enabled);
    freeReplyObject(r);
    record_deinit(&record);
    bytes_deinit(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_the_longest_key_fits),
        cmocka_unit_test(test_digest_text),
        cmocka_unit_test(test_hash_of_a_record),
        cmocka_unit_test_setup_teardown(test_digest_is_that_of_lua, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_record_comes_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_log_entry, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_script_refuses, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_script_follows_a_change, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_script_checks_the_schema, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_script_and_a_reset_counter, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_init_only_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_values_that_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_values_are_never_structure, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
