/* One line in a while, and how many were left out. */
#include "base/log_sample.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void one_line_in_a_while(void **state)
{
    struct log_sample s = {0};
    uint64_t unlogged = 7;
    (void)state;
    assert_true(log_sample_take(&s, 5000, &unlogged));
    assert_int_equal(unlogged, 0);
    for (uint64_t ms = 5000; ms < 5000 + LOG_SAMPLE_MS; ms += 100)
        assert_false(log_sample_take(&s, ms, &unlogged));
    assert_true(log_sample_take(&s, 5000 + LOG_SAMPLE_MS, &unlogged));
    assert_int_equal(unlogged, LOG_SAMPLE_MS / 100);
    assert_true(log_sample_take(&s, 90000, &unlogged));
    assert_int_equal(unlogged, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_line_in_a_while)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
