#include "base/log_outputs.h"

#include "base/clock.h"
#include "base/log_line.h"
#include "base/log_sink.h"
#include "base/process.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

enum {
    RECORDS_PER_TURN = 4096,      /* of one ring, before the next one has its turn */
    BUSY_WAIT_MS = 10,            /* lets lines gather into one write */
    DROPS_EVERY_US = 1000000,     /* at most one log_dropped line a second */
    FAILURES_EVERY_US = 60000000, /* and one log_write_failed a minute and output */
    STOP_GRACE_MS = 100,          /* for a log thread that hangs in a write after its deadline */
};

/* New outputs on their way to the log thread. */
struct log_outputs {
    struct log_sink ops, access;
    bool is_shared; /* both are the same place: `access` is closed */
    bool has_access;
    unsigned nmarks; /* entries of `marks` */
    /* Head of each ring at log_outputs_use(): the records before it belong to the old outputs. */
    uint64_t marks[LOG_THREADS_MAX];
};

static struct {
    /* set by log_outputs_start(), before there is a thread */
    struct log_rings *rings;
    pthread_t id;
    int wake_fd; /* eventfd: there is work */
    int done_fd; /* eventfd: the thread has ended */

    /* shared */
    atomic_bool is_reopening;
    struct log_outputs *_Atomic next; /* to switch to; owned by whoever exchanges it for NULL */
    _Atomic uint64_t stop_at_us;      /* 0: running; else the deadline for draining (clock_mono_us()) */

    /* log thread */
    struct log_sink ops;
    struct log_sink access_own;
    struct log_sink *access; /* access_own, or &ops when both go to the same place */
    uint64_t drops_reported;
    uint64_t drops_reported_at_us;
} the_thread;

static void event_post(int fd)
{
    uint64_t one = 1;
    while (write(fd, &one, sizeof one) < 0)
        BUG_IF(errno != EINTR, "eventfd refused a wake-up");
}

uint64_t log_outputs_dropped(void)
{
    return atomic_load_explicit(&the_thread.ops.dropped, memory_order_relaxed) +
           atomic_load_explicit(&the_thread.access_own.dropped, memory_order_relaxed);
}

uint64_t log_outputs_write_errors(void)
{
    return atomic_load_explicit(&the_thread.ops.write_errors, memory_order_relaxed) +
           atomic_load_explicit(&the_thread.access_own.write_errors, memory_order_relaxed);
}

void log_outputs_wake(void)
{
    event_post(the_thread.wake_fd);
}

void log_outputs_reopen(void)
{
    atomic_store(&the_thread.is_reopening, true);
    log_outputs_wake();
}

/* --- outputs to come -------------------------------------------------------------------------------- */

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
    o->nmarks = atomic_load(&the_thread.rings->n);
    for (unsigned i = 0; i < o->nmarks; i++)
        o->marks[i] = ring_head(the_thread.rings->list[i]);
    struct log_outputs *never_taken = atomic_exchange(&the_thread.next, o); /* the log thread hangs */
    log_outputs_discard(never_taken);
    log_outputs_wake();
}

void log_outputs_discard(struct log_outputs *o)
{
    if (!o) return;
    log_sink_close(&o->access);
    log_sink_close(&o->ops);
    free(o);
}

/* --- the thread ------------------------------------------------------------------------------------ */

static void own_event(enum log_level level, const char *event, const struct kv *kv)
{
    char line[LOG_LINE_MAX];
    size_t n = log_line_format(line, clock_wall_ms(), level, "log", event, kv);
    (void)log_sink_put(&the_thread.ops, line, n); /* counted there when it does not fit */
}

static bool has_records(void)
{
    uint32_t kind;
    size_t n;
    unsigned nrings = atomic_load(&the_thread.rings->n);
    for (unsigned i = 0; i < nrings; i++)
        if (ring_peek(the_thread.rings->list[i], &kind, &n)) return true;
    return false;
}

