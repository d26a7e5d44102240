/* The staged records against a naive twin, and the ledger over a policy. */
#include "helper_records.h"
#include "store/ledger.h"
#include "store/record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { IDS = 3000, OPERATIONS = 40000 };

static uint64_t next_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 33;
}

static struct span id_of(unsigned number, char text[static 16])
{
    return span_of(text, (size_t)snprintf(text, 16, "p%u", number));
}

/* Records of an id have different sizes. */
static void pad(struct bytes *b)
{
    assert_int_equal(bytes_add(b, "12345678", 8), ERR_OK);
    uint32_t n = (uint32_t)b->n;
    memcpy(b->p, &n, sizeof n);
}

static void put(struct stage *s, unsigned number, uint64_t version, unsigned flags)
{
    struct bytes b = {0};
    char text[16];
    assert_int_equal(packed_add_bare(&b, id_of(number, text), version, flags), ERR_OK);
    if (version % 3 == 0) pad(&b);
    bool had = stage_has(s, id_of(number, text));
    enum stage_change change;
    assert_int_equal(stage_put(s, span_of(b.p, b.n), &change), ERR_OK);
    bool has = stage_has(s, id_of(number, text));
    assert_int_equal(change, had == has ? STAGE_SAME : has ? STAGE_ADDED : STAGE_REMOVED);
    bytes_deinit(&b);
}

/* What the stage should hold. */
struct twin {
    uint64_t version;
    bool is_deleted;
};

static void assert_twin(const struct stage *s, struct redis_hasher *h, const struct twin *twins)
{
    uint64_t count = 0, digest = 0;
    char text[16];
    for (unsigned i = 0; i < IDS; i++) {
        bool has = twins[i].version && !twins[i].is_deleted;
        assert_true(stage_has(s, id_of(i, text)) == has);
        assert_int_equal(stage_version(s, id_of(i, text)), twins[i].version);
        count += has;
        if (has) digest ^= redis_hasher_record(h, id_of(i, text), twins[i].version);
    }
    assert_int_equal(s->count, count);
    assert_int_equal(s->digest, digest);
}

static void test_against_a_twin(void **state)
{
    (void)state;
    static struct twin twins[IDS];
    struct redis_hasher *h = redis_hasher_create();
    struct stage s;
    uint64_t seed = 1;
    stage_init(&s, h);
    for (unsigned n = 0; n < OPERATIONS; n++) {
        unsigned i = (unsigned)next_random(&seed) % IDS;
        uint64_t version = 1 + next_random(&seed) % 1000;
        bool is_delete = next_random(&seed) % 4 == 0;
        put(&s, i, version, is_delete ? PACKED_DELETED : PACKED_REFUSED);
        if (version > twins[i].version)
            twins[i] = (struct twin){version, is_delete};
        else if (version == twins[i].version && twins[i].is_deleted)
            twins[i].is_deleted = is_delete;
        if (n % 10000 == 0) assert_twin(&s, h, twins);
    }
    assert_twin(&s, h, twins);
    struct packed r;
    uint64_t left = s.count, digest = s.digest, foreseen = 0;
    struct packed next;
    for (bool has_next = false; stage_next(&s, &r); has_next = stage_peek(&s, &next)) {
        if (has_next && !(next.flags & PACKED_DELETED)) {
            assert_true(span_eq(next.id, r.id));
            foreseen++;
        }
        left--;
        digest ^= redis_hasher_record(h, r.id, r.version);
    }
    assert_false(stage_peek(&s, &next));
    assert_true(foreseen > 0);
    assert_int_equal(left, 0);
    assert_int_equal(digest, 0);
    stage_deinit(&s);
    redis_hasher_destroy(h);
}

/* A record that is refused again and again, at each writing and at each scrub, takes its room once. */
static void test_the_same_room_again(void **state)
{
    (void)state;
    struct redis_hasher *h = redis_hasher_create();
    struct stage s;
    stage_init(&s, h);
    for (unsigned n = 0; n < 50000; n++) {
        if (n % 2) stage_forget(&s, SPAN("p1"));
        put(&s, 1, 3 * n + 1, PACKED_REFUSED);
    }
    assert_ptr_equal(s.records.first, s.records.last); /* one block */
    stage_deinit(&s);
    redis_hasher_destroy(h);
}

static void test_forgetting(void **state)
{
    (void)state;
    struct redis_hasher *h = redis_hasher_create();
    struct stage s;
    stage_init(&s, h);
    put(&s, 1, 100, PACKED_REFUSED);
    stage_forget(&s, SPAN("p1"));
    assert_true(s.count == 0 && s.digest == 0 && !stage_has(&s, SPAN("p1")));
    put(&s, 1, 100, PACKED_REFUSED);
    assert_true(s.count == 1 && stage_version(&s, SPAN("p1")) == 100);
    stage_forget(&s, SPAN("nobody"));
    stage_deinit(&s);
    redis_hasher_destroy(h);
}

/* --- ledger ----------------------------------------------------------------------------------------- */

