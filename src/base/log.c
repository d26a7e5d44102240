#include "base/log.h"

#include "base/clock.h"
#include "base/log_line.h"
#include "base/log_sink.h"
#include "base/ring.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

enum {
    WRITERS_MAX = 256,
    NAME_MAX_BYTES = 16,
    RING_BYTES_MIN = 8 * LOG_LINE_MAX, /* a record may take a quarter of a ring */
    RECORDS_PER_TURN = 4096,           /* of one ring, before the next one has its turn */
    BUSY_WAIT_MS = 10,                 /* lets lines gather into one write */
    DROPS_EVERY_US = 1000000,          /* at most one log_dropped line a second */
    FAILURES_EVERY_US = 60000000,      /* and one log_write_failed a minute and output */
    STOP_GRACE_MS = 100,               /* for a log thread that hangs in a write after its deadline */
};

enum record_kind { KIND_OPS = 0, KIND_ACCESS = 1 };

/* What a thread that logs owns. Lives from log_thread_attach() to log_stop(). */
struct log_writer {
    struct ring ring;
    char name[NAME_MAX_BYTES];
};

/* New outputs on their way to the log thread. */
struct log_outputs {
    struct log_sink ops, access;
    bool is_shared; /* both are the same place: `access` is closed */
    bool has_access;
    unsigned nmarks; /* entries of `marks` */
    /* Head of each ring at log_outputs_use(): the records before it belong to the old outputs. */
    uint64_t marks[WRITERS_MAX];
};

static struct {
    /* set by log_start(), before the log thread and the workers exist */
    bool is_started;
    size_t ring_bytes;
    pthread_t thread;
    int wake_fd; /* eventfd: there is work */
    int done_fd; /* eventfd: the log thread has ended */

    /* shared */
    pthread_mutex_t attach_lock; /* taken once in a thread's life */
    struct log_writer *writers[WRITERS_MAX];
    _Atomic unsigned nwriters; /* entries of `writers` that are complete */
    atomic_bool has_access;
    atomic_bool is_sleeping; /* the log thread waits: whoever commits a record wakes it */
    atomic_bool is_reopening;
    struct log_outputs *_Atomic next; /* to switch to; owned by whoever exchanges it for NULL */
    _Atomic uint64_t stop_at_us;      /* 0: running; else the deadline for draining (clock_mono_us()) */
    _Atomic int level;                /* enum log_level */
    _Atomic uint64_t stderr_errors;

    /* log thread */
    struct log_sink ops;
    struct log_sink access_own;
    struct log_sink *access; /* access_own, or &ops when both go to the same place */
    uint64_t drops_reported;
    uint64_t drops_reported_at_us;
} the_log = {
    .attach_lock = PTHREAD_MUTEX_INITIALIZER, .level = LOG_INFO, .ops = {.fd = -1}, .access_own = {.fd = -1}};

static _Thread_local struct log_writer *self;

static void event_post(int fd)
{
    uint64_t one = 1;
    while (write(fd, &one, sizeof one) < 0)
        BUG_IF(errno != EINTR, "eventfd refused a wake-up");
}

/* ---- the threads that log ---- */

static void log_wake(void)
{
    /* See ring_commit() for why this cannot miss a thread that is about to sleep. */
    if (atomic_load(&the_log.is_sleeping) && atomic_exchange(&the_log.is_sleeping, false))
        event_post(the_log.wake_fd);
}

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
    if (!self) {
        char line[LOG_LINE_MAX];
        size_t n = log_line_format(line, now, level, "-", event, kv);
        if (!log_fd_write(STDERR_FILENO, line, n)) atomic_fetch_add(&the_log.stderr_errors, 1);
        return;
    }
    char *line = ring_reserve(&self->ring, LOG_LINE_MAX);
    if (!line) return;
    ring_commit(&self->ring, KIND_OPS, log_line_format(line, now, level, self->name, event, kv));
    log_wake();
}

