/* worker.h - one thread of the data plane: a loop, its listeners, its client connections and its pools.
 *
 *   control --start--> worker thread: listeners -> conns -> exchanges -> upstreams
 *           --messages (loop_post)--> another generation (worker_update.h), addresses changed, mode
 *
 * Everything a worker owns stays on its thread for life. It shares generations of the configuration
 * (immutable, generation.h), the policy (wait-free reads, epoch.h) and its metrics block and log ring (single
 * writer each).
 *
 *   mode: SERVING <--> DRAINING --> ENDING --> CUTTING      (also straight to a later one)
 *
 * Thread: worker_date_line, worker_object_* and worker_is_draining [worker]; the rest [control].
 */
#ifndef PROXY_WORKER_H
#define PROXY_WORKER_H

#include "base/arena.h"
#include "base/list.h"
#include "base/log_sample.h"
#include "base/metrics.h"
#include "base/random.h"
#include "net/resolver.h"
#include "policy/decide.h"
#include "proxy/denials.h"
#include "proxy/settings.h"
#include "proxy/tunnel_index.h"
#include "proxy/upstream.h"
#include "proxy/worker_listener.h"

#include <stdatomic.h>

struct conn;
struct exchange;
struct sources;

/* What control wants of a worker. Nothing leads back from WORKER_ENDING. */
enum worker_mode {
    WORKER_SERVING = 0,
    WORKER_DRAINING, /* accepts, but every answer closes, idle connections end, tunnels leave one by one */
    WORKER_ENDING,   /* the same without accepting; the thread ends with the last connection, or cuts it */
    WORKER_CUTTING,  /* every connection is cut now */
};

struct worker {
    /* set once */
    unsigned index;
    struct policy *policy;
    struct partner_limits *limits; /* shared by all workers */
    struct sources *sources;       /* the same */
    struct epoch_reader *reader;
    struct metrics_block *metrics;
    void (*on_stopped)(struct worker *w, void *arg); /* runs on the worker's thread, last thing */
    void *on_stopped_arg;
    uv_thread_t thread;
    bool started, has_run; /* control: the thread exists (a message tells the worker); it has been joined */

    /* control */
    struct loop_message mode_message;        /* embedded: shutting down needs no memory */
    struct loop_message recheck_message;     /* ending what is not allowed needs none either */
    atomic_bool mode_posted, recheck_posted; /* shared: set by control, cleared by the worker */
    atomic_ushort nchanges;                  /* shared: messages about partners that are on their way */
    atomic_uint mode_wanted;                 /* shared: enum worker_mode, written by control */

    /* this thread */
    struct loop loop;
    struct worker_settings *settings; /* for what begins now; one reference */
    /* By index in the configuration; NULL where the loop has refused one. */
    struct worker_listener *listeners[CONFIG_LISTENERS_MAX];
    struct http_parser *parser;
    struct token_hasher *hasher;
    struct random_source random;
    struct arena_pool arenas;
    struct exchange *free_exchanges; /* linked by next_free */
    uint32_t nfree_exchanges;
    struct upstream upstreams[ENV_COUNT];
    struct tunnel_index tunnels;
    struct denials denials;
    struct conn *conns;         /* list of all client connections whose caller is known */
    struct list_link greetings; /* head: struct greeting, before their PROXY header; nconns has them too */
    struct log_sample shield_sample, greeting_sample, handshake_sample;
    uint32_t nconns, nexchanges, ntunnels[ENV_COUNT];
    uint32_t nhandshakes; /* of nconns: TLS with clients */
    uint32_t nupgrades;   /* exchanges that may become tunnels */
    uint32_t nobjects;    /* connections of both kinds that libuv still knows */
    enum worker_mode mode;
    bool closing;      /* the loop's own handles are being closed */
    bool cut_by_bound; /* connections were cut at the end of the drain; read by control after worker_join() */
    struct wheel_entry drain_bound;
    uint64_t date_second; /* for which date_line was written */
    char date_line[40];
    uint8_t date_line_n;
    struct req_head req; /* scratch: valid inside one call */
    struct res_head res; /* scratch: valid inside one call */
    char *out;           /* scratch: heads are written here */
    size_t out_bytes;
};

/* `buffer_bytes`: of the read buffer, at least twice as large as a head. It listens to nothing before its
 * first update (worker_update.h), which must come before worker_start(). Errors: NULL when memory is out. */
struct worker *worker_create(unsigned index, size_t buffer_bytes, struct policy *policy,
                             struct partner_limits *limits, struct sources *sources);

/* Called on the worker's thread when it has nothing left to do. Set before worker_start(). */
void worker_on_stopped(struct worker *w, void (*fn)(struct worker *w, void *arg), void *arg);

/* Starts the thread. Errors: ERR_IO. */
enum err worker_start(struct worker *w);

/* Tells the worker how to go on; the last word counts. WORKER_ENDING lasts timeouts.shutdown at most.
 * Harmless when it was never started. */
void worker_set_mode(struct worker *w, enum worker_mode mode);

/* New backend addresses of one environment. Errors: ERR_NOMEM. */
enum err worker_set_addresses(struct worker *w, enum environment env, const struct address_list *list);

/* These partners (indices) have changed: open tunnels that are not allowed any more end. Without memory for
 * the list, all tunnels are looked at. `all`: the same on purpose. */
void worker_policy_changed(struct worker *w, const uint32_t *indices, uint32_t n, bool all);

/* Waits for the thread; harmless when it was never started. */
void worker_join(struct worker *w);

/* After worker_join(), or when it was never started. */
void worker_destroy(struct worker *w);

/* --- for the files of this floor ---------------------------------------------------------------- */

/* Every answer is the last one of its connection, and nothing long begins. */
static inline bool worker_is_draining(const struct worker *w)
{
    return w->mode != WORKER_SERVING;
}

/* Every object with a stream says when it begins and when libuv has let go of it; a draining worker ends
 * when the last one is gone. */
void worker_object_opened(struct worker *w);
void worker_object_closed(struct worker *w);

/* "Date: ...\r\n" of this second. Valid until the next call. */
struct span worker_date_line(struct worker *w);

#endif
