#include "base/clock.h"

#include "base/date.h"

#include <time.h>

enum {
    NS_PER_US = 1000,
    NS_PER_MS = 1000000,
    US_PER_SECOND = 1000000,
    MS_PER_SECOND = 1000,
    S_PER_MINUTE = 60,
    S_PER_HOUR = 3600,
    S_PER_DAY = 86400,
};

static const uint64_t WALL_MS_MAX = UINT64_C(253402300799999); /* 9999-12-31T23:59:59.999Z */

uint64_t clock_mono_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t); /* cannot fail: the clock exists and `t` is ours */
    return (uint64_t)t.tv_sec * US_PER_SECOND + (uint64_t)t.tv_nsec / NS_PER_US;
}

uint64_t clock_wall_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t); /* cannot fail, as above */
    return t.tv_sec < 0 ? 0 : (uint64_t)t.tv_sec * MS_PER_SECOND + (uint64_t)t.tv_nsec / NS_PER_MS;
}

static bool is_leap(unsigned year)
{
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

static unsigned month_days(unsigned year, unsigned month)
{
    static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return month == 2 && is_leap(year) ? 29 : days[month - 1];
}

/* Days from 1970-01-01 to the first of January of `year`. */
static unsigned days_before_year(unsigned year)
{
    unsigned y = year - 1; /* leap days of all years that are over */
    return (year - 1970) * 365 + (y / 4 - y / 100 + y / 400) - (1969 / 4 - 1969 / 100 + 1969 / 400);
}

static void decimal_write(char *out, unsigned width, unsigned v)
{
    while (width--) {
        out[width] = (char)('0' + v % 10);
        v /= 10;
    }
}

/* "2026-11-21" */
static void date_write(uint64_t days, char *out)
{
    struct date date = date_of_day(days);
    decimal_write(out, 4, date.year);
    out[4] = out[7] = '-';
    decimal_write(out + 5, 2, date.month);
    decimal_write(out + 8, 2, date.day);
}

void clock_rfc3339(uint64_t wall_ms, char out[static CLOCK_RFC3339_LEN])
{
    /* Lines of the same second share everything but the milliseconds. */
    static _Thread_local uint64_t last_second = UINT64_MAX;
    static _Thread_local char last_text[] = "1970-01-01T00:00:00.000Z";

    if (wall_ms > WALL_MS_MAX) wall_ms = WALL_MS_MAX;
    uint64_t second = wall_ms / MS_PER_SECOND;
    if (second != last_second) {
        unsigned of_day = (unsigned)(second % S_PER_DAY);
        date_write(second / S_PER_DAY, last_text);
        decimal_write(last_text + 11, 2, of_day / S_PER_HOUR);
        decimal_write(last_text + 14, 2, of_day % S_PER_HOUR / S_PER_MINUTE);
        decimal_write(last_text + 17, 2, of_day % S_PER_MINUTE);
        last_second = second;
    }
    memcpy(out, last_text, CLOCK_RFC3339_LEN);
    decimal_write(out + 20, 3, (unsigned)(wall_ms % MS_PER_SECOND));
}

/* What is left of the text. Each taker returns false when the text goes on differently. */
struct reader {
    const char *p, *end;
};

static bool number_take(struct reader *r, unsigned width, unsigned min, unsigned max, unsigned *out)
{
    unsigned v = 0;
    for (; width; width--, r->p++) {
        if (r->p == r->end || *r->p < '0' || *r->p > '9') return false;
        v = v * 10 + (unsigned)(*r->p - '0');
    }
    *out = v;
    return v >= min && v <= max;
}

static bool char_take(struct reader *r, char c)
{
    if (r->p == r->end || *r->p != c) return false;
    r->p++;
    return true;
}

/* ["." 1*DIGIT]; digits after the third are below our resolution. */
static bool fraction_take(struct reader *r, unsigned *ms)
{
    *ms = 0;
    if (!char_take(r, '.')) return true;
    const char *first = r->p;
    unsigned weight = 100;
    for (; r->p < r->end && *r->p >= '0' && *r->p <= '9'; r->p++, weight /= 10)
        *ms += weight * (unsigned)(*r->p - '0');
    return r->p > first;
}

/* "Z" or "+hh:mm" or "-hh:mm". */
static bool offset_take(struct reader *r, int64_t *seconds)
{
    *seconds = 0;
    if (char_take(r, 'Z') || char_take(r, 'z')) return true;
    bool is_west = char_take(r, '-');
    unsigned hours, minutes;
    if (!is_west && !char_take(r, '+')) return false;
    if (!number_take(r, 2, 0, 23, &hours) || !char_take(r, ':') || !number_take(r, 2, 0, 59, &minutes))
        return false;
    *seconds = (int64_t)hours * S_PER_HOUR + (int64_t)minutes * S_PER_MINUTE;
    if (is_west) *seconds = -*seconds;
    return true;
}

static bool date_take(struct reader *r, unsigned *days)
{
    unsigned year, month, day;
    if (!number_take(r, 4, 1970, 9999, &year) || !char_take(r, '-')) return false;
    if (!number_take(r, 2, 1, 12, &month) || !char_take(r, '-')) return false;
    if (!number_take(r, 2, 1, month_days(year, month), &day)) return false;
    *days = days_before_year(year) + day - 1;
    for (unsigned m = 1; m < month; m++)
        *days += month_days(year, m);
    return true;
}

enum err clock_parse_rfc3339(struct span text, uint64_t *wall_ms)
{
    struct reader r = {text.p, text.p + text.n};
    unsigned days, hour, minute, second, ms;
    int64_t offset;
    if (!date_take(&r, &days)) return ERR_PARSE;
    if (!char_take(&r, 'T') && !char_take(&r, 't')) return ERR_PARSE;
    if (!number_take(&r, 2, 0, 23, &hour) || !char_take(&r, ':')) return ERR_PARSE;
    if (!number_take(&r, 2, 0, 59, &minute) || !char_take(&r, ':')) return ERR_PARSE;
    if (!number_take(&r, 2, 0, 59, &second)) return ERR_PARSE;
    if (!fraction_take(&r, &ms) || !offset_take(&r, &offset) || r.p != r.end) return ERR_PARSE;

    int64_t instant = (int64_t)days * S_PER_DAY + (int64_t)hour * S_PER_HOUR +
                      (int64_t)minute * S_PER_MINUTE + (int64_t)second - offset;
    if (instant < 0 || (uint64_t)instant > WALL_MS_MAX / MS_PER_SECOND) return ERR_PARSE;
    *wall_ms = (uint64_t)instant * MS_PER_SECOND + ms;
    return ERR_OK;
}
