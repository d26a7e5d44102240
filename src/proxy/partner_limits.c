#include "proxy/partner_limits.h"

#include <stdatomic.h>
#include <stdlib.h>

enum {
    PAGE_BITS = DIRECTORY_BLOCK_BITS,
    PAGE_SLOTS = 1 << PAGE_BITS,
    PAGES_MAX = DIRECTORY_BLOCKS_MAX,
    ATTEMPTS_MAX = 1024, /* each lost one is a request of the same partner that another thread let in */
    SECOND_NS = 1000000000,
    /* By how much two workers' clocks may differ: an arrival that far beyond the window may be right. */
    CLOCKS_DIFFER_NS = SECOND_NS,
};

struct slot {
    _Atomic uint64_t arrival_ns; /* monotonic */
    _Atomic uint32_t requests, tunnels;
};

struct partner_limits {
    struct slot *_Atomic pages[PAGES_MAX];
};

struct partner_rules partner_rules_of(const struct config_limits *limits)
{
    struct partner_rules r = {.requests_max = limits->concurrency_per_partner,
                              .tunnels_max = limits->tunnels_per_partner};
    if (limits->rate_per_partner == 0) return r;
    uint64_t burst = limits->burst_per_partner ? limits->burst_per_partner : limits->rate_per_partner;
    r.interval_ns = SECOND_NS / limits->rate_per_partner;
    r.window_ns = burst * r.interval_ns;
    return r;
}

struct partner_limits *partner_limits_create(void)
{
    return calloc(1, sizeof(struct partner_limits));
}

void partner_limits_destroy(struct partner_limits *l)
{
    for (unsigned i = 0; l && i < PAGES_MAX; i++)
        free(atomic_load_explicit(&l->pages[i], memory_order_relaxed));
    free(l);
}

/* NULL: nobody of this page has been counted yet. */
static struct slot *find_slot(const struct partner_limits *l, uint32_t partner)
{
    BUG_IF(partner >> PAGE_BITS >= PAGES_MAX, "not the index of a partner");
    struct slot *page = atomic_load_explicit(&l->pages[partner >> PAGE_BITS], memory_order_acquire);
    return page ? &page[partner & (PAGE_SLOTS - 1)] : NULL;
}

/* NULL when memory is out. */
static struct slot *make_slot(struct partner_limits *l, uint32_t partner)
{
    struct slot *slot = find_slot(l, partner), *none = NULL;
    if (slot) return slot;
    struct slot *page = calloc(PAGE_SLOTS, sizeof *page);
    if (!page) return NULL;
    if (!atomic_compare_exchange_strong_explicit(&l->pages[partner >> PAGE_BITS], &none, page,
                                                 memory_order_release, memory_order_relaxed))
        free(page); /* another worker was faster */
    return find_slot(l, partner);
}

/* --- places ---------------------------------------------------------------------------------------- */

static _Atomic uint32_t *count_of(struct slot *s, enum partner_place place)
{
    return place == PARTNER_PLACE_TUNNEL ? &s->tunnels : &s->requests;
}

/* How many there may be; 0 = no limit. */
static uint32_t most_of(const struct partner_rules *r, enum partner_place place)
{
    return place == PARTNER_PLACE_TUNNEL ? r->tunnels_max : r->requests_max;
}

static enum deny deny_of(enum partner_place place)
{
    return place == PARTNER_PLACE_TUNNEL ? DENY_TUNNELS : DENY_CONCURRENCY;
}

/* Not an addition that is taken back when it was too much: it would refuse others meanwhile. */
static bool take_place(_Atomic uint32_t *count, uint32_t most)
{
    uint32_t seen = atomic_load_explicit(count, memory_order_relaxed);
    for (unsigned i = 0; i < ATTEMPTS_MAX; i++) {
        if (most && seen >= most) return false;
        if (atomic_compare_exchange_strong_explicit(count, &seen, seen + 1, memory_order_relaxed,
                                                    memory_order_relaxed))
            return true;
    }
    return false;
}

void partner_limits_release(struct partner_limits *l, uint32_t partner, enum partner_place place)
{
    if (place == PARTNER_PLACE_NONE) return;
    struct slot *s = find_slot(l, partner);
    BUG_IF(!s, "a place of a partner that was never counted");
    uint32_t before = atomic_fetch_sub_explicit(count_of(s, place), 1, memory_order_relaxed);
    BUG_IF(before == 0, "a partner's place was given back twice");
}