char *log_access_reserve(size_t n_max)
{
    if (!self || !atomic_load_explicit(&the_log.has_access, memory_order_relaxed)) return NULL;
    return ring_reserve(&self->ring, n_max);
}

void log_access_commit(size_t n)
{
    ring_commit(&self->ring, KIND_ACCESS, n);
    log_wake();
}

enum err log_thread_attach(const char *thread_name)
{
    struct log_writer *w = aligned_alloc(_Alignof(struct log_writer), sizeof *w);
    if (!w) return ERR_NOMEM;
    if (ring_init(&w->ring, the_log.ring_bytes)) {
        free(w);
        return ERR_NOMEM;
    }
    (void)snprintf(w->name, sizeof w->name, "%s", thread_name); /* a name cut short still serves */

    pthread_mutex_lock(&the_log.attach_lock);
    unsigned n = atomic_load(&the_log.nwriters);
    if (n < WRITERS_MAX) {
        the_log.writers[n] = w;
        atomic_store(&the_log.nwriters, n + 1);
    }
    pthread_mutex_unlock(&the_log.attach_lock);
    if (n == WRITERS_MAX) {
        ring_deinit(&w->ring);
        free(w);
        return ERR_LIMIT;
    }
    self = w;
    return ERR_OK;
}

uint64_t log_dropped_total(void)
{
    uint64_t sum = atomic_load_explicit(&the_log.ops.dropped, memory_order_relaxed) +
                   atomic_load_explicit(&the_log.access_own.dropped, memory_order_relaxed);
    unsigned n = atomic_load(&the_log.nwriters);
    for (unsigned i = 0; i < n; i++)
        sum += ring_dropped(&the_log.writers[i]->ring);
    return sum;
}

uint64_t log_write_errors_total(void)
{
    return atomic_load_explicit(&the_log.ops.write_errors, memory_order_relaxed) +
           atomic_load_explicit(&the_log.access_own.write_errors, memory_order_relaxed) +
           atomic_load_explicit(&the_log.stderr_errors, memory_order_relaxed);
}

/* ---- the log thread ---- */

static void own_event(enum log_level level, const char *event, const struct kv *kv)
{
    char line[LOG_LINE_MAX];
    size_t n = log_line_format(line, clock_wall_ms(), level, "log", event, kv);
    (void)log_sink_put(&the_log.ops, line, n); /* counted there when it does not fit */
}

static bool has_records(void)
{
    uint32_t kind;
    size_t n;
    unsigned nwriters = atomic_load(&the_log.nwriters);
    for (unsigned i = 0; i < nwriters; i++)
        if (ring_peek(&the_log.writers[i]->ring, &kind, &n)) return true;
    return false;
}

/* Moves a record from the ring to its sink. False: the ring is empty. */
static bool record_move(struct ring *ring)
{
    uint32_t kind;
    size_t n;
    const char *line = ring_peek(ring, &kind, &n);
    if (!line) return false;
    struct log_sink *sink = kind == KIND_ACCESS ? the_log.access : &the_log.ops;
    (void)log_sink_put(sink, line, n); /* counted there when it does not fit */
    ring_release(ring);
    return true;
}

/* Moves records from the rings to the sinks. True when there were any. */
static bool rings_drain(void)
{
    bool any = false;
    unsigned nwriters = atomic_load(&the_log.nwriters);
    for (unsigned i = 0; i < nwriters; i++)
        for (int budget = RECORDS_PER_TURN; budget && record_move(&the_log.writers[i]->ring); budget--)
            any = true;
    return any;
}

static bool sinks_flush(void)
{
    bool ops_empty = log_sink_flush(&the_log.ops);
    return log_sink_flush(the_log.access) && ops_empty;
}

static void sink_reopen(struct log_sink *sink)
{
    (void)log_sink_flush(sink); /* what the old file does not take now goes to the new one */
    if (log_sink_reopen(sink) == ERR_OK) return;
    own_event(
        LOG_ERROR, "log_reopen_failed",
        (const struct kv[]){KV_STR("path", sink->path), KV_STR("text", strerror(errno)), {.kind = KV_END}});
}

