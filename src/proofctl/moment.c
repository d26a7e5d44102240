#include "proofctl/moment.h"

#include "base/clock.h"
#include "base/outbuf.h"

#include <time.h>

const char *moment_rfc3339(uint64_t wall_ms, char out[static MOMENT_TEXT_MAX])
{
    clock_rfc3339(wall_ms, out);
    size_t n = CLOCK_RFC3339_LEN;
    if (memcmp(out + n - 5, ".000Z", 5) == 0) {
        n -= 4;
        out[n - 1] = 'Z';
    }
    out[n] = '\0';
    return out;
}

/* "24 hours": the largest unit of which there are at least two, rounded to the nearest. */
static void write_distance(struct outbuf *o, uint64_t seconds)
{
    static const struct {
        uint64_t seconds;
        const char *name;
    } units[] = {{86400, "days"}, {3600, "hours"}, {60, "minutes"}, {1, "seconds"}};
    size_t i = 0;
    while (i + 1 < sizeof units / sizeof *units && seconds < 2 * units[i].seconds)
        i++;
    uint64_t n = (seconds + units[i].seconds / 2) / units[i].seconds;
    outbuf_u64(o, n);
    outbuf_char(o, ' ');
    outbuf_bytes(o, units[i].name, strlen(units[i].name) - (n == 1));
}

const char *moment_in_words(uint64_t wall_ms, uint64_t now_ms, char out[static MOMENT_TEXT_MAX])
{
    struct tm tm;
    time_t seconds = (time_t)(wall_ms / 1000);
    struct outbuf o = outbuf_of(out, MOMENT_TEXT_MAX - 1);
    if (gmtime_r(&seconds, &tm)) o.n = strftime(out, o.cap, "%A %-d %B %Y, %H:%M:%S UTC", &tm);
    bool is_past = wall_ms <= now_ms;
    uint64_t distance_ms = is_past ? now_ms - wall_ms : wall_ms - now_ms;
    outbuf_str(&o, is_past ? ", " : ", in ");
    write_distance(&o, (distance_ms + 500) / 1000);
    if (is_past) outbuf_str(&o, " ago");
    out[o.n] = '\0';
    return out;
}
