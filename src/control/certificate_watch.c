#include "control/certificate_watch.h"

#include "base/container.h"
#include "base/log.h"
#include "control/certificates.h"
#include "net/file_watch.h"

#include <stdio.h>
#include <stdlib.h>

enum { MINUTE_MS = 60000 };

static const struct file_watch_options watch_options = {
    .quiet_ms = 200, .quiet_max_ms = 500, .poll_ms = 10000};

/* One folder with files of TLS. */
struct certificate_folder {
    struct file_watch watch;
    struct certificate_watch *owner;
    struct certificate_folder *next;
    bool is_wanted; /* scratch of certificate_watch_follow() */
    char file[];    /* one of its files */
};

static void set_state(struct certificate_watch *w, enum certificate_watch_state to)
{
    static const uint8_t moves[] = {
        [CERTIFICATE_WATCH_QUIET] = 1 << CERTIFICATE_WATCH_WAITING | 1 << CERTIFICATE_WATCH_CLOSED,
        [CERTIFICATE_WATCH_WAITING] =
            1 << CERTIFICATE_WATCH_LAST | 1 << CERTIFICATE_WATCH_QUIET | 1 << CERTIFICATE_WATCH_CLOSED,
        [CERTIFICATE_WATCH_LAST] =
            1 << CERTIFICATE_WATCH_REFUSED | 1 << CERTIFICATE_WATCH_QUIET | 1 << CERTIFICATE_WATCH_CLOSED,
        [CERTIFICATE_WATCH_REFUSED] = 1 << CERTIFICATE_WATCH_QUIET | 1 << CERTIFICATE_WATCH_CLOSED,
        [CERTIFICATE_WATCH_CLOSED] = 0,
    };
    if (w->state == to) return;
    BUG_IF(!(moves[w->state] & 1 << to), "the watch of certificates makes a move that does not exist");
    w->state = to;
    if (to != CERTIFICATE_WATCH_WAITING) loop_deadline_clear(w->deployment->loop, &w->patience);
    if (to == CERTIFICATE_WATCH_QUIET) w->status.last_error[0] = '\0';
}

static const struct generation *in_force(const struct certificate_watch *w)
{
    return w->deployment->current;
}

/* --- ticket keys ----------------------------------------------------------------------------------- */

/* A file that stays bad is reported once. */
static void refresh_tickets(struct certificate_watch *w)
{
    struct tls_tickets *t = in_force(w)->tls.tickets;
    struct errmsg why;
    bool changed;
    if (!t) return;
    if (tls_tickets_refresh(t, w->deployment->loop->now_ms, &changed, &why)) {
        if (strcmp(why.text, w->ticket_error) == 0) return;
        w->status.ticket_failures_total++;
        (void)snprintf(w->ticket_error, sizeof w->ticket_error, "%s", why.text); /* of the same size */
        log_error("ticket_keys_refused", KV_STR("cause", why.text));
        return;
    }
    w->ticket_error[0] = '\0';
    if (!changed) return;
    w->status.ticket_changes_total++;
    log_info("ticket_keys_changed", KV_STR("source", tls_tickets_file(t) ? "file" : "time"));
}

/* --- looking --------------------------------------------------------------------------------------- */

static void look(struct certificate_watch *w)
{
    const struct generation *g = in_force(w);
    uint8_t files[TLS_DIGEST_BYTES], present[TLS_DIGEST_BYTES];
    if (certificates_digest_files(g->config, &g->tls, files) || certificates_digest_present(&g->tls, present))
        return; /* no memory: the next look */
    if (memcmp(files, present, sizeof files) == 0) {
        set_state(w, CERTIFICATE_WATCH_QUIET);
        return;
    }
    if (w->state == CERTIFICATE_WATCH_REFUSED) {
        if (memcmp(files, w->refused, sizeof files) == 0) return;
        set_state(w, CERTIFICATE_WATCH_QUIET);
    }
    memcpy(w->refused, files, sizeof files); /* if they are */
    w->on_changed(w);
}

/* Files that were refused may become good by themselves: a certificate that was not valid yet. */
static void look_again(struct certificate_watch *w)
{
    struct errmsg why;
    if (w->state != CERTIFICATE_WATCH_REFUSED) return;
    if (rollout_check(w->deployment, in_force(w)->config, &why)) return; /* that was said */
    set_state(w, CERTIFICATE_WATCH_QUIET);
    look(w);
}