/* Switches to the outputs that control has opened. has_access is set here and not by control, so that no
 * access line arrives while the access output is still off. */
static void outputs_switch(void)
{
    struct log_outputs *next = atomic_exchange(&the_log.next, NULL);
    if (!next) return;
    for (unsigned i = 0; i < next->nmarks; i++)
        while (ring_tail(&the_log.writers[i]->ring) < next->marks[i] &&
               record_move(&the_log.writers[i]->ring)) {
        }
    if (the_log.access == &the_log.ops) the_log.access = &the_log.access_own; /* closed, and empty */
    bool is_shared = next->is_shared;
    atomic_store(&the_log.has_access, next->has_access);
    log_sink_replace(&the_log.ops, &next->ops);
    log_sink_replace(&the_log.access_own, &next->access);
    if (is_shared) the_log.access = &the_log.ops;
    log_outputs_discard(next);
}

/* Reports dropped lines, at most once a second, or at once when `is_last`. Returns the milliseconds until the
 * next report may come, -1 when there is nothing to report or no room for it. */
static int drops_report(uint64_t now_us, bool is_last)
{
    uint64_t total = log_dropped_total();
    if (total == the_log.drops_reported || !log_sink_has_room(&the_log.ops, LOG_LINE_MAX)) return -1;
    uint64_t due_us = the_log.drops_reported_at_us + DROPS_EVERY_US;
    if (the_log.drops_reported_at_us && now_us < due_us && !is_last)
        return (int)((due_us - now_us) / 1000 + 1);

    own_event(LOG_WARN, "log_dropped",
              (const struct kv[]){KV_UINT("lines", total - the_log.drops_reported), {.kind = KV_END}});
    the_log.drops_reported = total;
    the_log.drops_reported_at_us = now_us;
    return -1;
}

/* Reports that writes to `s` fail: in the operations log, or on stderr when that is `s` and a file. */
static void failure_report(struct log_sink *s, uint64_t now_us)
{
    uint64_t errors = atomic_load_explicit(&s->write_errors, memory_order_relaxed);
    bool is_new = errors != s->errors_told;
    s->errors_told = errors;
    if (!is_new || (s->told_at_us && now_us < s->told_at_us + FAILURES_EVERY_US)) return;
    s->told_at_us = now_us;

    char line[LOG_LINE_MAX];
    const char *path = s->path ? s->path : "-"; /* stdout or stderr */
    size_t n = log_line_format(
        line, clock_wall_ms(), LOG_ERROR, "log", "log_write_failed",
        (const struct kv[]){KV_STR("path", path), KV_STR("text", strerror(s->sys)), {.kind = KV_END}});
    if (s != &the_log.ops)
        (void)log_sink_put(&the_log.ops, line, n); /* counted there when it does not fit */
    else if (s->path)
        (void)log_fd_write(STDERR_FILENO, line, n); /* nowhere else to say it */
}

/* Waits until a thread wakes us, a sink with pending lines takes more, or `timeout_ms` is over. */
static void work_wait(int timeout_ms)
{
    struct pollfd fds[3] = {{.fd = the_log.wake_fd, .events = POLLIN}};
    nfds_t n = 1;
    if (the_log.ops.start < the_log.ops.end)
        fds[n++] = (struct pollfd){.fd = the_log.ops.fd, .events = POLLOUT};
    if (the_log.access != &the_log.ops && the_log.access->start < the_log.access->end)
        fds[n++] = (struct pollfd){.fd = the_log.access->fd, .events = POLLOUT};

    uint64_t wakeups;
    if (poll(fds, n, timeout_ms) > 0 && fds[0].revents && read(the_log.wake_fd, &wakeups, sizeof wakeups) < 0)
        BUG_IF(errno != EAGAIN && errno != EINTR, "eventfd refused to be read");
}

