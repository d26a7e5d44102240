#include "load/load.h"

#include "load/client.h"
#include "load/wording.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum {
    OPENING_MAX = 128,
    PACE_MIN_NS = 20 * 1000, /* shorter ticks cost more than they bring */
};

static bool is_over(const struct load *l)
{
    return l->phase == LOAD_RESTING || l->phase == LOAD_OVER;
}

static uint64_t due_us_of(const struct load *l, uint64_t operation)
{
    return l->begin_us + operation * 1000000 / l->plan->rate;
}

/* May one more operation begin now? */
static bool has_work(const struct load *l, uint64_t now_us)
{
    const struct load_plan *plan = l->plan;
    if (l->phase != LOAD_RUNNING || l->stopping || l->started == plan->operations) return false;
    if (plan->rate && due_us_of(l, l->started) > now_us) return false;
    uint64_t at =
        plan->rate ? due_us_of(l, l->started) : now_us; /* what fell due in time is done, even if late */
    return !plan->run_ms || at < l->begin_us + plan->run_ms * 1000;
}

static bool has_future(const struct load *l, uint64_t now_us)
{
    const struct load_plan *plan = l->plan;
    if (has_work(l, now_us)) return true;
    if (!plan->rate || l->stopping || l->started == plan->operations) return false;
    return !plan->run_ms || due_us_of(l, l->started) < l->begin_us + plan->run_ms * 1000;
}

static void push_idle(struct load *l, struct load_client *c)
{
    l->idle[(l->idle_at + l->nidle++) % l->plan->connections] = c;
}

static struct load_client *pop_idle(struct load *l)
{
    struct load_client *c = l->idle[l->idle_at];
    l->idle_at = (l->idle_at + 1) % l->plan->connections;
    l->nidle--;
    return c;
}

static void stop_pace(struct load *l)
{
    if (l->pace_fd < 0) return;
    uv_close((uv_handle_t *)&l->pace, NULL);
    (void)close(l->pace_fd);
    l->pace_fd = -1;
}

static void rest_if_done(struct load *l)
{
    if (l->phase != LOAD_RUNNING || l->active) return;
    if (l->out < l->plan->connections && (l->ready < l->plan->connections || has_future(l, clock_mono_us())))
        return;
    l->end_us = clock_mono_us();
    l->phase = LOAD_RESTING;
    stop_pace(l);
    l->on_rested(l);
}

static void start_operation(struct load *l, struct load_client *c, uint64_t now_us)
{
    uint64_t due_us = l->plan->rate ? due_us_of(l, l->started) : now_us;
    l->started++;
    l->active++;
    client_start(c, due_us);
}

/* Gives work to whoever is idle. */
static void hand_out(struct load *l)
{
    uint64_t now_us = clock_mono_us();
    while (l->nidle && has_work(l, now_us))
        start_operation(l, pop_idle(l), now_us);
    rest_if_done(l);
}

static void open_more(struct load *l)
{
    const struct load_plan *plan = l->plan;
    if (l->opening) return; /* the loop below goes on */
    l->opening = true;
    while (!is_over(l) && l->opened < plan->connections && l->opened - l->ready - l->out < OPENING_MAX) {
        struct load_client *c = client_at(l->clients, l->opened++);
        uint64_t now_us = clock_mono_us();
        if (plan->stepped)
            client_greet(c);
        else if (has_work(l, now_us))
            start_operation(l, c, now_us);
        else
            load_idle(l, c);
    }
    l->opening = false;
}

void load_count(struct load *l, uint64_t due_us)
{
    l->active--;
    l->answered++;
    histogram_add(&l->latency, clock_mono_us() - due_us);
}

void load_idle(struct load *l, struct load_client *c)
{
    uint64_t now_us = clock_mono_us();
    if (client_is_new(c)) l->ready++;
    push_idle(l, c);
    if (has_work(l, now_us)) start_operation(l, pop_idle(l), now_us);
    if (l->phase == LOAD_OPENING && l->nidle == l->plan->connections) {
        l->phase = LOAD_READY;
        l->on_ready(l);
    }
    open_more(l);
    rest_if_done(l);
}

static void forget_idle(struct load *l, const struct load_client *c)
{
    for (uint32_t n = l->nidle; n > 0; n--) {
        struct load_client *each = pop_idle(l);
        if (each != c) push_idle(l, each);
    }
}

void load_out(struct load *l, const struct load_client *c)
{
    l->out++;
    forget_idle(l, c);
    open_more(l);
    if (l->phase == LOAD_OPENING && l->out == l->plan->connections)
        l->phase = LOAD_RUNNING; /* nothing to wait for */
    rest_if_done(l);
}

static void on_pace(uv_poll_t *p, int status, int events)
{
    struct load *l = p->data;
    uint64_t ticks;
    (void)status;
    (void)events;
    loop_turn(&l->loop);
    if (read(l->pace_fd, &ticks, sizeof ticks) < 0) return; /* woken without a tick */
    hand_out(l);
}

/* libuv's timers know milliseconds only. */
static bool start_pace(struct load *l)
{
    long ns = 1000000000L / (long)l->plan->rate;
    if (ns < PACE_MIN_NS) ns = PACE_MIN_NS;
    struct timespec every = {.tv_sec = ns / 1000000000L, .tv_nsec = ns % 1000000000L};
    struct itimerspec t = {.it_interval = every, .it_value = every};
    l->pace_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (l->pace_fd < 0) return false;
    l->pace.data = l;
    if (uv_poll_init(&l->loop.uv, &l->pace, l->pace_fd)) {
        (void)close(l->pace_fd);
        l->pace_fd = -1;
        return false;
    }
    return timerfd_settime(l->pace_fd, 0, &t, NULL) == 0 &&
           uv_poll_start(&l->pace, UV_READABLE, on_pace) == 0;
}

bool load_run(struct load *l)
{
    l->phase = LOAD_RUNNING;
    l->begin_us = clock_mono_us();
    if (l->plan->rate && !start_pace(l)) return false;
    open_more(l);
    hand_out(l);
    return true;
}

bool load_begin(struct load *l)
{
    if (!l->plan->stepped) return load_run(l);
    open_more(l);
    return true;
}

void load_stop(struct load *l)
{
    l->stopping = true;
    rest_if_done(l);
}

void load_end(struct load *l)
{
    if (l->phase == LOAD_OVER) return;
    if (!l->end_us) l->end_us = clock_mono_us();
    l->phase = LOAD_OVER;
    stop_pace(l);
    for (uint32_t i = 0; i < l->opened; i++)
        client_close(client_at(l->clients, i));
    loop_close(&l->loop);
}

bool load_init(struct load *l)
{
    const struct load_plan *plan = l->plan;
    l->pace_fd = -1;
    memset(l->filler, 'x', sizeof l->filler);
    l->parser = http_parser_create();
    l->tls = plan->tls ? secure_context(plan->resume) : NULL;
    l->clients = clients_create(l);
    l->idle = calloc(plan->connections, sizeof(struct load_client *));
    bool ok = l->parser && l->clients && l->idle && (l->tls || !plan->tls) && load_request_prepare(l);
    if (ok && loop_init(&l->loop, LOAD_READ_BYTES, NULL) == ERR_OK) return true;
    load_deinit(l);
    return false;
}

void load_deinit(struct load *l)
{
    if (l->phase == LOAD_OVER) loop_deinit(&l->loop);
    if (l->clients) clients_destroy(l->clients, l->plan->connections);
    free(l->idle);
    SSL_CTX_free(l->tls);
    http_parser_destroy(l->parser);
}
