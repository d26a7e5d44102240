/* The table of keys against a naive twin, with hostile keys, and its promise to readers. Compiled in, for a
 * look at its counters. */
#include "policy/key_table.c"

#include "helper_partner.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>

struct fixture {
    struct epochs *epochs;
    struct epoch_reader *reader;
    struct key_table *table;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    f->epochs = epochs_create();
    assert_non_null(f->epochs);
    assert_int_equal(epochs_register(f->epochs, &f->reader), ERR_OK);
    f->table = key_table_create(f->epochs);
    assert_non_null(f->table);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    epoch_offline(f->reader);
    key_table_destroy(f->table);
    epochs_destroy(f->epochs);
    free(f);
    return 0;
}

/* Spread like SHA-256 would. */
static struct key128 spread(uint64_t n)
{
    uint64_t s = n * 2 + 1;
    struct key128 k;
    k.part[0] = next_random(&s);
    k.part[1] = next_random(&s);
    return k;
}

/* The same, but they all want one bucket. */
static struct key128 crowd(uint64_t n, uint64_t first)
{
    struct key128 k = spread(n);
    k.part[0] = first;
    return k;
}

static uint32_t owner_of(const struct key_table *t, struct key128 d)
{
    uint32_t partner;
    return key_table_find(t, d, &partner) ? partner : PARTNER_INDEX_NONE;
}

static void test_add_find_remove(void **state)
{
    struct fixture *f = *state;
    struct key128 a = spread(1), b = spread(2);
    assert_int_equal(owner_of(f->table, a), PARTNER_INDEX_NONE);
    assert_int_equal(key_table_add(f->table, a, 0), ERR_OK);
    assert_int_equal(key_table_add(f->table, b, KEY_TABLE_VALUE_MAX), ERR_OK);
    assert_int_equal(key_table_count(f->table), 2);
    assert_int_equal(owner_of(f->table, a), 0);
    assert_int_equal(owner_of(f->table, b), KEY_TABLE_VALUE_MAX);
    assert_int_equal(key_table_remove(f->table, a), ERR_OK);
    assert_int_equal(owner_of(f->table, a), PARTNER_INDEX_NONE);
    assert_int_equal(owner_of(f->table, b), KEY_TABLE_VALUE_MAX);
    assert_int_equal(key_table_count(f->table), 1);
}

static void test_a_taken_key_is_refused(void **state)
{
    struct fixture *f = *state;
    struct key128 a = spread(1);
    assert_int_equal(key_table_add(f->table, a, 1), ERR_OK);
    assert_int_equal(key_table_add(f->table, a, 2), ERR_EXISTS);
    assert_int_equal(key_table_add(f->table, a, 1), ERR_EXISTS);
    assert_int_equal(owner_of(f->table, a), 1);
    assert_int_equal(key_table_count(f->table), 1);
}

static void test_assign_changes_the_value(void **state)
{
    struct fixture *f = *state;
    struct key128 a = spread(1), b = spread(2);
    assert_int_equal(key_table_add(f->table, a, 1), ERR_OK);
    assert_int_equal(key_table_assign(f->table, a, 2), ERR_OK);
    assert_int_equal(owner_of(f->table, a), 2);
    assert_int_equal(key_table_assign(f->table, b, 2), ERR_NOT_FOUND);
    assert_int_equal(key_table_count(f->table), 1);
}

static void test_removing_twice(void **state)
{
    struct fixture *f = *state;
    struct key128 a = spread(1);
    assert_int_equal(key_table_remove(f->table, a), ERR_NOT_FOUND);
    assert_int_equal(key_table_add(f->table, a, 1), ERR_OK);
    assert_int_equal(key_table_remove(f->table, a), ERR_OK);
    assert_int_equal(key_table_remove(f->table, a), ERR_NOT_FOUND);
    assert_int_equal(key_table_count(f->table), 0);
}

static void test_every_bit_of_a_key_counts(void **state)
{
    struct fixture *f = *state;
    const struct key128 a = spread(1);
    assert_int_equal(key_table_add(f->table, a, 1), ERR_OK);
    for (unsigned bit = 0; bit < 128; bit++) {
        struct key128 b = a;
        b.part[bit / 64] ^= UINT64_C(1) << bit % 64;
        assert_int_equal(owner_of(f->table, b), PARTNER_INDEX_NONE);
        assert_int_equal(key_table_add(f->table, b, 2 + bit), ERR_OK);
        assert_int_equal(owner_of(f->table, b), 2 + bit);
    }
    assert_int_equal(owner_of(f->table, a), 1);
}