/* Moves a record from the ring to its sink. False: the ring is empty. */
static bool record_move(struct ring *ring)
{
    uint32_t kind;
    size_t n;
    const char *line = ring_peek(ring, &kind, &n);
    if (!line) return false;
    struct log_sink *sink = kind == LOG_RECORD_ACCESS ? the_thread.access : &the_thread.ops;
    (void)log_sink_put(sink, line, n); /* counted there when it does not fit */
    ring_release(ring);
    return true;
}

/* Moves records from the rings to the sinks. True when there were any. */
static bool rings_drain(void)
{
    bool any = false;
    unsigned nrings = atomic_load(&the_thread.rings->n);
    for (unsigned i = 0; i < nrings; i++)
        for (int budget = RECORDS_PER_TURN; budget && record_move(the_thread.rings->list[i]); budget--)
            any = true;
    return any;
}

static bool sinks_flush(void)
{
    bool ops_empty = log_sink_flush(&the_thread.ops);
    return log_sink_flush(the_thread.access) && ops_empty;
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
    struct log_outputs *next = atomic_exchange(&the_thread.next, NULL);
    if (!next) return;
    for (unsigned i = 0; i < next->nmarks; i++)
        while (ring_tail(the_thread.rings->list[i]) < next->marks[i] &&
               record_move(the_thread.rings->list[i])) {
        }
    if (the_thread.access == &the_thread.ops)
        the_thread.access = &the_thread.access_own; /* closed, and empty */
    bool is_shared = next->is_shared;
    atomic_store(&the_thread.rings->has_access, next->has_access);
    log_sink_replace(&the_thread.ops, &next->ops);
    log_sink_replace(&the_thread.access_own, &next->access);
    if (is_shared) the_thread.access = &the_thread.ops;
    log_outputs_discard(next);
}

/* Reports dropped lines, at most once a second, or at once when `is_last`. Returns the milliseconds until the
 * next report may come, -1 when there is nothing to report or no room for it. */
static int drops_report(uint64_t now_us, bool is_last)
{
    uint64_t total = log_dropped_total();
    if (total == the_thread.drops_reported || !log_sink_has_room(&the_thread.ops, LOG_LINE_MAX)) return -1;
    uint64_t due_us = the_thread.drops_reported_at_us + DROPS_EVERY_US;
    if (the_thread.drops_reported_at_us && now_us < due_us && !is_last)
        return (int)((due_us - now_us) / 1000 + 1);

    own_event(LOG_WARN, "log_dropped",
              (const struct kv[]){KV_UINT("lines", total - the_thread.drops_reported), {.kind = KV_END}});
    the_thread.drops_reported = total;
    the_thread.drops_reported_at_us = now_us;
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
    if (s != &the_thread.ops)
        (void)log_sink_put(&the_thread.ops, line, n); /* counted there when it does not fit */
    else if (s->path)
        (void)log_fd_write(STDERR_FILENO, line, n); /* nowhere else to say it */
}

/* Waits until a thread wakes us, a sink with pending lines takes more, or `timeout_ms` is over. */
static void work_wait(int timeout_ms)
{
    struct pollfd fds[3] = {{.fd = the_thread.wake_fd, .events = POLLIN}};
    nfds_t n = 1;
    if (the_thread.ops.start < the_thread.ops.end)
        fds[n++] = (struct pollfd){.fd = the_thread.ops.fd, .events = POLLOUT};
    if (the_thread.access != &the_thread.ops && the_thread.access->start < the_thread.access->end)
        fds[n++] = (struct pollfd){.fd = the_thread.access->fd, .events = POLLOUT};

    uint64_t wakeups;
    if (poll(fds, n, timeout_ms) > 0 && fds[0].revents &&
        read(the_thread.wake_fd, &wakeups, sizeof wakeups) < 0)
        BUG_IF(errno != EAGAIN && errno != EINTR, "eventfd refused to be read");
}

