/* The token table against a naive twin, with hostile digests, and its promise to readers. Compiled in, for a
 * look at its counters. */
#include "policy/token_table.c"

#include "helper_partner.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

struct fixture {
    struct epochs *epochs;
    struct epoch_reader *reader;
    struct token_table *table;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    f->epochs = epochs_create();
    assert_non_null(f->epochs);
    assert_int_equal(epochs_register(f->epochs, &f->reader), ERR_OK);
    f->table = token_table_create(f->epochs);
    assert_non_null(f->table);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    epoch_offline(f->reader);
    token_table_destroy(f->table);
    epochs_destroy(f->epochs);
    free(f);
    return 0;
}

struct digest {
    uint8_t b[TOKEN_DIGEST_BYTES];
};

/* Spread like SHA-256 would. */
static struct digest spread(uint64_t n)
{
    struct digest d;
    uint64_t s = n * 2 + 1;
    for (size_t i = 0; i < sizeof(d.b); i += 8) {
        uint64_t r = next_random(&s);
        memcpy(d.b + i, &r, 8);
    }
    return d;
}

static uint32_t owner_of(const struct token_table *t, struct digest d)
{
    uint32_t partner;
    return token_table_find(t, d.b, &partner) ? partner : PARTNER_INDEX_NONE;
}

static void test_add_find_remove(void **state)
{
    struct fixture *f = *state;
    struct digest a = spread(1), b = spread(2);
    assert_int_equal(owner_of(f->table, a), PARTNER_INDEX_NONE);
    assert_int_equal(token_table_add(f->table, a.b, 0), ERR_OK);
    assert_int_equal(token_table_add(f->table, b.b, TOKEN_PARTNER_MAX), ERR_OK);
    assert_int_equal(token_table_count(f->table), 2);
    assert_int_equal(owner_of(f->table, a), 0);
    assert_int_equal(owner_of(f->table, b), TOKEN_PARTNER_MAX);
    assert_int_equal(token_table_remove(f->table, a.b), ERR_OK);
    assert_int_equal(owner_of(f->table, a), PARTNER_INDEX_NONE);
    assert_int_equal(owner_of(f->table, b), TOKEN_PARTNER_MAX);
    assert_int_equal(token_table_count(f->table), 1);
}

static void test_a_taken_digest_is_refused(void **state)
{
    struct fixture *f = *state;
    struct digest a = spread(1);
    assert_int_equal(token_table_add(f->table, a.b, 1), ERR_OK);
    assert_int_equal(token_table_add(f->table, a.b, 2), ERR_EXISTS);
    assert_int_equal(token_table_add(f->table, a.b, 1), ERR_EXISTS);
    assert_int_equal(owner_of(f->table, a), 1);
    assert_int_equal(token_table_count(f->table), 1);
}

static void test_assign_moves_a_token(void **state)
{
    struct fixture *f = *state;
    struct digest a = spread(1), b = spread(2);
    assert_int_equal(token_table_add(f->table, a.b, 1), ERR_OK);
    assert_int_equal(token_table_assign(f->table, a.b, 2), ERR_OK);
    assert_int_equal(owner_of(f->table, a), 2);
    assert_int_equal(token_table_assign(f->table, b.b, 2), ERR_NOT_FOUND);
    assert_int_equal(token_table_count(f->table), 1);
}

static void test_removing_twice(void **state)
{
    struct fixture *f = *state;
    struct digest a = spread(1);
    assert_int_equal(token_table_remove(f->table, a.b), ERR_NOT_FOUND);
    assert_int_equal(token_table_add(f->table, a.b, 1), ERR_OK);
    assert_int_equal(token_table_remove(f->table, a.b), ERR_OK);
    assert_int_equal(token_table_remove(f->table, a.b), ERR_NOT_FOUND);
    assert_int_equal(token_table_count(f->table), 0);
}

