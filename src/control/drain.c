#include "control/drain.h"

#include "base/container.h"
#include "base/log.h"
#include "base/metrics.h"

/* For workers to cut what they have and to end. One that is slow, because the machine is busy or it has very
 * many connections, must not be taken for one that hangs: it cuts about 60 in a millisecond. */
enum { MARGIN_MS = 5000, CUTS_PER_MS = 20 };

static void start_margin(struct drain *d)
{
    uint64_t cuts = metrics_sum(METRIC_CONNECTIONS_OPEN, 0);
    loop_deadline(d->loop, &d->timer, MARGIN_MS + cuts / CUTS_PER_MS);
}

const char *drain_state_text(enum drain_state s)
{
    static const char *const text[] = {
        [DRAIN_NONE] = "serving",          [DRAIN_DELAY] = "drain_delay", [DRAIN_ON] = "draining",
        [DRAIN_LEAVING] = "leaving_delay", [DRAIN_ENDING] = "ending",     [DRAIN_OVERDUE] = "cutting",
        [DRAIN_CUTTING] = "cutting",
    };
    return text[s];
}

/* The one setter; it also tells the workers what the new state means to them, and how long they have. */
static void set_state(struct drain *d, enum drain_state to)
{
    static const uint8_t moves[] = {
        [DRAIN_NONE] =
            1 << DRAIN_DELAY | 1 << DRAIN_ON | 1 << DRAIN_LEAVING | 1 << DRAIN_ENDING | 1 << DRAIN_CUTTING,
        [DRAIN_DELAY] =
            1 << DRAIN_NONE | 1 << DRAIN_ON | 1 << DRAIN_LEAVING | 1 << DRAIN_ENDING | 1 << DRAIN_CUTTING,
        [DRAIN_ON] = 1 << DRAIN_NONE | 1 << DRAIN_LEAVING | 1 << DRAIN_ENDING | 1 << DRAIN_CUTTING,
        [DRAIN_LEAVING] = 1 << DRAIN_ENDING | 1 << DRAIN_CUTTING,
        [DRAIN_ENDING] = 1 << DRAIN_OVERDUE | 1 << DRAIN_CUTTING,
        [DRAIN_OVERDUE] = 1 << DRAIN_CUTTING,
        [DRAIN_CUTTING] = 0,
    };
    BUG_IF(!(moves[d->state] & 1 << to), "a drain makes a move that does not exist");
    if (d->state == DRAIN_NONE) d->since_ms = d->loop->now_ms;
    d->state = to;
    loop_deadline_clear(d->loop, &d->timer);
    switch (to) {
    case DRAIN_DELAY:
    case DRAIN_LEAVING: break;
    case DRAIN_NONE: fleet_set_mode(d->fleet, WORKER_SERVING); break;
    case DRAIN_ON: fleet_set_mode(d->fleet, WORKER_DRAINING); break;
    case DRAIN_ENDING:
        fleet_set_mode(d->fleet, WORKER_ENDING);
        loop_deadline(d->loop, &d->timer, d->shutdown_ms);
        break;
    case DRAIN_OVERDUE: start_margin(d); break;
    case DRAIN_CUTTING:
        fleet_set_mode(d->fleet, WORKER_CUTTING);
        start_margin(d);
        break;
    }
}

static void on_timer(struct wheel_entry *e)
{
    struct drain *d = CONTAINER_OF(e, struct drain, timer);
    switch (d->state) {
    case DRAIN_NONE:
    case DRAIN_ON: BUG_IF(true, "a drain has a timer that it did not set"); break;
    case DRAIN_DELAY: set_state(d, DRAIN_ON); break;
    case DRAIN_LEAVING: set_state(d, DRAIN_ENDING); break;
    /* The margin begins here and not earlier: the whole process may have stood still meanwhile. */
    case DRAIN_ENDING: set_state(d, DRAIN_OVERDUE); break;
    case DRAIN_OVERDUE:
    case DRAIN_CUTTING: d->on_hang(d->arg); break;
    }
}

void drain_init(struct drain *d, struct loop *loop, struct fleet *fleet, void (*on_hang)(void *arg),
                void *arg)
{
    *d = (struct drain){.loop = loop, .fleet = fleet, .on_hang = on_hang, .arg = arg};
    wheel_entry_init(&d->timer, on_timer);
}

/* Enters `delay` for `delay_ms`, which `after` follows; `after` at once when that is 0. */
static void enter(struct drain *d, enum drain_state delay, enum drain_state after, uint64_t delay_ms)
{
    set_state(d, delay_ms ? delay : after);
    if (delay_ms) loop_deadline(d->loop, &d->timer, delay_ms);
}

void drain_begin(struct drain *d, uint64_t delay_ms)
{
    if (d->state != DRAIN_NONE) return;
    log_info("draining", KV_STR("exit", "no"), KV_UINT("delay_ms", delay_ms));
    enter(d, DRAIN_DELAY, DRAIN_ON, delay_ms);
}

bool drain_undo(struct drain *d)
{
    if (drain_is_final(d)) return false;
    if (d->state == DRAIN_NONE) return true;
    log_info("drain_undone");
    set_state(d, DRAIN_NONE);
    return true;
}

void drain_end(struct drain *d, uint64_t delay_ms, uint64_t shutdown_ms)
{
    uint64_t waited_ms = d->state == DRAIN_NONE ? 0 : d->loop->now_ms - d->since_ms;
    if (drain_is_final(d)) return;
    uint64_t left_ms = delay_ms > waited_ms ? delay_ms - waited_ms : 0;
    d->shutdown_ms = shutdown_ms;
    log_info("draining", KV_STR("exit", "yes"), KV_UINT("delay_ms", left_ms));
    enter(d, DRAIN_LEAVING, DRAIN_ENDING, left_ms);
}

void drain_now(struct drain *d)
{
    if (d->state != DRAIN_CUTTING) set_state(d, DRAIN_CUTTING);
}

void drain_close(struct drain *d)
{
    loop_deadline_clear(d->loop, &d->timer);
}
