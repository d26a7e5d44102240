/* Random bytes and version 7 UUIDs. */
#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void bytes_are_filled_to_the_end(void **state)
{
    (void)state;
    /* Each byte is zero in one draw out of 256; in 64 draws none stays zero throughout. */
    uint8_t seen[300] = {0}, draw[300];
    for (int i = 0; i < 64; i++) {
        assert_int_equal(random_bytes(draw, sizeof draw), ERR_OK);
        for (size_t k = 0; k < sizeof draw; k++)
            seen[k] |= draw[k];
    }
    for (size_t k = 0; k < sizeof seen; k++)
        assert_int_not_equal(seen[k], 0);
    assert_int_equal(random_bytes(draw, 0), ERR_OK);
}

static void block_is_used_once_and_refilled(void **state)
{
    (void)state;
    struct random_source r;
    random_source_init(&r);
    uint8_t first[64], second[64];
    random_take(&r, first, sizeof first);
    assert_int_equal(r.left, sizeof r.pool - sizeof first);
    random_take(&r, second, sizeof second);
    assert_memory_not_equal(first, second, sizeof first);
    r.left = 3;
    random_take(&r, first, 8); /* more than is left */
    assert_int_equal(r.left, sizeof r.pool - 8);
}

static void uuid_has_the_form_of_rfc9562(void **state)
{
    (void)state;
    struct random_source r;
    random_source_init(&r);
    for (int i = 0; i < 1000; i++) {
        char u[UUID_LEN + 1];
        u[UUID_LEN] = '!';
        uuid7_write(&r, 1795267503123, u);
        assert_int_equal(u[UUID_LEN], '!');
        for (int k = 0; k < UUID_LEN; k++) {
            if (k == 8 || k == 13 || k == 18 || k == 23)
                assert_int_equal(u[k], '-');
            else
                assert_non_null(memchr("0123456789abcdef", u[k], 16));
        }
        assert_int_equal(u[14], '7');
        assert_non_null(memchr("89ab", u[19], 4));
    }
}

static void uuid_begins_with_the_time(void **state)
{
    (void)state;
    struct random_source r;
    random_source_init(&r);
    char u[UUID_LEN];
    uuid7_write(&r, UINT64_C(0x017f22e279b0), u); /* the example of RFC 9562 appendix A.6 */
    assert_memory_equal(u, "017f22e2-79b0-7", 15);
    uuid7_write(&r, 0, u);
    assert_memory_equal(u, "00000000-0000-7", 15);
    uuid7_write(&r, UINT64_C(0xffffffffffff), u);
    assert_memory_equal(u, "ffffffff-ffff-7", 15);
}

static void later_uuids_sort_behind_earlier_ones(void **state)
{
    (void)state;
    struct random_source r;
    random_source_init(&r);
    char last[UUID_LEN], next[UUID_LEN];
    uuid7_write(&r, 1795267503000, last);
    for (uint64_t ms = 1; ms < 2000; ms++) {
        uuid7_write(&r, 1795267503000 + ms, next);
        assert_true(memcmp(last, next, UUID_LEN) < 0);
        memcpy(last, next, UUID_LEN);
    }
}

static void uuids_of_one_millisecond_differ(void **state)
{
    (void)state;
    struct random_source r;
    random_source_init(&r);
    char last[UUID_LEN], next[UUID_LEN];
    uuid7_write(&r, 5, last);
    for (int i = 0; i < 10000; i++) {
        uuid7_write(&r, 5, next);
        assert_memory_not_equal(last, next, UUID_LEN);
        memcpy(last, next, UUID_LEN);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_filled_to_the_end),
        cmocka_unit_test(block_is_used_once_and_refilled),
        cmocka_unit_test(uuid_has_the_form_of_rfc9562),
        cmocka_unit_test(uuid_begins_with_the_time),
        cmocka_unit_test(later_uuids_sort_behind_earlier_ones),
        cmocka_unit_test(uuids_of_one_millisecond_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
