#include "net/file_watch.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/path.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { WRITING_MAX_MS = 2000 }; /* how long a look waits for whoever writes the file */

static void on_quiet(uv_timer_t *timer);

static void on_event(uv_fs_event_t *watch, const char *name, int events, int status)
{
    /* Whatever the event is: look again. Which file it names says nothing when links are involved. */
    (void)name, (void)events, (void)status;
    struct file_watch *w = watch->data;
    uint64_t now = uv_now(w->loop);
    if (!uv_is_active((uv_handle_t *)&w->quiet)) w->first_event_ms = now;
    uint64_t latest = w->first_event_ms + w->options.quiet_max_ms;
    uint64_t left = latest > now ? latest - now : 0;
    uint64_t wait = left < w->options.quiet_ms ? left : w->options.quiet_ms;
    (void)uv_timer_start(&w->quiet, on_quiet, wait, 0); /* fails only while closing: then no event comes */
}

/* Points the watch at what the directory's path means now. Done before each look, so that neither a directory
 * that was replaced nor a change between look and watch is missed. */
static void renew(struct file_watch *w)
{
    (void)uv_fs_event_stop(&w->watch); /* harmless when it is not active */
    int rc = uv_fs_event_start(&w->watch, on_event, w->directory, 0);
    if (rc && w->is_watching)
        log_warn("watch_failed", KV_STR("directory", w->directory), KV_STR("reason", uv_strerror(rc)),
                 KV_UINT("look_every_ms", w->options.poll_ms));
    w->is_watching = rc == 0;
}

/* The folder may never be quiet: a log in it is written all the time. The file itself must be, or a look
 * would find it half written; only a file that is written without end is looked at all the same. */
static bool is_being_written(const struct file_watch *w)
{
    struct stat st;
    if (uv_now(w->loop) - w->first_event_ms >= WRITING_MAX_MS || stat(w->path, &st) != 0) return false;
    uint64_t modified_ms = (uint64_t)st.st_mtim.tv_sec * 1000 + (uint64_t)st.st_mtim.tv_nsec / 1000000;
    uint64_t now_ms = clock_wall_ms();
    return now_ms >= modified_ms && now_ms - modified_ms < w->options.quiet_ms;
}

static void on_quiet(uv_timer_t *timer)
{
    struct file_watch *w = timer->data;
    if (is_being_written(w)) {
        (void)uv_timer_start(&w->quiet, on_quiet, w->options.quiet_ms, 0); /* fails only while closing */
        return;
    }
    renew(w);
    w->on_look(w);
}

static bool handle_add(struct file_watch *w, int rc, void *handle)
{
    if (rc) return false;
    w->handles[w->nhandles] = handle;
    w->handles[w->nhandles++]->data = w;
    return true;
}

enum err file_watch_open(struct file_watch *w, uv_loop_t *loop, const char *path,
                         const struct file_watch_options *options, void (*on_look)(struct file_watch *w))
{
    *w = (struct file_watch){.loop = loop, .options = *options, .path = path, .on_look = on_look};
    w->directory = path_folder(path);
    if (!w->directory) return ERR_NOMEM;
    bool ok = handle_add(w, uv_timer_init(loop, &w->quiet), &w->quiet) &&
              handle_add(w, uv_timer_init(loop, &w->poll), &w->poll) &&
              handle_add(w, uv_fs_event_init(loop, &w->watch), &w->watch);
    if (!ok) return ERR_IO;
    w->is_watching = true; /* so that a first watch that fails is logged */
    renew(w);
    return uv_timer_start(&w->poll, on_quiet, options->poll_ms, options->poll_ms) ? ERR_IO : ERR_OK;
}

static void finish_if_closed(struct file_watch *w)
{
    if (w->nhandles > 0) return;
    free(w->directory);
    w->directory = NULL;
    if (w->on_closed) w->on_closed(w);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct file_watch *w = handle->data;
    w->nhandles--;
    finish_if_closed(w);
}

void file_watch_close(struct file_watch *w, void (*on_closed)(struct file_watch *w))
{
    w->on_closed = on_closed;
    for (unsigned i = 0; i < w->nhandles; i++)
        uv_close(w->handles[i], on_handle_closed);
    if (w->nhandles == 0) finish_if_closed(w);
}