static void test_zero_and_ones_are_keys_like_others(void **state)
{
    struct fixture *f = *state;
    struct key128 zero = {{0, 0}}, ones = {{UINT64_MAX, UINT64_MAX}};
    assert_int_equal(owner_of(f->table, zero), PARTNER_INDEX_NONE);
    assert_int_equal(owner_of(f->table, ones), PARTNER_INDEX_NONE);
    assert_int_equal(key_table_add(f->table, zero, 1), ERR_OK);
    assert_int_equal(key_table_add(f->table, ones, 2), ERR_OK);
    assert_int_equal(owner_of(f->table, zero), 1);
    assert_int_equal(owner_of(f->table, ones), 2);
    assert_int_equal(key_table_remove(f->table, zero), ERR_OK);
    assert_int_equal(owner_of(f->table, zero), PARTNER_INDEX_NONE);
}

static void test_growth_keeps_everything(void **state)
{
    struct fixture *f = *state;
    enum { N = 150000 }; /* large enough for huge pages */
    for (uint32_t i = 0; i < N; i++)
        assert_int_equal(key_table_add(f->table, spread(i), i), ERR_OK);
    assert_int_equal(key_table_count(f->table), N);
    for (uint32_t i = 0; i < N; i++)
        assert_int_equal(owner_of(f->table, spread(i)), i);
    for (uint32_t i = N; i < 2 * N; i++)
        assert_int_equal(owner_of(f->table, spread(i)), PARTNER_INDEX_NONE);
    assert_in_range(key_table_bytes(f->table) / N, 20, 50);
}

static void test_reserve_makes_room_at_once(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(key_table_reserve(f->table, 1000), ERR_OK);
    size_t bytes = key_table_bytes(f->table);
    for (uint32_t i = 0; i < 1000; i++)
        assert_int_equal(key_table_add(f->table, spread(i), i), ERR_OK);
    assert_int_equal(key_table_bytes(f->table), bytes);
}

/* All in one bucket: the worst that chosen keys could do is to be slow. */
static void test_keys_that_all_want_one_bucket(void **state)
{
    struct fixture *f = *state;
    enum { N = 500 };
    struct key128 d[N];
    for (uint32_t i = 0; i < N; i++) {
        d[i] = crowd(i, UINT64_MAX); /* the last bucket, so that the run goes on at the first */
        assert_int_equal(key_table_add(f->table, d[i], i), ERR_OK);
    }
    for (uint32_t i = 0; i < N; i += 2)
        assert_int_equal(key_table_remove(f->table, d[i]), ERR_OK);
    for (uint32_t i = 0; i < N; i++)
        assert_int_equal(owner_of(f->table, d[i]), i % 2 ? i : PARTNER_INDEX_NONE);
    for (uint32_t i = 0; i < N; i += 2)
        assert_int_equal(key_table_add(f->table, d[i], i + N), ERR_OK);
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
            const struct key128 d = crowd(i, UINT64_MAX / 3 * (i % 3));
            assert_int_equal(add ? key_table_add(f->table, d, i) : key_table_remove(f->table, d), ERR_OK);
        }
        const struct body *b = atomic_load(&f->table->body);
        passed = 0;
        for (size_t i = 0; i < b->nbuckets; i++)
            passed += atomic_load(&b->buckets[i].beyond);
        assert_int_equal(passed > 0, add);
    }
}

/* Four tables, asked one by one and at once: sparse, crowded, empty, and full to the last slot but one in
 * four. */
static void test_four_tables_at_once(void **state)
{
    struct fixture *f = *state;
    enum { N = 2000, PROBES = 20000 };
    struct key_table *tables[KEY_TABLE_ASKED] = {f->table};
    for (unsigned i = 1; i < KEY_TABLE_ASKED; i++) {
        tables[i] = key_table_create(f->epochs);
        assert_non_null(tables[i]);
    }
    for (uint32_t i = 0; i < N; i++) {
        assert_int_equal(key_table_add(tables[0], spread(i), i), ERR_OK);
        if (i < 200) assert_int_equal(key_table_add(tables[1], crowd(i, i % 7), i), ERR_OK);
        assert_int_equal(key_table_add(tables[3], spread(N + i), i), ERR_OK);
    }
    for (uint32_t i = 0; i < N; i += 2)
        assert_int_equal(key_table_remove(tables[0], spread(i)), ERR_OK);
    uint64_t rng = 77;
    unsigned nfound = 0;
    for (uint32_t i = 0; i < PROBES; i++) {
        const uint64_t r = next_random(&rng);
        const struct key128 keys[KEY_TABLE_ASKED] = {spread(r % (4 * N)), crowd(r >> 16 & 0x3ff, r >> 32 & 7),
                                                     spread(r >> 40), spread(N + (r >> 48) % (4 * N))};
        bool has = false;
        for (unsigned k = 0; k < KEY_TABLE_ASKED; k++)
            has |= owner_of(tables[k], keys[k]) != PARTNER_INDEX_NONE;
        assert_int_equal(key_table_have_any(tables, keys), has);
        nfound += has;
    }
    assert_in_range(nfound, PROBES / 5, PROBES / 5 * 4);
    for (unsigned i = 1; i < KEY_TABLE_ASKED; i++)
        key_table_destroy(tables[i]);
}