static void on_minute(struct wheel_entry *e)
{
    struct certificate_watch *w = CONTAINER_OF(e, struct certificate_watch, minute);
    refresh_tickets(w);
    look_again(w);
    loop_deadline(w->deployment->loop, &w->minute, MINUTE_MS);
}

static void on_patience(struct wheel_entry *e)
{
    struct certificate_watch *w = CONTAINER_OF(e, struct certificate_watch, patience);
    set_state(w, CERTIFICATE_WATCH_LAST);
    look(w);
}

void certificate_watch_failed(struct certificate_watch *w, const char *why)
{
    if (w->state == CERTIFICATE_WATCH_QUIET) {
        log_info("certificates_wait", KV_STR("cause", why), KV_UINT("at_most_ms", CERTIFICATE_PATIENCE_MS));
        set_state(w, CERTIFICATE_WATCH_WAITING);
        loop_deadline(w->deployment->loop, &w->patience, CERTIFICATE_PATIENCE_MS);
    } else if (w->state == CERTIFICATE_WATCH_LAST) {
        w->status.failures_total++;
        log_error("certificates_refused", KV_STR("cause", why), KV_STR("in_force", "those before"));
        (void)snprintf(w->status.last_error, sizeof w->status.last_error, "%s", why); /* cut is enough */
        set_state(w, CERTIFICATE_WATCH_REFUSED);
    }
}

/* --- folders --------------------------------------------------------------------------------------- */

static void on_look(struct file_watch *watch)
{
    struct certificate_folder *f = CONTAINER_OF(watch, struct certificate_folder, watch);
    loop_turn(f->owner->deployment->loop);
    refresh_tickets(f->owner);
    look(f->owner);
}

static void on_folder_closed(struct file_watch *watch)
{
    free(CONTAINER_OF(watch, struct certificate_folder, watch));
}

static void close_folder(struct certificate_folder *f)
{
    file_watch_close(&f->watch, on_folder_closed);
}

/* The length of what stands before the last slash. */
static size_t folder_length(const char *file)
{
    const char *slash = strrchr(file, '/');
    return slash ? (size_t)(slash - file) : 0;
}

/* A folder that cannot be watched is looked at when another one is, and at each reload. */
static void want_folder(const char *file, void *arg)
{
    struct certificate_watch *w = arg;
    size_t n = folder_length(file), size = strlen(file) + 1;
    for (struct certificate_folder *f = w->folders; f; f = f->next)
        if (folder_length(f->file) == n && memcmp(f->file, file, n) == 0) {
            f->is_wanted = true;
            return;
        }
    struct certificate_folder *f = calloc(1, sizeof *f + size);
    if (!f) return;
    memcpy(f->file, file, size);
    f->owner = w;
    f->is_wanted = true;
    if (file_watch_open(&f->watch, &w->deployment->loop->uv, f->file, &watch_options, on_look)) {
        log_warn("watch_failed", KV_STR("file", file));
        close_folder(f);
        return;
    }
    f->next = w->folders;
    w->folders = f;
}

static void drop_unwanted(struct certificate_watch *w)
{
    for (struct certificate_folder **at = &w->folders, *f; (f = *at) != NULL;) {
        if (f->is_wanted) {
            at = &f->next;
        } else {
            *at = f->next;
            close_folder(f);
        }
    }
}

/* --- life ------------------------------------------------------------------------------------------ */

void certificate_watch_open(struct certificate_watch *w, struct deployment *d,
                            void (*on_changed)(struct certificate_watch *w))
{
    *w = (struct certificate_watch){.deployment = d, .on_changed = on_changed};
    wheel_entry_init(&w->patience, on_patience);
    wheel_entry_init(&w->minute, on_minute);
    loop_deadline(d->loop, &w->minute, MINUTE_MS);
}

void certificate_watch_follow(struct certificate_watch *w)
{
    if (w->state == CERTIFICATE_WATCH_CLOSED) return;
    set_state(w, CERTIFICATE_WATCH_QUIET);
    for (struct certificate_folder *f = w->folders; f; f = f->next)
        f->is_wanted = false;
    certificates_each_file(in_force(w)->config, want_folder, w);
    drop_unwanted(w);
}

void certificate_watch_close(struct certificate_watch *w)
{
    if (!w->deployment || w->state == CERTIFICATE_WATCH_CLOSED) return;
    set_state(w, CERTIFICATE_WATCH_CLOSED);
    loop_deadline_clear(w->deployment->loop, &w->minute);
    for (struct certificate_folder *f = w->folders; f; f = f->next)
        f->is_wanted = false;
    drop_unwanted(w);
}
