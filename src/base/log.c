#include "base/log.h"

#include "base/clock.h"
#include "base/log_line.h"
#include "base/log_outputs.h"
#include "base/log_sink.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    NAME_MAX_BYTES = 16,
    RING_BYTES_MIN = 8 * LOG_LINE_MAX, /* a record may take a quarter of a ring */
};

static struct {
    bool is_started;
    size_t ring_bytes; /* set by log_start(), before the workers exist */
    struct log_rings rings;
    pthread_mutex_t attach_lock; /* of the list in `rings`; taken once in a thread's life */
    _Atomic int level;           /* enum log_level */
    _Atomic uint64_t stderr_errors;
} the_log = {.attach_lock = PTHREAD_MUTEX_INITIALIZER, .level = LOG_INFO};

/* This thread's; it has a ring from log_thread_attach() to log_stop(). */
static _Thread_local struct ring *own_ring;
static _Thread_local char own_name[NAME_MAX_BYTES];

static void wake(void)
{
    /* See ring_commit() for why this cannot miss a thread that is about to sleep. */
    if (atomic_load(&the_log.rings.is_sleeping) && atomic_exchange(&the_log.rings.is_sleeping, false))
        log_outputs_wake();
}

/* --- lines ----------------------------------------------------------------------------------------- */

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&the_log.level, (int)level, memory_order_relaxed);
}

enum log_level log_get_level(void)
{
    return (enum log_level)atomic_load_explicit(&the_log.level, memory_order_relaxed);
}

bool log_enabled(enum log_level level)
{
    return level >= log_get_level();
}

void log_event(enum log_level level, const char *event, const struct kv *kv)
{
    uint64_t now = clock_wall_ms();
    if (!own_ring) {
        char line[LOG_LINE_MAX];
        size_t n = log_line_format(line, now, level, "-", event, kv);
        if (!log_fd_write(STDERR_FILENO, line, n)) atomic_fetch_add(&the_log.stderr_errors, 1);
        return;
    }
    char *line = ring_reserve(own_ring, LOG_LINE_MAX);
    if (!line) return;
    ring_commit(own_ring, LOG_RECORD_OPS, log_line_format(line, now, level, own_name, event, kv));
    wake();
}

char *log_access_reserve(size_t n_max)
{
    if (!own_ring || !atomic_load_explicit(&the_log.rings.has_access, memory_order_relaxed)) return NULL;
    return ring_reserve(own_ring, n_max);
}

void log_access_commit(size_t n)
{
    ring_commit(own_ring, LOG_RECORD_ACCESS, n);
    wake();
}

uint64_t log_dropped_total(void)
{
    uint64_t sum = log_outputs_dropped();
    unsigned n = atomic_load(&the_log.rings.n);
    for (unsigned i = 0; i < n; i++)
        sum += ring_dropped(the_log.rings.list[i]);
    return sum;
}

uint64_t log_write_errors_total(void)
{
    return log_outputs_write_errors() + atomic_load_explicit(&the_log.stderr_errors, memory_order_relaxed);
}

/* --- rings ----------------------------------------------------------------------------------------- */

static void ring_destroy(struct ring *ring)
{
    ring_deinit(ring);
    free(ring);
}

/* Errors: ERR_LIMIT. */
static enum err list_add(struct log_rings *rings, struct ring *ring)
{
    pthread_mutex_lock(&the_log.attach_lock);
    unsigned n = atomic_load(&rings->n);
    if (n < LOG_THREADS_MAX) {
        rings->list[n] = ring;
        atomic_store(&rings->n, n + 1);
    }
    pthread_mutex_unlock(&the_log.attach_lock);
    return n < LOG_THREADS_MAX ? ERR_OK : ERR_LIMIT;
}

enum err log_thread_attach(const char *thread_name)
{
    struct ring *ring = aligned_alloc(_Alignof(struct ring), sizeof *ring);
    if (!ring) return ERR_NOMEM;
    enum err e = ring_init(ring, the_log.ring_bytes);
    if (e) {
        free(ring);
        return e;
    }
    e = list_add(&the_log.rings, ring);
    if (e) {
        ring_destroy(ring);
        return e;
    }
    own_ring = ring;
    (void)snprintf(own_name, sizeof own_name, "%s", thread_name); /* a name cut short still serves */
    return ERR_OK;
}

static void rings_destroy(void)
{
    unsigned n = atomic_exchange(&the_log.rings.n, 0);
    for (unsigned i = 0; i < n; i++)
        ring_destroy(the_log.rings.list[i]);
}

/* --- start and stop -------------------------------------------------------------------------------- */

enum err log_start(const struct log_options *o, struct errmsg *why)
{
    BUG_IF(the_log.is_started, "log_start() twice");
    log_set_level(o->level);
    the_log.ring_bytes = o->ring_bytes < RING_BYTES_MIN ? RING_BYTES_MIN : o->ring_bytes;
    enum err e = log_thread_attach("control");
    if (e)
        errmsg_set(why, 0, 0, "cannot start the log: %s", err_text(e));
    else
        e = log_outputs_start(&the_log.rings, o->ops_path, o->access_path, why);
    if (e) {
        own_ring = NULL;
        rings_destroy();
    }
    the_log.is_started = e == ERR_OK;
    return e;
}

void log_reopen(void)
{
    if (the_log.is_started) log_outputs_reopen();
}

void log_stop(unsigned wait_ms)
{
    if (!the_log.is_started) return;
    own_ring = NULL;
    if (!log_outputs_stop(wait_ms)) return; /* the process is ending: what is still in use stays */
    rings_destroy();
    the_log.is_started = false;
}

void log_leave(unsigned wait_ms)
{
    if (!the_log.is_started) return;
    own_ring = NULL;
    (void)log_outputs_stop(wait_ms);
}