/* What the table does not look at is the caller's to compare. */
static void test_the_key_is_the_first_half(void **state)
{
    struct fixture *f = *state;
    struct digest a = spread(1), b = a;
    b.b[TOKEN_KEY_BYTES] ^= 1;
    assert_int_equal(token_table_add(f->table, a.b, 1), ERR_OK);
    assert_int_equal(token_table_add(f->table, b.b, 2), ERR_EXISTS);
    b.b[TOKEN_KEY_BYTES - 1] ^= 1;
    assert_int_equal(token_table_add(f->table, b.b, 2), ERR_OK);
    assert_int_equal(owner_of(f->table, a), 1);
    assert_int_equal(owner_of(f->table, b), 2);
}

static void test_zero_and_ones_are_digests_like_others(void **state)
{
    struct fixture *f = *state;
    struct digest zero = {{0}}, ones;
    memset(ones.b, 0xff, sizeof(ones.b));
    assert_int_equal(owner_of(f->table, zero), PARTNER_INDEX_NONE);
    assert_int_equal(owner_of(f->table, ones), PARTNER_INDEX_NONE);
    assert_int_equal(token_table_add(f->table, zero.b, 1), ERR_OK);
    assert_int_equal(token_table_add(f->table, ones.b, 2), ERR_OK);
    assert_int_equal(owner_of(f->table, zero), 1);
    assert_int_equal(owner_of(f->table, ones), 2);
    assert_int_equal(token_table_remove(f->table, zero.b), ERR_OK);
    assert_int_equal(owner_of(f->table, zero), PARTNER_INDEX_NONE);
}

static void test_growth_keeps_everything(void **state)
{
    struct fixture *f = *state;
    enum { N = 150000 }; /* large enough for huge pages */
    for (uint32_t i = 0; i < N; i++)
        assert_int_equal(token_table_add(f->table, spread(i).b, i), ERR_OK);
    assert_int_equal(token_table_count(f->table), N);
    for (uint32_t i = 0; i < N; i++)
        assert_int_equal(owner_of(f->table, spread(i)), i);
    for (uint32_t i = N; i < 2 * N; i++)
        assert_int_equal(owner_of(f->table, spread(i)), PARTNER_INDEX_NONE);
    assert_in_range(token_table_bytes(f->table) / N, 20, 50);
}

static void test_reserve_makes_room_at_once(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(token_table_reserve(f->table, 1000), ERR_OK);
    size_t bytes = token_table_bytes(f->table);
    for (uint32_t i = 0; i < 1000; i++)
        assert_int_equal(token_table_add(f->table, spread(i).b, i), ERR_OK);
    assert_int_equal(token_table_bytes(f->table), bytes);
}

/* All in one bucket: the worst that chosen digests could do is to be slow. */
static void test_digests_that_all_want_one_bucket(void **state)
{
    struct fixture *f = *state;
    enum { N = 500 };
    struct digest d[N];
    for (uint32_t i = 0; i < N; i++) {
        d[i] = spread(i);
        memset(d[i].b, 0xff, 8); /* the last bucket, so that the run goes on at the first */
        assert_int_equal(token_table_add(f->table, d[i].b, i), ERR_OK);
    }
    for (uint32_t i = 0; i < N; i += 2)
        assert_int_equal(token_table_remove(f->table, d[i].b), ERR_OK);
    for (uint32_t i = 0; i < N; i++)
        assert_int_equal(owner_of(f->table, d[i]), i % 2 ? i : PARTNER_INDEX_NONE);
    for (uint32_t i = 0; i < N; i += 2)
        assert_int_equal(token_table_add(f->table, d[i].b, i + N), ERR_OK);
    for (uint32_t i = 0; i < N; i++)
        assert_int_equal(owner_of(f->table, d[i]), i % 2 ? i : i + N);
}

/* Otherwise every look-up would go further than it needs to, for ever. */
static void test_counters_of_passed_buckets_come_back_to_zero(void **state)
{
    struct fixture *f = *state;
    enum { N = 400 };
    uint64_t passed = 0;
    for (int add = 1; add >= 0; add--) {
        for (uint32_t i = 0; i < N; i++) {
            struct digest d = spread(i);
            memset(d.b, (int)(0x11 * (i % 3)), 8);
            assert_int_equal(add ? token_table_add(f->table, d.b, i) : token_table_remove(f->table, d.b),
                             ERR_OK);
        }
        const struct body *b = atomic_load(&f->table->body);
        passed = 0;
        for (size_t i = 0; i < b->nbuckets; i++)
            passed += atomic_load(&b->buckets[i].nbeyond);
        assert_int_equal(passed > 0, add);
    }
}

