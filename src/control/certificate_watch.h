/* certificate_watch.h - notices that the files behind TLS have changed: certificates, keys, authorities,
 * ticket keys.
 *
 *   folder event, regular look --> digest of all files --another one--> on_changed (a renewal, reload.c)
 *
 *   QUIET --on_changed, failed--> WAITING --patience over, failed--> REFUSED --other files, or good--> QUIET
 *     ^---------------- renewed, or the files are again those in force ----------------'
 *
 * A certificate and its key are two files, and nobody replaces two files at once: what is not good at first
 * is given CERTIFICATE_PATIENCE_MS to become so before it is called bad. Bad files are reported once for each
 * content; what is in force stays. They are judged again each minute: a certificate that is not valid yet, by
 * our clock, will be.
 *
 * Folders are watched (net/file_watch.h), as many as there are. Ticket keys are looked after here as well:
 * own ones change by time, those of a file when the file does.
 *
 * Thread: [control].
 */
#ifndef CONTROL_CERTIFICATE_WATCH_H
#define CONTROL_CERTIFICATE_WATCH_H

#include "control/rollout.h"

enum { CERTIFICATE_PATIENCE_MS = 3000 };

enum certificate_watch_state {
    CERTIFICATE_WATCH_QUIET = 0, /* the files are those in force, as far as is known */
    CERTIFICATE_WATCH_WAITING,   /* they are not good (yet); `patience` runs */
    CERTIFICATE_WATCH_LAST,      /* patience is over: the attempt under way counts */
    CERTIFICATE_WATCH_REFUSED,   /* they are bad; `refused` is their digest */
    CERTIFICATE_WATCH_CLOSED,
};

/* For metrics and status. */
struct certificate_status {
    uint64_t renewals_total, failures_total;
    uint64_t ticket_changes_total, ticket_failures_total;
    char last_error[sizeof((struct errmsg *)0)->text]; /* while files are refused; else empty */
};

struct certificate_folder;

struct certificate_watch {
    struct deployment *deployment;
    void (*on_changed)(struct certificate_watch *w);
    struct certificate_status status;
    enum certificate_watch_state state;
    uint8_t refused[TLS_DIGEST_BYTES];
    struct certificate_folder *folders; /* list */
    struct wheel_entry patience, minute;
    char ticket_error[sizeof((struct errmsg *)0)->text]; /* the last one that was logged */
};

/* Begins to watch with the next certificate_watch_follow(). `on_changed`: build anew, then tell of the
 * result: follow, or failed. It comes again when files change again. */
void certificate_watch_open(struct certificate_watch *w, struct deployment *d,
                            void (*on_changed)(struct certificate_watch *w));

/* A generation has come into force. */
void certificate_watch_follow(struct certificate_watch *w);

/* The new files could not be used. */
void certificate_watch_failed(struct certificate_watch *w, const char *why);

/* Idempotent; harmless when it was never opened. */
void certificate_watch_close(struct certificate_watch *w);

#endif
