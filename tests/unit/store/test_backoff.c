/* Waits between tries: doubling, capped, half of each random. */
#include "store/backoff.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void waits_double_up_to_the_cap(void **state)
{
    (void)state;
    static const uint64_t shortest[] = {100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000};
    struct backoff b = {0};
    for (unsigned i = 0; i < sizeof shortest / sizeof *shortest; i++)
        assert_int_equal(backoff_next(&b, 0), shortest[i]);
}

/* The random part reaches the longest wait and not beyond it. */
static void the_longest_wait_is_twice_the_shortest(void **state)
{
    (void)state;
    static const uint64_t longest[] = {200, 400, 800, 1600, 3200, 6400, 10000, 10000};
    struct backoff b = {0};
    for (unsigned i = 0; i < sizeof longest / sizeof *longest; i++) {
        uint32_t random = (uint32_t)(longest[i] / 2);
        struct backoff same = b;
        assert_int_equal(backoff_next(&same, random + 1), longest[i] / 2); /* wraps */
        assert_int_equal(backoff_next(&b, random), longest[i]);
    }
}

static void never_leaves_its_bounds(void **state)
{
    (void)state;
    struct backoff b = {0};
    uint32_t random = 12345;
    for (unsigned i = 0; i < 100000; i++) {
        random = random * 1664525u + 1013904223u;
        assert_in_range(backoff_next(&b, random), BACKOFF_MIN_MS, BACKOFF_MAX_MS);
    }
    assert_in_range(backoff_next(&b, UINT32_MAX), BACKOFF_MAX_MS / 2, BACKOFF_MAX_MS);
}

static void a_success_starts_over(void **state)
{
    (void)state;
    struct backoff b = {0};
    for (unsigned i = 0; i < 50; i++)
        (void)backoff_next(&b, 0);
    backoff_reset(&b);
    assert_int_equal(backoff_next(&b, 0), BACKOFF_MIN_MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waits_double_up_to_the_cap),
        cmocka_unit_test(the_longest_wait_is_twice_the_shortest),
        cmocka_unit_test(never_leaves_its_bounds),
        cmocka_unit_test(a_success_starts_over),
    };
    return cmocka_run_group_tests_name("backoff", tests, NULL, NULL);
}