enum partner_place partner_limits_move(struct partner_limits *l, uint32_t from, uint32_t to,
                                       enum partner_place place)
{
    if (place == PARTNER_PLACE_NONE) return place;
    struct slot *s = make_slot(l, to);
    if (s) (void)atomic_fetch_add_explicit(count_of(s, place), 1, memory_order_relaxed);
    partner_limits_release(l, from, place);
    return s ? place : PARTNER_PLACE_NONE;
}

/* --- the pace -------------------------------------------------------------------------------------- */

/* What is left of an arrival: nothing of the past, and no more of the future than the rules could have made.
 */
static uint64_t arrival_now(uint64_t seen, const struct partner_rules *r, uint64_t now_ns)
{
    if (seen < now_ns) return now_ns;
    return seen > now_ns + r->window_ns + CLOCKS_DIFFER_NS ? now_ns + r->window_ns : seen;
}

/* Nanoseconds until a request may come that finds this arrival; 0 = now. */
static uint64_t wait_behind(uint64_t arrival, const struct partner_rules *r, uint64_t now_ns)
{
    uint64_t next = arrival + r->interval_ns, most = now_ns + r->window_ns;
    return next > most ? next - most : 0;
}

/* Takes the next turn and returns 0, or says how long it would have to wait for it. */
static uint64_t take_turn(_Atomic uint64_t *arrival_ns, const struct partner_rules *r, uint64_t now_ns)
{
    uint64_t seen = atomic_load_explicit(arrival_ns, memory_order_relaxed);
    for (unsigned i = 0; i < ATTEMPTS_MAX; i++) {
        uint64_t arrival = arrival_now(seen, r, now_ns), wait = wait_behind(arrival, r, now_ns);
        uint64_t to = wait ? arrival : arrival + r->interval_ns;
        if (to == seen) return wait;
        if (atomic_compare_exchange_strong_explicit(arrival_ns, &seen, to, memory_order_relaxed,
                                                    memory_order_relaxed))
            return wait;
    }
    return r->interval_ns;
}

/* --- admission ------------------------------------------------------------------------------------- */

static struct partner_admission refused(enum deny why, uint64_t wait_ns)
{
    return (struct partner_admission){.deny = why,
                                      .retry_after_s = (uint32_t)((wait_ns + SECOND_NS - 1) / SECOND_NS)};
}

struct partner_admission partner_limits_admit(struct partner_limits *l, const struct partner_rules *r,
                                              uint32_t partner, enum partner_place as, uint64_t now_us)
{
    struct slot *s = make_slot(l, partner);
    if (!s) return (struct partner_admission){.is_uncounted = true};
    uint32_t most = most_of(r, as);
    enum partner_place place = most || as == PARTNER_PLACE_TUNNEL ? as : PARTNER_PLACE_NONE;
    if (place && !take_place(count_of(s, place), most)) return refused(deny_of(place), SECOND_NS);
    uint64_t wait_ns = r->interval_ns ? take_turn(&s->arrival_ns, r, now_us * 1000) : 0;
    if (wait_ns == 0) return (struct partner_admission){.place = place};
    partner_limits_release(l, partner, place);
    return refused(DENY_RATE, wait_ns);
}

enum deny partner_limits_foresee(const struct partner_limits *l, const struct partner_rules *r,
                                 uint32_t partner, enum partner_place as, uint64_t now_us,
                                 struct partner_usage *usage)
{
    static struct slot unused;
    struct slot *s = find_slot(l, partner);
    if (!s) s = &unused;
    uint64_t now_ns = now_us * 1000;
    *usage =
        (struct partner_usage){.requests = atomic_load(&s->requests), .tunnels = atomic_load(&s->tunnels)};
    uint32_t most = most_of(r, as), have = as == PARTNER_PLACE_TUNNEL ? usage->tunnels : usage->requests;
    if (most && have >= most) return deny_of(as);
    if (r->interval_ns && wait_behind(arrival_now(atomic_load(&s->arrival_ns), r, now_ns), r, now_ns))
        return DENY_RATE;
    return DENY_NONE;
}
