/* log.h - the two log streams: operations (key=value text, stderr by default) and access (JSON, stdout).
 *
 * Each thread that logs owns a ring; one log thread (log_outputs.h) drains all rings and does the writing, so
 * a full disk or a slow pipe stops neither a worker nor the control thread. That thread does not wait for an
 * output either (log_sink.h): a stuck access log leaves the operations log running. Lines that find no room
 * are dropped and counted, and at most once a second the log itself says so: `event=log_dropped lines=N`.
 *
 *   worker 0  -- ring --.
 *   worker 1  -- ring --+--> log thread --> ops fd / access fd   (batched writes, 10 ms while busy,
 *   control   -- ring --'                                         asleep while idle)
 *
 * A thread without a ring (tests, tools, before log_start) writes operations lines straight to stderr.
 * When both outputs are the same file, pipe or terminal they share one queue, so lines stay whole.
 * No token, Authorization, cookie or query string is ever passed in here.
 *
 * Thread: log_start/log_stop/log_reopen, log_outputs_* [control]; the rest [any].
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "base/err.h"
#include "base/span.h"

#include <stdbool.h>
#include <stdint.h>

enum { LOG_THREADS_MAX = 512 }; /* control, every worker, and room */

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

enum kv_kind { KV_END, KV_KIND_STR, KV_KIND_SPAN, KV_KIND_INT, KV_KIND_UINT };

/* One key=value pair. Values are quoted and escaped where needed. */
struct kv {
    const char *key;
    enum kv_kind kind;
    union {
        const char *str; /* NULL is written as - */
        struct span span;
        int64_t i;
        uint64_t u;
    };
};

#define KV_STR(k, v)  ((struct kv){.key = (k), .kind = KV_KIND_STR, .str = (v)})
#define KV_SPAN(k, v) ((struct kv){.key = (k), .kind = KV_KIND_SPAN, .span = (v)})
#define KV_INT(k, v)  ((struct kv){.key = (k), .kind = KV_KIND_INT, .i = (int64_t)(v)})
#define KV_UINT(k, v) ((struct kv){.key = (k), .kind = KV_KIND_UINT, .u = (uint64_t)(v)})
#define KV_ERR(e)     KV_STR("err", err_text(e))

/* Writes `time=... level=info event=NAME key=value ...`. Usage: log_info("store_loaded", KV_UINT("partners",
 * n)). */
#define log_debug(...)     LOG_AT(LOG_DEBUG, __VA_ARGS__)
#define log_info(...)      LOG_AT(LOG_INFO, __VA_ARGS__)
#define log_warn(...)      LOG_AT(LOG_WARN, __VA_ARGS__)
#define log_error(...)     LOG_AT(LOG_ERROR, __VA_ARGS__)
#define LOG_AT(level, ...) LOG_SPLIT_((level), __VA_ARGS__, (struct kv){.kind = KV_END})
#define LOG_SPLIT_(level, event, ...)                                                                        \
    do {                                                                                                     \
        if (log_enabled(level)) log_event((level), (event), (const struct kv[]){__VA_ARGS__});               \
    } while (0)

/* Where log lines go. A path of "-" or "stdout" is descriptor 1, "stderr" descriptor 2, "" or "off" nowhere;
 * anything else is a file, opened for append with mode 0640. */
struct log_options {
    const char *ops_path;
    const char *access_path;
    enum log_level level;
    size_t ring_bytes; /* per thread; at least 32 KiB are used */
};

/* Opens the outputs and starts the log thread. The calling thread gets a ring.
 * Errors: ERR_IO (message filled: which file, why), ERR_NOMEM. */
enum err log_start(const struct log_options *o, struct errmsg *why);

/* Gives the calling thread a ring of its own; at most LOG_THREADS_MAX threads. Errors: ERR_NOMEM, ERR_LIMIT.
 */
enum err log_thread_attach(const char *thread_name);

/* Drains all rings (waits at most `wait_ms`), stops the log thread, frees the rings. No other thread may
 * log after this; the calling thread's lines go straight to stderr again. Returns in time even when the
 * log thread hangs in a write; its memory then stays until the process ends. */
void log_stop(unsigned wait_ms);

/* The same for a process that is left by _exit() while other threads live: they may go on logging, into rings
 * that nobody drains any more. */
void log_leave(unsigned wait_ms);

/* Asks the log thread to open the files again (after rotation, SIGUSR1). */
void log_reopen(void);

/* New outputs for a running log. They are opened before the old ones are closed: if that fails, nothing has
 * changed. */
struct log_outputs;

/* Opens new outputs; paths as in struct log_options. Owns: the caller, until log_outputs_use() or
 * log_outputs_discard(). Errors: ERR_IO, ERR_NOMEM (`why` says which path). */
enum err log_outputs_open(const char *ops_path, const char *access_path, struct log_outputs **out,
                          struct errmsg *why);

/* Hands `o` to the log thread, which switches at its next turn. Lines logged before this call go to the old
 * outputs, except those that the old outputs do not take without waiting. */
void log_outputs_use(struct log_outputs *o);

/* Closes and frees outputs that are not used after all. NULL is allowed. */
void log_outputs_discard(struct log_outputs *o);

/* Sets the lowest level of the operations lines that are written from now on. */
void log_set_level(enum log_level level);

/* The level set last, by log_start() or log_set_level(). */
enum log_level log_get_level(void);

/* Whether a line of this level would be written; the macros ask first. */
bool log_enabled(enum log_level level);

/* "debug", "info", "warn", "error". Never NULL. */
const char *log_level_text(enum log_level level);

/* Parses one of those texts; false for anything else. */
bool log_level_parse(struct span text, enum log_level *out);

/* One operations line, whatever the level; `kv` ends with KV_END. Never waits: a line that finds no room is
 * dropped and counted. Called by the macros. */
void log_event(enum log_level level, const char *event, const struct kv *kv);

/* Room for one access-log line of at most `n_max` bytes (up to a quarter of the ring), to be written in place
 * and published with log_access_commit(); it must end with '\n'. NULL when the access log is off, or when the
 * ring is full (the line is then counted as dropped). */
char *log_access_reserve(size_t n_max);
void log_access_commit(size_t n);

/* Lines dropped since the start, all threads, both streams. */
uint64_t log_dropped_total(void);

/* Failed writes since the start (disk full, broken pipe). */
uint64_t log_write_errors_total(void);

#endif
