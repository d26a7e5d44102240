/* file_watch.h - says when a file may have changed.
 *
 *   directory event --quiet--.
 *   every poll_ms ------------+--> on_look
 *
 * The directory is watched, not the file: a watch on the file is lost at the first rename over it (editors,
 * Kubernetes' ..data links). Events only say "look again", so the watch is renewed before each look; what an
 * event cannot show (a directory that was replaced, a network file system) the regular look finds. There is
 * no event for "written and closed": a look waits until the file has not been written for a while. Whether it
 * has really changed is the owner's to find out.
 *
 * Thread: the loop's.
 */
#ifndef NET_FILE_WATCH_H
#define NET_FILE_WATCH_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct file_watch_options {
    uint64_t quiet_ms;     /* a change is looked at when nothing has happened for this long */
    uint64_t quiet_max_ms; /* but no later than this after the first event */
    uint64_t poll_ms;      /* look at the file without an event */
};

struct file_watch {
    uv_loop_t *loop;
    struct file_watch_options options;
    const char *path; /* borrowed */
    char *directory;  /* owned */
    void (*on_look)(struct file_watch *w);
    void (*on_closed)(struct file_watch *w);
    bool is_watching;
    uint64_t first_event_ms; /* loop time; with the quiet timer active */
    uv_timer_t quiet;
    uv_timer_t poll;
    uv_fs_event_t watch;
    uv_handle_t *handles[3]; /* those of the above that are initialised */
    unsigned nhandles;
};

/* Begins to watch; on_look comes in later turns. file_watch_close() is due also when it fails. Errors:
 * ERR_NOMEM, ERR_IO. */
enum err file_watch_open(struct file_watch *w, uv_loop_t *loop, const char *path,
                         const struct file_watch_options *options, void (*on_look)(struct file_watch *w));

/* Ends; on_closed (may be NULL) comes in a later turn, at once when nothing was open. */
void file_watch_close(struct file_watch *w, void (*on_closed)(struct file_watch *w));

#endif