/* Without a reader a freed slot is taken again at once and the table never grows. A reader that does not move
 * on keeps every freed slot as it is: the table must be rebuilt to go on. */
static void test_slots_are_reused_only_after_a_grace_period(void **state)
{
    struct fixture *f = *state;
    for (int stalled = 0; stalled < 2; stalled++) {
        if (stalled) epoch_online(f->reader);
        for (uint32_t i = 0; i < 200; i++) {
            struct digest d = spread(i);
            memset(d.b, 0x55, 8); /* always the same bucket */
            assert_int_equal(token_table_add(f->table, d.b, i), ERR_OK);
            assert_int_equal(token_table_remove(f->table, d.b), ERR_OK);
        }
        if (stalled)
            assert_true(epochs_limbo_bytes(f->epochs) > 0);
        else
            assert_int_equal(epochs_limbo_bytes(f->epochs), 0);
    }
}

/* Random changes against an array, with a reader that is online, moves on or sleeps. */
static void test_against_a_naive_twin(void **state)
{
    struct fixture *f = *state;
    enum { TOKENS = 300, STEPS = 60000 };
    static uint32_t twin[TOKENS];
    size_t count = 0;
    uint64_t rng = 20240517;
    for (size_t i = 0; i < TOKENS; i++)
        twin[i] = PARTNER_INDEX_NONE;

    for (uint32_t step = 0; step < STEPS; step++) {
        uint64_t r = next_random(&rng);
        size_t i = (r >> 8) % TOKENS;
        struct digest d = spread(i);
        if (i % 3 == 0) memset(d.b, 0xab, 8);
        switch (r % 8) {
        case 0:
        case 1:
        case 2:
            assert_int_equal(token_table_add(f->table, d.b, step),
                             twin[i] == PARTNER_INDEX_NONE ? ERR_OK : ERR_EXISTS);
            if (twin[i] == PARTNER_INDEX_NONE) twin[i] = step, count++;
            break;
        case 3:
        case 4:
            assert_int_equal(token_table_remove(f->table, d.b),
                             twin[i] == PARTNER_INDEX_NONE ? ERR_NOT_FOUND : ERR_OK);
            if (twin[i] != PARTNER_INDEX_NONE) twin[i] = PARTNER_INDEX_NONE, count--;
            break;
        case 5:
            assert_int_equal(token_table_assign(f->table, d.b, step),
                             twin[i] == PARTNER_INDEX_NONE ? ERR_NOT_FOUND : ERR_OK);
            if (twin[i] != PARTNER_INDEX_NONE) twin[i] = step;
            break;
        case 6: epoch_online(f->reader); break;
        default: epoch_offline(f->reader); break;
        }
        assert_int_equal(owner_of(f->table, d), twin[i]);
        assert_int_equal(token_table_count(f->table), count);
        if (step % 512 == 0) (void)epochs_collect(f->epochs); /* how much is left depends on the reader */
    }
    for (size_t i = 0; i < TOKENS; i++) {
        struct digest d = spread(i);
        if (i % 3 == 0) memset(d.b, 0xab, 8);
        assert_int_equal(owner_of(f->table, d), twin[i]);
    }
    assert_true(token_table_bytes(f->table) < (size_t)TOKENS * 64 * 2);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_add_find_remove),
        TEST(test_a_taken_digest_is_refused),
        TEST(test_assign_moves_a_token),
        TEST(test_removing_twice),
        TEST(test_the_key_is_the_first_half),
        TEST(test_zero_and_ones_are_digests_like_others),
        TEST(test_growth_keeps_everything),
        TEST(test_reserve_makes_room_at_once),
        TEST(test_digests_that_all_want_one_bucket),
        TEST(test_counters_of_passed_buckets_come_back_to_zero),
        TEST(test_slots_are_reused_only_after_a_grace_period),
        TEST(test_against_a_naive_twin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
