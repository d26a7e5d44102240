#include "proxy/worker.h"

#include "base/container.h"
#include "base/log.h"
#include "http/reply.h"
#include "proxy/conns.h"
#include "proxy/exchange.h"
#include "proxy/tunnel.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>

enum { FREE_ARENA_BLOCKS_MAX = 512 }; /* 2 MiB kept for reuse */

struct addresses_message {
    struct loop_message message;
    struct worker *worker;
    enum environment env;
    struct address_list list;
};

static void on_turn_begin(void *arg)
{
    epoch_online(((struct worker *)arg)->reader);
}

static void on_turn_end(void *arg)
{
    epoch_offline(((struct worker *)arg)->reader);
}

static bool init_parts(struct worker *w, size_t buffer_bytes)
{
    const struct loop_hooks hooks = {.on_turn_begin = on_turn_begin, .on_turn_end = on_turn_end, .arg = w};
    w->out_bytes = buffer_bytes; /* a head is at most half of it, and grows by less than the other half */
    w->out = malloc(w->out_bytes);
    w->parser = http_parser_create();
    w->hasher = token_hasher_create();
    w->metrics = metrics_block_create();
    if (!w->out || !w->parser || !w->hasher || !w->metrics) return false;
    if (epochs_register(policy_epochs(w->policy), &w->reader)) return false;
    tunnel_index_init(&w->tunnels);
    list_init(&w->greetings);
    arena_pool_init(&w->arenas, FREE_ARENA_BLOCKS_MAX);
    random_source_init(&w->random);
    if (loop_init(&w->loop, buffer_bytes, &hooks)) return false;
    w->loop.leaves_reserve = true;
    return true;
}

static void free_parts(struct worker *w)
{
    exchange_pool_free(w);
    arena_pool_deinit(&w->arenas);
    if (w->reader) epochs_unregister(policy_epochs(w->policy), w->reader);
    for (unsigned e = 0; e < ENV_COUNT; e++)
        upstream_deinit(&w->upstreams[e]);
    token_hasher_destroy(w->hasher);
    http_parser_destroy(w->parser);
    settings_unref(w->settings);
    free(w->out);
    free(w);
}

struct worker *worker_create(unsigned index, size_t buffer_bytes, struct policy *policy,
                             struct partner_limits *limits, struct sources *sources)
{
    struct worker *w = calloc(1, sizeof *w);
    if (!w) return NULL;
    w->index = index;
    w->policy = policy;
    w->limits = limits;
    w->sources = sources;
    if (!init_parts(w, buffer_bytes)) {
        free_parts(w);
        return NULL;
    }
    epoch_offline(w->reader); /* loop_init() began a turn; nothing reads before the thread runs */
    for (unsigned e = 0; e < ENV_COUNT; e++)
        upstream_init(&w->upstreams[e], w, (enum environment)e);
    return w;
}

void worker_on_stopped(struct worker *w, void (*fn)(struct worker *w, void *arg), void *arg)
{
    w->on_stopped = fn;
    w->on_stopped_arg = arg;
}

/* --- life of the thread ---------------------------------------------------------------------------- */

static void block_signals(void)
{
    sigset_t all;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_BLOCK, &all, NULL); /* signals are control's */
}

static void run(void *arg)
{
    struct worker *w = arg;
    char name[16];
    block_signals();
    (void)snprintf(name, sizeof name, "w%u", w->index);
    (void)prctl(PR_SET_NAME, name, 0L, 0L, 0L); /* for top -H, gdb */
    if (log_thread_attach(name)) log_warn("log_ring_missing", KV_STR("thread", name));
    loop_run(&w->loop);
    epoch_offline(w->reader);
    if (w->on_stopped) w->on_stopped(w, w->on_stopped_arg);
}

enum err worker_start(struct worker *w)
{
    if (uv_thread_create(&w->thread, run, w)) return ERR_IO;
    w->started = true;
    return ERR_OK;
}

void worker_join(struct worker *w)
{
    if (!w->started) return;
    (void)uv_thread_join(&w->thread); /* fails only for a thread that was joined before */
    w->started = false;
    w->has_run = true;
}

static void close_listeners(struct worker *w, bool take_queued)
{
    for (uint32_t i = 0; i < CONFIG_LISTENERS_MAX; i++) {
        if (w->listeners[i]) worker_listener_close(w->listeners[i], take_queued);
        w->listeners[i] = NULL;
    }
}

/* The thread never ran: what it would have closed is closed here. What waits in the sockets may still be
 * served, by the process that has handed them over. */
static void close_unstarted(struct worker *w)
{
    close_listeners(w, false);
    loop_close(&w->loop);
    loop_run(&w->loop);
    epoch_offline(w->reader);
}

void worker_destroy(struct worker *w)
{
    if (!w) return;
    if (!w->has_run) close_unstarted(w);
    loop_deinit(&w->loop); /* not before: until here control may still post, and is refused */
    free_parts(w);
}

void worker_object_opened(struct worker *w)
{
    w->nobjects++;
}

static void end_when_empty(struct worker *w)
{
    if (w->mode < WORKER_ENDING || w->nobjects || w->closing) return;
    w->closing = true;
    loop_deadline_clear(&w->loop, &w->drain_bound);
    loop_close(&w->loop);
}

void worker_object_closed(struct worker *w)
{
    w->nobjects--;
    end_when_empty(w);
}

