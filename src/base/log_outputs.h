/* log_outputs.h - the log thread: moves records from the rings to the outputs. For log.c only; what others
 * call of it, log_outputs_open() and so on, is in log.h.
 *
 * Thread: [control], but for the two counters [any] and log_outputs_wake() [any].
 */
#ifndef BASE_LOG_OUTPUTS_H
#define BASE_LOG_OUTPUTS_H

#include "base/log.h"
#include "base/ring.h"

#include <stdatomic.h>

enum log_record_kind { LOG_RECORD_OPS = 0, LOG_RECORD_ACCESS = 1 };

/* Where the threads that log meet the log thread. */
struct log_rings {
    struct ring *list[LOG_THREADS_MAX];
    _Atomic unsigned n;      /* entries of `list` that are complete; a ring stays until log_stop() */
    atomic_bool has_access;  /* the log thread says whether access lines are wanted */
    atomic_bool is_sleeping; /* it waits: whoever commits a record makes this false and wakes it */
};

/* Opens the outputs and starts the log thread; `rings` are borrowed until log_outputs_stop() says true.
 * Errors: ERR_IO, ERR_NOMEM (message filled). */
enum err log_outputs_start(struct log_rings *rings, const char *ops_path, const char *access_path,
                           struct errmsg *why);

/* Has the rings drained for at most `wait_ms`, ends the thread and closes the outputs. False when the thread
 * hangs in a write: it goes on using the rings. */
bool log_outputs_stop(unsigned wait_ms);

/* Has the log thread open its files again. */
void log_outputs_reopen(void);

/* Ends the wait of the log thread, whatever it waits for. */
void log_outputs_wake(void);

/* Since the start: lines that the outputs did not take; failed writes. */
uint64_t log_outputs_dropped(void);
uint64_t log_outputs_write_errors(void);

#endif
