/* date.h - the Gregorian calendar.
 *
 * Thread: [any, pure].
 */
#ifndef BASE_DATE_H
#define BASE_DATE_H

#include <stdint.h>

struct date {
    unsigned year, month, day; /* month and day from 1 */
};

/* The date `days` days after 1970-01-01. */
struct date date_of_day(uint64_t days);

#endif