/* --- messages from control ------------------------------------------------------------------------- */

static void on_addresses(struct loop_message *message)
{
    struct addresses_message *m = (struct addresses_message *)message;
    upstream_set_addresses(&m->worker->upstreams[m->env], &m->list);
    free(m);
}

enum err worker_set_addresses(struct worker *w, enum environment env, const struct address_list *list)
{
    if (!w->started) {
        upstream_set_addresses(&w->upstreams[env], list);
        return ERR_OK;
    }
    struct addresses_message *m = malloc(sizeof *m);
    if (!m) return ERR_NOMEM;
    *m = (struct addresses_message){.message.deliver = on_addresses, .worker = w, .env = env, .list = *list};
    if (!loop_post(&w->loop, &m->message)) free(m); /* it is going away: addresses no longer matter */
    return ERR_OK;
}

/* --- policy changes -------------------------------------------------------------------------------- */

/* A worker that runs takes all that wait in its next turn. So many wait for one that hangs, or in a flood of
 * changes: looking at every tunnel once is no more work then, and needs one message. */
enum { CHANGES_WAITING_MAX = 1024 };

struct changes_message {
    struct loop_message message;
    struct worker *worker;
    uint32_t n;
    uint32_t indices[];
};

static void on_changes(struct loop_message *message)
{
    struct changes_message *m = (struct changes_message *)message;
    atomic_fetch_sub(&m->worker->nchanges, 1);
    for (uint32_t i = 0; i < m->n; i++)
        tunnels_recheck(m->worker, m->indices[i]);
    free(m);
}

static void on_recheck(struct loop_message *message)
{
    struct worker *w = CONTAINER_OF(message, struct worker, recheck_message);
    atomic_store(&w->recheck_posted, false); /* before the look: a change during it posts again */
    tunnels_recheck(w, PARTNER_INDEX_NONE);
}

static void post_recheck_all(struct worker *w)
{
    if (atomic_exchange(&w->recheck_posted, true)) return; /* the one on its way sees this change too */
    w->recheck_message.deliver = on_recheck;
    (void)loop_post(&w->loop, &w->recheck_message); /* refused only by a loop that has ended: no tunnels */
}

void worker_policy_changed(struct worker *w, const uint32_t *indices, uint32_t n, bool all)
{
    /* A worker that hangs takes none; one look at everybody will do instead of all that follow. */
    bool is_much = all || atomic_load(&w->nchanges) >= CHANGES_WAITING_MAX;
    struct changes_message *m = is_much ? NULL : malloc(sizeof *m + n * sizeof *indices);
    if (!m) {
        post_recheck_all(w);
        return;
    }
    *m = (struct changes_message){.message.deliver = on_changes, .worker = w, .n = n};
    memcpy(m->indices, indices, n * sizeof *indices);
    atomic_fetch_add(&w->nchanges, 1);
    if (loop_post(&w->loop, &m->message)) return;
    atomic_fetch_sub(&w->nchanges, 1);
    free(m);
}

/* --- mode ------------------------------------------------------------------------------------------ */

static void on_drain_bound(struct wheel_entry *e)
{
    struct worker *w = CONTAINER_OF(e, struct worker, drain_bound);
    w->cut_by_bound = true;
    log_warn("shutdown_bound_met", KV_UINT("connections", w->nconns));
    conns_cut(w);
}

static void begin_end(struct worker *w)
{
    close_listeners(w, true);
    for (unsigned e = 0; e < ENV_COUNT; e++)
        upstream_drain(&w->upstreams[e]);
    wheel_entry_init(&w->drain_bound, on_drain_bound);
    loop_deadline(&w->loop, &w->drain_bound, w->settings->config->timeouts.shutdown_ms);
}

static void set_mode(struct worker *w, enum worker_mode mode)
{
    bool was_ending = w->mode >= WORKER_ENDING;
    if (mode == w->mode || (was_ending && mode < w->mode)) return;
    w->mode = mode;
    if (mode >= WORKER_ENDING && !was_ending) begin_end(w);
    if (mode == WORKER_CUTTING)
        conns_cut(w);
    else
        conns_follow_mode(w);
    end_when_empty(w);
}

static void on_mode(struct loop_message *message)
{
    struct worker *w = CONTAINER_OF(message, struct worker, mode_message);
    atomic_store(&w->mode_posted, false); /* before the look: a change after it posts again */
    set_mode(w, (enum worker_mode)atomic_load(&w->mode_wanted));
}

void worker_set_mode(struct worker *w, enum worker_mode mode)
{
    if (!w->started) return;
    atomic_store(&w->mode_wanted, mode);
    if (atomic_exchange(&w->mode_posted, true)) return; /* the message on its way brings this mode too */
    w->mode_message.deliver = on_mode;
    (void)loop_post(&w->loop, &w->mode_message); /* refused only by a loop that has ended already */
}

struct span worker_date_line(struct worker *w)
{
    uint64_t second = w->loop.wall_ms / 1000;
    if (second != w->date_second) {
        struct outbuf o = outbuf_of(w->date_line, sizeof w->date_line);
        outbuf_span(&o, SPAN("Date: "));
        http_date_write(&o, w->loop.wall_ms);
        outbuf_span(&o, SPAN("\r\n"));
        w->date_line_n = (uint8_t)o.n;
        w->date_second = second;
    }
    return span_of(w->date_line, w->date_line_n);
}
