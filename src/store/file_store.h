/* file_store.h - partner data from a file that operators edit: loads it, watches it, keeps the policy in
 * step.
 *
 *   directory event --200 ms--.
 *   every 10 s ---------------+--> read and check (own thread) --> apply in slices (loop) --> policy
 *   SIGHUP (reload) ----------'            |
 *                                          `-- any fault: report it, keep what is loaded
 *
 * How it hears of changes: net/file_watch.h. A file that is half-written when it is read is refused by its
 * last line or by its changed times, and read again at the next event.
 *
 * Thread: [control].
 */
#ifndef STORE_FILE_STORE_H
#define STORE_FILE_STORE_H

#include "net/file_watch.h"
#include "store/store.h"

struct file_store_options {
    struct file_watch_options watch;
    uint64_t slice_us; /* longest turn of applying partners */
};

extern const struct file_store_options file_store_defaults;

/* Loads `path` (blocking, so that the policy is ready before a listener opens) and goes on watching it. A
 * first load that fails is no error here. `policy` must outlive the store. Owns: the caller, until
 * (*out)->ops->close(). Errors: ERR_NOMEM, ERR_IO (the loop refused a handle). */
enum err file_store_open(uv_loop_t *loop, const char *path, struct policy *policy,
                         const struct file_store_options *options, struct store **out);

/* store_check() of a file. */
void file_store_check(const char *path, FILE *out);

#endif