/* Sleeps without a limit, but only if no thread has put a record or a wish before it saw us asleep. */
static void idle_wait(int timeout_ms)
{
    atomic_store(&the_log.is_sleeping, true);
    if (!has_records()) work_wait(timeout_ms);
    atomic_store(&the_log.is_sleeping, false);
}

static void *log_thread(void *unused)
{
    (void)unused;
    (void)prctl(PR_SET_NAME, "log", 0L, 0L, 0L); /* for top -H, gdb */
    for (;;) {
        /* Read before the rings are drained: so what was logged before log_stop() is drained too. */
        uint64_t stop_at_us = atomic_load(&the_log.stop_at_us);
        outputs_switch();
        if (atomic_exchange(&the_log.is_reopening, false)) {
            sink_reopen(&the_log.ops);
            if (the_log.access != &the_log.ops) sink_reopen(the_log.access);
        }
        bool was_busy = rings_drain();
        uint64_t now_us = clock_mono_us();
        int report_ms = drops_report(now_us, stop_at_us != 0);
        failure_report(&the_log.ops, now_us);
        failure_report(the_log.access, now_us); /* no effect when both are the same sink */
        bool is_flushed = sinks_flush();

        if (stop_at_us) {
            if ((!was_busy && is_flushed) || now_us >= stop_at_us) break;
            if (!was_busy) work_wait((int)((stop_at_us - now_us) / 1000 + 1));
        } else if (was_busy) {
            work_wait(BUSY_WAIT_MS);
        } else {
            idle_wait(report_ms);
        }
    }
    event_post(the_log.done_fd);
    return NULL;
}

/* ---- start and stop ---- */

static const char *open_advice(int sys)
{
    if (sys == ENOENT) return "; make its folder first";
    return sys == EACCES ? "; the user of this process may not write there" : "";
}

/* Opens both; `why` names the one that failed. Errors: ERR_IO, ERR_NOMEM. */
static enum err outputs_open(struct log_outputs *o, const char *ops_path, const char *access_path,
                             struct errmsg *why)
{
    const char *path = ops_path;
    enum err e = log_sink_open(&o->ops, path);
    if (!e) {
        path = access_path;
        e = log_sink_open(&o->access, path);
        if (e) log_sink_close(&o->ops);
    }
    if (e) {
        int sys = e == ERR_IO ? errno : ENOMEM;
        errmsg_set(why, 0, 0, "cannot open the log output %s: %s%s", path, strerror(sys), open_advice(sys));
        return e;
    }
    o->has_access = o->access.fd >= 0;
    o->is_shared = log_sink_is_same(&o->ops, &o->access);
    if (o->is_shared) log_sink_close(&o->access);
    return ERR_OK;
}

enum err log_outputs_open(const char *ops_path, const char *access_path, struct log_outputs **out,
                          struct errmsg *why)
{
    struct log_outputs *o = calloc(1, sizeof *o);
    enum err e = o ? outputs_open(o, ops_path, access_path, why) : ERR_NOMEM;
    if (!o) errmsg_set(why, 0, 0, "cannot open the log outputs: %s", err_text(e));
    if (e)
        free(o);
    else
        *out = o;
    return e;
}

void log_outputs_use(struct log_outputs *o)
{
    o->nmarks = atomic_load(&the_log.nwriters);
    for (unsigned i = 0; i < o->nmarks; i++)
        o->marks[i] = ring_head(&the_log.writers[i]->ring);
    log_outputs_discard(atomic_exchange(&the_log.next, o)); /* outputs that a hanging log thread never took */
    event_post(the_log.wake_fd);
}

void log_outputs_discard(struct log_outputs *o)
{
    if (!o) return;
    log_sink_close(&o->access);
    log_sink_close(&o->ops);
    free(o);
}