/* Sleeps without a limit, but only if no thread has put a record or a wish before it saw us asleep. */
static void idle_wait(int timeout_ms)
{
    atomic_store(&the_thread.rings->is_sleeping, true);
    if (!has_records()) work_wait(timeout_ms);
    atomic_store(&the_thread.rings->is_sleeping, false);
}

static void *log_thread(void *unused)
{
    (void)unused;
    (void)prctl(PR_SET_NAME, "log", 0L, 0L, 0L); /* for top -H, gdb */
    for (;;) {
        /* Read before the rings are drained: so what was logged before log_stop() is drained too. */
        uint64_t stop_at_us = atomic_load(&the_thread.stop_at_us);
        outputs_switch();
        if (atomic_exchange(&the_thread.is_reopening, false)) {
            sink_reopen(&the_thread.ops);
            if (the_thread.access != &the_thread.ops) sink_reopen(the_thread.access);
        }
        bool was_busy = rings_drain();
        uint64_t now_us = clock_mono_us();
        int report_ms = drops_report(now_us, stop_at_us != 0);
        failure_report(&the_thread.ops, now_us);
        failure_report(the_thread.access, now_us); /* no effect when both are the same sink */
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
    event_post(the_thread.done_fd);
    return NULL;
}

/* --- start and stop -------------------------------------------------------------------------------- */

static void everything_close(void)
{
    atomic_store(&the_thread.rings->has_access, false);
    log_outputs_discard(atomic_exchange(&the_thread.next, NULL));
    log_sink_close(&the_thread.access_own);
    log_sink_close(&the_thread.ops);
    if (the_thread.wake_fd >= 0) (void)close(the_thread.wake_fd); /* nothing was written that could be lost */
    if (the_thread.done_fd >= 0) (void)close(the_thread.done_fd);
}

enum err log_outputs_start(struct log_rings *rings, const char *ops_path, const char *access_path,
                           struct errmsg *why)
{
    struct log_outputs *o;
    enum err e = log_outputs_open(ops_path, access_path, &o, why);
    if (e) return e;
    the_thread.rings = rings;
    the_thread.ops = the_thread.access_own = (struct log_sink){.fd = -1};
    the_thread.access = &the_thread.access_own;
    the_thread.drops_reported = the_thread.drops_reported_at_us = 0;
    atomic_store(&the_thread.stop_at_us, 0);
    atomic_store(&the_thread.is_reopening, false);
    atomic_store(&the_thread.next, o);
    outputs_switch(); /* not left to the thread: access lines may come when this returns */
    the_thread.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    the_thread.done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    /* The thread blocks SIGPIPE, too: write(2) then says EPIPE, and nothing else happens. */
    int sys = the_thread.wake_fd < 0 || the_thread.done_fd < 0
                  ? errno
                  : process_start_thread(&the_thread.id, log_thread, NULL);
    if (!sys) return ERR_OK;
    errmsg_set(why, 0, 0, "cannot start the log thread: %s%s", strerror(sys),
               sys == EAGAIN ? "; raise TasksMax or the limit of processes" : "");
    everything_close();
    return sys == ENOMEM ? ERR_NOMEM : ERR_IO;
}

bool log_outputs_stop(unsigned wait_ms)
{
    atomic_store(&the_thread.stop_at_us, clock_mono_us() + (uint64_t)wait_ms * 1000 + 1);
    log_outputs_wake();

    struct pollfd done = {.fd = the_thread.done_fd, .events = POLLIN};
    uint64_t give_up_us = clock_mono_us() + ((uint64_t)wait_ms + STOP_GRACE_MS) * 1000;
    for (uint64_t now = clock_mono_us(); !done.revents && now < give_up_us; now = clock_mono_us())
        if (poll(&done, 1, (int)((give_up_us - now) / 1000 + 1)) < 0)
            BUG_IF(errno != EINTR, "cannot wait for the log thread");
    if (!done.revents) return false; /* a dead disk */
    pthread_join(the_thread.id, NULL);
    everything_close();
    return true;
}
