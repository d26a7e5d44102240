/* The calendar, day by day from 1970 to 2400: each day follows the one before it. */
#include "base/date.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>

static unsigned month_days(unsigned year, unsigned month)
{
    static const unsigned days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return days[month - 1] + (month == 2 && is_leap);
}

static void each_day_follows_the_one_before(void **state)
{
    (void)state;
    struct date want = {1970, 1, 1};
    for (uint64_t day = 0; want.year <= 2400; day++) {
        struct date got = date_of_day(day);
        assert_true(got.year == want.year && got.month == want.month && got.day == want.day);
        if (++want.day <= month_days(want.year, want.month)) continue;
        want.day = 1;
        if (++want.month <= 12) continue;
        want.month = 1;
        want.year++;
    }
}

static void the_last_day_of_the_year_9999(void **state)
{
    (void)state;
    struct date got = date_of_day(2932896);
    assert_true(got.year == 9999 && got.month == 12 && got.day == 31);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_day_follows_the_one_before),
        cmocka_unit_test(the_last_day_of_the_year_9999),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