/* Only from log_start(), when there is no other thread yet. */
static void outputs_take(struct log_outputs *o)
{
    the_log.ops = o->ops;
    the_log.access_own = o->access;
    the_log.access = o->is_shared ? &the_log.ops : &the_log.access_own;
    atomic_store(&the_log.has_access, o->has_access);
}

static void everything_close(void)
{
    atomic_store(&the_log.has_access, false);
    self = NULL;
    unsigned n = atomic_exchange(&the_log.nwriters, 0);
    for (unsigned i = 0; i < n; i++) {
        ring_deinit(&the_log.writers[i]->ring);
        free(the_log.writers[i]);
        the_log.writers[i] = NULL;
    }
    log_outputs_discard(atomic_exchange(&the_log.next, NULL));
    log_sink_close(&the_log.access_own);
    log_sink_close(&the_log.ops);
    if (the_log.wake_fd >= 0) (void)close(the_log.wake_fd); /* nothing was written that could be lost */
    if (the_log.done_fd >= 0) (void)close(the_log.done_fd);
}

/* The log thread blocks all signals, SIGPIPE included: write(2) then says EPIPE, and nothing else happens. */
static int thread_start(void)
{
    sigset_t all, before;
    sigfillset(&all);
    int sys = pthread_sigmask(SIG_SETMASK, &all, &before);
    if (sys) return sys;
    sys = pthread_create(&the_log.thread, NULL, log_thread, NULL);
    if (pthread_sigmask(SIG_SETMASK, &before, NULL)) BUG_IF(true, "cannot restore the signal mask");
    return sys;
}

enum err log_start(const struct log_options *o, struct errmsg *why)
{
    BUG_IF(the_log.is_started, "log_start() twice");
    struct log_outputs outputs = {0};
    enum err e = outputs_open(&outputs, o->ops_path, o->access_path, why);
    if (e) return e;
    outputs_take(&outputs);
    log_set_level(o->level);
    the_log.ring_bytes = o->ring_bytes < RING_BYTES_MIN ? RING_BYTES_MIN : o->ring_bytes;
    the_log.drops_reported = the_log.drops_reported_at_us = 0;
    atomic_store(&the_log.stop_at_us, 0);
    atomic_store(&the_log.is_reopening, false);
    the_log.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    the_log.done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    int sys = the_log.wake_fd < 0 || the_log.done_fd < 0 ? errno : 0;
    if (!sys && log_thread_attach("control")) sys = ENOMEM;
    if (!sys) sys = thread_start();
    if (sys) {
        errmsg_set(why, 0, 0, "cannot start the log thread: %s%s", strerror(sys),
                   sys == EAGAIN ? "; raise TasksMax or the limit of processes" : "");
        everything_close();
        return sys == ENOMEM ? ERR_NOMEM : ERR_IO;
    }
    the_log.is_started = true;
    return ERR_OK;
}

void log_reopen(void)
{
    if (!the_log.is_started) return;
    atomic_store(&the_log.is_reopening, true);
    event_post(the_log.wake_fd);
}

void log_stop(unsigned wait_ms)
{
    if (!the_log.is_started) return;
    atomic_store(&the_log.stop_at_us, clock_mono_us() + (uint64_t)wait_ms * 1000 + 1);
    event_post(the_log.wake_fd);

    struct pollfd done = {.fd = the_log.done_fd, .events = POLLIN};
    uint64_t give_up_us = clock_mono_us() + ((uint64_t)wait_ms + STOP_GRACE_MS) * 1000;
    for (uint64_t now = clock_mono_us(); !done.revents && now < give_up_us; now = clock_mono_us())
        if (poll(&done, 1, (int)((give_up_us - now) / 1000 + 1)) < 0)
            BUG_IF(errno != EINTR, "cannot wait for the log thread");
    if (!done.revents) {
        /* It hangs in a write (a dead disk). What it may still touch is not freed: the process is ending. */
        self = NULL;
        return;
    }
    pthread_join(the_log.thread, NULL);
    everything_close();
    the_log.is_started = false;
}
