#include "base/date.h"

/* Counted in years that begin on 1 March, so that the leap day is the last day of a year. 400 years have
 * 146,097 days; from March on, five months have 153. */
struct date date_of_day(uint64_t days)
{
    enum { DAYS_TO_1970 = 719468 /* since 0000-03-01 */, DAYS_OF_ERA = 146097 };
    uint64_t all = days + DAYS_TO_1970;
    unsigned in_era = (unsigned)(all % DAYS_OF_ERA);
    unsigned years = (in_era - in_era / 1460 + in_era / 36524 - in_era / (DAYS_OF_ERA - 1)) / 365;
    unsigned in_year = in_era - (365 * years + years / 4 - years / 100);
    unsigned months = (5 * in_year + 2) / 153; /* since March */
    unsigned month = months < 10 ? months + 3 : months - 9;
    return (struct date){.year = (unsigned)(all / DAYS_OF_ERA) * 400 + years + (month <= 2),
                         .month = month,
                         .day = in_year - (153 * months + 2) / 5 + 1};
}
