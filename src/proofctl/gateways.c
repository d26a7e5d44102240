#include "proofctl/gateways.h"

#include "base/clock.h"
#include "proofctl/printable.h"

#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>

enum { POLL_MS = 25, NAME_CHARS_MAX = 64, NAMED_MAX = 5 };

/* --- reading -------------------------------------------------------------------------------------- */

static enum err collect(void *arg, struct span line)
{
    json_t *report = json_loadb(line.p, line.n, 0, NULL);
    if (json_is_object(report)) return json_array_append_new(arg, report) ? ERR_NOMEM : ERR_OK;
    json_decref(report); /* not written by a gateway */
    return ERR_OK;
}

/* The position of a gateway in the history of `b`; 0 while it is in another one. An older dump that was
 * restored has the same epoch: only the number of who has not taken it over is one that it cannot have. */
static json_int_t position_of(const json_t *report, const struct backend *b)
{
    const char *of = json_string_value(json_object_get(report, "epoch"));
    json_int_t sequence = json_integer_value(json_object_get(report, "seq"));
    bool is_ours = of && strcmp(of, b->epoch) == 0 && sequence > 0 && sequence <= (json_int_t)b->sequence;
    return is_ours ? sequence : 0;
}

static int compare(const void *a, const void *b)
{
    const char *x = json_string_value(json_object_get(*(json_t *const *)a, "instance"));
    const char *y = json_string_value(json_object_get(*(json_t *const *)b, "instance"));
    return strcmp(x ? x : "", y ? y : "");
}

/* A sorted array with the members of `reports`; takes the reference. */
static json_t *sorted(json_t *reports)
{
    size_t n = json_array_size(reports);
    json_t *result = json_array();
    const json_t **list = calloc(n + 1, sizeof *list);
    for (size_t i = 0; list && i < n; i++)
        list[i] = json_array_get(reports, i);
    if (list) qsort(list, n, sizeof *list, compare);
    bool is_ok = list && result;
    for (size_t i = 0; is_ok && i < n; i++)
        is_ok = json_array_append(result, (json_t *)(uintptr_t)list[i]) == 0;
    free(list);
    json_decref(reports);
    if (is_ok) return result;
    json_decref(result);
    return NULL;
}

json_t *gateways_list(struct session *s, enum ctl_exit *code)
{
    size_t i;
    json_t *report, *reports = json_array();
    struct backend *b = s->backend;
    *code = CTL_OK;
    enum err e = reports ? b->ops->gateways(b, false, collect, reports) : ERR_NOMEM;
    if (e) {
        json_decref(reports);
        *code = session_fail_backend(s, e);
        return NULL;
    }
    json_array_foreach(reports, i, report)
    {
        json_int_t lag = (json_int_t)b->sequence - position_of(report, b);
        (void)json_object_set_new(report, "lag", json_integer(lag)); /* NULL is refused */
    }
    reports = sorted(reports);
    if (!reports) *code = session_fail_memory(s);
    return reports;
}

/* --- waiting -------------------------------------------------------------------------------------- */

/* Who does not follow may still be in another history, with a number that ours has reached since. */
static bool is_live(const json_t *report)
{
    const char *state = json_string_value(json_object_get(report, "state"));
    return state && strcmp(state, "live") == 0;
}

/* How many are behind; their names go to `names`. */
static size_t count_behind(const json_t *reports, const struct backend *b, uint64_t sequence,
                           struct outbuf *names)
{
    size_t i, n = 0;
    json_t *report;
    json_array_foreach((json_t *)reports, i, report)
    {
        char name[NAME_CHARS_MAX];
        json_int_t at = position_of(report, b);
        if (is_live(report) && at >= (json_int_t)sequence) continue;
        (void)printable(json_string_value(json_object_get(report, "instance")), name, sizeof name);
        if (n < NAMED_MAX)
            outbuf_fmt(names, "%s%s (at %lld%s)", n ? ", " : "", name, (long long)at,
                       is_live(report) ? "" : ", not live");
        n++;
    }
    if (n > NAMED_MAX) outbuf_fmt(names, " and %zu more", n - NAMED_MAX);
    return n;
}

static enum ctl_exit fail_behind(struct session *s, size_t nbehind, size_t n, uint64_t sequence,
                                 const char *names)
{
    return session_fail(s, CTL_PENDING,
                        "the change is in force, but %zu of %zu gateways %s not applied it within %" PRIu64
                        " s (number %" PRIu64 "): %s",
                        nbehind, n, nbehind == 1 ? "has" : "have", s->wait_ms / 1000, sequence, names);
}

enum ctl_exit gateways_wait(struct session *s, uint64_t sequence)
{
    uint64_t deadline_us = clock_mono_us() + s->wait_ms * 1000;
    struct backend *b = s->backend;
    for (bool is_again = false;; is_again = true) {
        char names[(NAMED_MAX + 1) * (NAME_CHARS_MAX + 32)];
        struct outbuf o = outbuf_of(names, sizeof names - 1);
        json_t *reports = json_array();
        enum err e = reports ? b->ops->gateways(b, is_again, collect, reports) : ERR_NOMEM;
        size_t n = json_array_size(reports), nbehind = count_behind(reports, b, sequence, &o);
        json_decref(reports);
        names[o.n] = '\0';
        if (e) {
            (void)session_fail(s, CTL_PENDING, "the change is in force, but who has it cannot be found out");
            return session_fail_backend(s, e);
        }
        if (n == 0) session_note(s, "no gateway is reporting, so there was none to wait for");
        if (n > 0 && nbehind == 0) session_note(s, "applied by %zu gateway%s", n, n == 1 ? "" : "s");
        if (nbehind == 0) return CTL_OK;
        if (clock_mono_us() >= deadline_us) return fail_behind(s, nbehind, n, sequence, names);
        (void)poll(NULL, 0, POLL_MS); /* shorter when a signal comes */
    }
}