struct fixture {
    struct policy *policy;
    struct redis_hasher *hasher;
    struct ledger ledger;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->policy = policy_create();
    f->hasher = redis_hasher_create();
    assert_true(f->policy && f->hasher);
    ledger_init(&f->ledger, f->policy, f->hasher);
    ledger_sync_begin(&f->ledger, 0);
    assert_int_equal(ledger_sync_end(&f->ledger, 0, 0, NULL), ERR_OK);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    ledger_deinit(&f->ledger);
    redis_hasher_destroy(f->hasher);
    policy_destroy(f->policy);
    free(f);
    return 0;
}

static bool set(struct fixture *f, unsigned number, unsigned edition, uint64_t version, bool valid)
{
    char line[RECORD_LINE_MAX];
    struct partner_record record;
    struct record_report report = {0};
    struct errmsg why;
    bool changed, refused;
    size_t n = record_line(number, edition, line);
    assert_int_equal(record_parse(span_of(line, n), 1, &record, &report), ERR_OK);
    struct span id = span_str(record.partner.id);
    assert_int_equal(
        ledger_set(&f->ledger, id, version, valid ? &record.partner : NULL, &changed, &refused, &why),
        ERR_OK);
    record_deinit(&record);
    return refused;
}

static struct span partner_id(unsigned number, char text[static 16])
{
    return span_of(text, (size_t)snprintf(text, 16, "partner-%06u", number));
}

static void test_count_and_digest_follow(void **state)
{
    struct fixture *f = *state;
    char text[16];
    uint64_t versions[50] = {0}, seed = 3, count = 0, digest = 0;
    for (uint64_t v = 1; v < 2000; v++) {
        unsigned i = (unsigned)next_random(&seed) % 50;
        if (next_random(&seed) % 4 == 0) {
            assert_int_equal(ledger_remove(&f->ledger, partner_id(i, text)), ERR_OK);
            versions[i] = 0;
        } else {
            (void)set(f, i, (unsigned)v, v, next_random(&seed) % 5 != 0);
            versions[i] = v;
        }
    }
    for (unsigned i = 0; i < 50; i++) {
        assert_int_equal(ledger_version(&f->ledger, partner_id(i, text)), versions[i]);
        count += versions[i] != 0;
        if (versions[i]) digest ^= redis_hasher_record(f->hasher, partner_id(i, text), versions[i]);
    }
    assert_int_equal(f->ledger.count, count);
    assert_int_equal(f->ledger.digest, digest);
}

static void test_refused_are_counted_once(void **state)
{
    struct fixture *f = *state;
    char text[16];
    assert_true(set(f, 1, 0, 1, false));
    assert_true(set(f, 1, 0, 2, false));
    assert_int_equal(f->ledger.refused, 1);
    assert_int_equal(policy_find(f->policy, partner_id(1, text)), PARTNER_INDEX_NONE);
    assert_false(set(f, 1, 0, 3, true));
    assert_int_equal(f->ledger.refused, 0);
    assert_true(set(f, 1, 0, 4, false));
    assert_int_equal(f->ledger.refused, 1);
    assert_int_not_equal(policy_find(f->policy, partner_id(1, text)), PARTNER_INDEX_NONE);
    assert_int_equal(ledger_remove(&f->ledger, partner_id(1, text)), ERR_OK);
    assert_int_equal(f->ledger.refused, 0);
    assert_int_equal(f->ledger.count, 0);
}

/* What is packed and put into another ledger gives the same ledger. */
static void test_packing_everything(void **state)
{
    struct fixture *f = *state, *g;
    void *other;
    assert_int_equal(set_up(&other), 0);
    g = other;
    for (unsigned i = 0; i < 200; i++)
        (void)set(f, i, 0, i + 1, i % 10 != 3);
    (void)set(f, 5, 0, 500, false);
    struct bytes b = {0};
    uint32_t at = 0;
    unsigned nchunks = 0;
    ledger_sync_begin(&g->ledger, 0);
    for (enum err e = ERR_AGAIN; e == ERR_AGAIN; nchunks++) {
        b.n = 0;
        e = ledger_pack(&f->ledger, &at, &b, 1000);
        assert_true(e == ERR_OK || e == ERR_AGAIN);
        struct packed r;
        bool changed;
        for (size_t i = 0; i < b.n; i += r.bytes) {
            assert_int_equal(packed_look(span_of(b.p + i, b.n - i), &r, NULL), ERR_OK);
            assert_int_equal(ledger_sync_put(&g->ledger, &r, &changed), ERR_OK);
        }
    }
    assert_true(nchunks > 5);
    assert_int_equal(ledger_sync_end(&g->ledger, f->ledger.count, f->ledger.digest, NULL), ERR_OK);
    assert_int_equal(g->ledger.refused, f->ledger.refused);
    char text[16];
    for (unsigned i = 0; i < 200; i++) {
        struct span id = partner_id(i, text);
        assert_int_equal(ledger_version(&g->ledger, id), ledger_version(&f->ledger, id));
        assert_true((policy_find(f->policy, id) == PARTNER_INDEX_NONE) ==
                    (policy_find(g->policy, id) == PARTNER_INDEX_NONE));
    }
    bytes_deinit(&b);
    assert_int_equal(tear_down(&other), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_a_twin),
        cmocka_unit_test(test_the_same_room_again),
        cmocka_unit_test(test_forgetting),
        cmocka_unit_test_setup_teardown(test_count_and_digest_follow, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_refused_are_counted_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_packing_everything, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