/* The form without vector instructions finds the same slots. */
static void test_tags_are_compared_alike_everywhere(void **state)
{
    struct fixture *f = *state;
    for (uint32_t i = 0; i < 300; i++)
        assert_int_equal(key_table_add(f->table, spread(i), i), ERR_OK);
    const struct body *b = atomic_load(&f->table->body);
    for (size_t at = 0; at < b->nbuckets; at++)
        for (uint32_t i = 0; i < 300; i++)
            assert_int_equal(tagged_slots(&b->buckets[at], spread(i)),
                             tagged_slots_portable(&b->buckets[at], spread(i)));
}

/* Without a reader a freed slot is taken again at once and the table never grows. A reader that does not move
 * on keeps every freed slot as it is: the table must be rebuilt to go on. */
static void test_slots_are_reused_only_after_a_grace_period(void **state)
{
    struct fixture *f = *state;
    for (int stalled = 0; stalled < 2; stalled++) {
        if (stalled) epoch_online(f->reader);
        for (uint32_t i = 0; i < 200; i++) {
            const struct key128 d = crowd(i, 0x55); /* always the same bucket */
            assert_int_equal(key_table_add(f->table, d, i), ERR_OK);
            assert_int_equal(key_table_remove(f->table, d), ERR_OK);
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
        const struct key128 d = i % 3 ? spread(i) : crowd(i, 0xab);
        switch (r % 8) {
        case 0:
        case 1:
        case 2:
            assert_int_equal(key_table_add(f->table, d, step),
                             twin[i] == PARTNER_INDEX_NONE ? ERR_OK : ERR_EXISTS);
            if (twin[i] == PARTNER_INDEX_NONE) twin[i] = step, count++;
            break;
        case 3:
        case 4:
            assert_int_equal(key_table_remove(f->table, d),
                             twin[i] == PARTNER_INDEX_NONE ? ERR_NOT_FOUND : ERR_OK);
            if (twin[i] != PARTNER_INDEX_NONE) twin[i] = PARTNER_INDEX_NONE, count--;
            break;
        case 5:
            assert_int_equal(key_table_assign(f->table, d, step),
                             twin[i] == PARTNER_INDEX_NONE ? ERR_NOT_FOUND : ERR_OK);
            if (twin[i] != PARTNER_INDEX_NONE) twin[i] = step;
            break;
        case 6: epoch_online(f->reader); break;
        default: epoch_offline(f->reader); break;
        }
        assert_int_equal(owner_of(f->table, d), twin[i]);
        assert_int_equal(key_table_count(f->table), count);
        if (step % 512 == 0) (void)epochs_collect(f->epochs); /* how much is left depends on the reader */
    }
    for (size_t i = 0; i < TOKENS; i++) {
        const struct key128 d = i % 3 ? spread(i) : crowd(i, 0xab);
        assert_int_equal(owner_of(f->table, d), twin[i]);
    }
    assert_true(key_table_bytes(f->table) < (size_t)TOKENS * 64 * 2);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_add_find_remove),
        TEST(test_a_taken_key_is_refused),
        TEST(test_assign_changes_the_value),
        TEST(test_removing_twice),
        TEST(test_every_bit_of_a_key_counts),
        TEST(test_zero_and_ones_are_keys_like_others),
        TEST(test_growth_keeps_everything),
        TEST(test_reserve_makes_room_at_once),
        TEST(test_keys_that_all_want_one_bucket),
        TEST(test_counters_of_passed_buckets_come_back_to_zero),
        TEST(test_four_tables_at_once),
        TEST(test_tags_are_compared_alike_everywhere),
        TEST(test_slots_are_reused_only_after_a_grace_period),
        TEST(test_against_a_naive_twin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
