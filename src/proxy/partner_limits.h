/* partner_limits.h - how much one partner may ask of this process: its pace, and what it has under way.
 *
 *   partner index --> top[4096] --> page of 4096 x {arrival, requests, tunnels}      shared by all workers
 *
 *   admission.c  --admit-->   a place (request or tunnel), or a denial with the seconds until one would pass
 *   exchange, tunnel          keep the place, and give it back: an exchange before the last of its answer is
 *                             written, for who reads that may ask again at once; a tunnel where it is freed
 *
 * The pace is GCRA: `arrival` is when the next request would be due if all that were let in had come exactly
 * at the pace. A request passes while that is less than a window (burst x interval) ahead of now, and moves
 * it on by one interval; a refused one moves nothing. One word, so one compare-exchange decides.
 *
 * Tunnels are counted whether they are limited or not: they live for hours, and a limit that is set meanwhile
 * is to know them. Requests are counted only while they are limited. Who was counted has a place and gives it
 * back once, whatever the rules say by then.
 *
 * Pages are made when a partner of theirs is first counted, and kept: bounded by the number of partners there
 * have been at once. Nothing is reset when an index goes to another partner: places come back by themselves
 * as the requests of the old one end, and its arrival is at most one window ahead. An arrival that is further
 * ahead than the rules could have brought it (the pace was slower before a reload) is cut to the window.
 *
 * Thread: partner_limits_create, partner_limits_destroy [control]; the rest [any], without waiting.
 */
#ifndef PROXY_PARTNER_LIMITS_H
#define PROXY_PARTNER_LIMITS_H

#include "config/config.h"
#include "policy/decide.h"

struct partner_limits;

/* What the configuration allows each partner. */
struct partner_rules {
    uint64_t interval_ns;  /* between two requests at the pace; 0 = no limit */
    uint64_t window_ns;    /* a burst of them: at least one interval */
    uint32_t requests_max; /* under way at once; 0 = no limit */
    uint32_t tunnels_max;  /* open or being opened at once; 0 = no limit */
};

/* What a request counts as. */
enum partner_place { PARTNER_PLACE_NONE = 0, PARTNER_PLACE_REQUEST, PARTNER_PLACE_TUNNEL };

struct partner_admission {
    enum deny deny;           /* DENY_NONE, DENY_RATE, DENY_CONCURRENCY or DENY_TUNNELS */
    uint32_t retry_after_s;   /* with a denial: in so many seconds, rounded up, one request would pass */
    enum partner_place place; /* to be given back once */
    bool is_uncounted;        /* let in without memory to count it */
};

struct partner_usage {
    uint32_t requests, tunnels; /* counted now */
};

struct partner_rules partner_rules_of(const struct config_limits *limits);

/* True when what comes as `as` has to be admitted; else there is nothing to count. */
static inline bool partner_rules_concern(const struct partner_rules *r, enum partner_place as)
{
    return (r->interval_ns | r->requests_max) != 0 || as == PARTNER_PLACE_TUNNEL;
}

/* NULL when memory is out. */
struct partner_limits *partner_limits_create(void);
/* Nobody may have a place any more. Harmless with NULL. */
void partner_limits_destroy(struct partner_limits *l);

/* One request, or (`as` a tunnel) the request for one. `now_us`: monotonic. Its place counts before its turn,
 * so that who has too much under way does not use up the pace. */
struct partner_admission partner_limits_admit(struct partner_limits *l, const struct partner_rules *r,
                                              uint32_t partner, enum partner_place as, uint64_t now_us);

/* Gives a place back. PARTNER_PLACE_NONE is harmless. */
void partner_limits_release(struct partner_limits *l, uint32_t partner, enum partner_place place);

/* Moves a place to another partner, whatever its limit; returns the place there, NONE when there is no memory
 * to count it. */
enum partner_place partner_limits_move(struct partner_limits *l, uint32_t from, uint32_t to,
                                       enum partner_place place);

/* What admit() would say, without counting anything. */
enum deny partner_limits_foresee(const struct partner_limits *l, const struct partner_rules *r,
                                 uint32_t partner, enum partner_place as, uint64_t now_us,
                                 struct partner_usage *usage);

#endif
