/* reload.h - takes over a changed configuration file while everything goes on.
 *
 *   SIGHUP, changed file, control socket --> reload_request()
 *
 *   IDLE --> read, parse, check, build aside --names--> RESOLVING --> PUBLISHING --acknowledged--> IDLE
 *              `-- any error: log and report, nothing has changed --------------------------------^
 *
 * One at a time: requests that come meanwhile are answered together by one more reload after it, since the
 * file may have changed since it was read. A backend that is named anew must resolve within
 * RELOAD_RESOLVE_MS: a name that does not exist is a mistake in the file, and nothing goes there before it is
 * known.
 *
 * A worker that has not acknowledged within RELOAD_PUBLISH_MS hangs. The reload has failed then, although the
 * other workers go by it, and so does each that is asked for until the worker goes on; an upgrade may begin.
 * What was published stays as it is: the worker may still use it.
 *
 * New certificates go the same way, with the configuration in force instead of the file
 * (certificate_watch.h). They are not counted as a reload: the number of the generation stays.
 *
 * The file is watched (net/file_watch.h). With reload_on_change, a content that is not the one read last is a
 * request; a file that is faulty is thus reported once, and again when it has changed or is asked for.
 *
 * The result is in the log (config_reloaded with one config_changed per key; config_reload_failed, one line
 * per error), in the metrics, and with whoever asked.
 *
 * Thread: [control].
 */
#ifndef CONTROL_RELOAD_H
#define CONTROL_RELOAD_H

#include "control/certificate_watch.h"
#include "control/rollout.h"
#include "net/file_watch.h"

enum { RELOAD_RESOLVE_MS = 5000, RELOAD_PUBLISH_MS = 5000 };

enum reload_outcome { RELOAD_DONE = 0, RELOAD_FAILED, RELOAD_REFUSED };

struct reload_result {
    enum reload_outcome outcome;
    uint64_t generation; /* the one in force now */
    const char *plan;    /* DONE: as in reload_plan(). Dies with the call */
    const char *reasons; /* else: lines of text. Dies with the call */
};

/* Somebody who wants to know. Embedded in the caller's object. */
struct reload_waiter {
    struct reload_waiter *next;
    void (*on_done)(struct reload_waiter *w, const struct reload_result *result);
};

/* For the metrics. */
struct reload_status {
    bool last_successful;
    uint64_t success_wall_ms;           /* of the last one, the start included */
    uint64_t total[RELOAD_REFUSED + 1]; /* by outcome */
    uint64_t generation;
};

enum reload_state {
    RELOAD_IDLE = 0,
    RELOAD_RESOLVING,  /* built aside; waits for names, at most until `bound` */
    RELOAD_PUBLISHING, /* on its way to the workers, who can refuse nothing; waits for them until `bound` */
    RELOAD_PAUSED,     /* requests wait for reload_resume() */
    RELOAD_CLOSED,     /* requests are refused; what was being published still ends */
};

enum reload_trigger {
    RELOAD_BY_NOBODY = 0,
    RELOAD_BY_START,
    RELOAD_BY_SIGNAL,
    RELOAD_BY_FILE, /* it was changed */
    RELOAD_BY_CONTROL,
    RELOAD_BY_CERTIFICATES, /* files that the configuration names have changed, not the configuration */
};

struct reload {
    struct deployment *deployment;
    struct reload_status status;
    enum reload_state state;
    const char *path;            /* of the file; the first generation's */
    enum reload_trigger trigger; /* of the one that runs */
    enum reload_trigger again;   /* of the one that follows, if any */
    enum reload_trigger missed;  /* of one that failed because workers hang: it follows when they go on */
    uint64_t started_us;
    struct reload_waiter *waiters, *next_waiters; /* of the one that runs, and of the one after it */
    struct rollout rollout;   /* RESOLVING, PUBLISHING, and until each worker has acknowledged */
    struct wheel_entry bound; /* RESOLVING, PUBLISHING */
    char *plan;               /* owned; RESOLVING, PUBLISHING: as in reload_plan() */
    uint8_t digest[32];       /* SHA-256 of the file as it was last read */
    struct file_watch watch;
    struct certificate_watch certificates;
};

/* Puts the first generation in force; the workers exist and have not been started. Errors (logged): those of
 * rollout_prepare() and rollout_listen(), ERR_IO. */
enum err reload_open(struct reload *r, struct deployment *d);

/* Reads the configuration again; by RELOAD_BY_CERTIFICATES only the files that it names. `w`, if any, hears
 * of the result, perhaps before this returns. */
void reload_request(struct reload *r, enum reload_trigger trigger, struct reload_waiter *w);

/* What is in force stays so until reload_resume(): requests wait. False when a reload is going on. */
bool reload_pause(struct reload *r);

/* Does what was asked for meanwhile. Harmless when it was not paused. */
void reload_resume(struct reload *r);

/* What a reload would change now: the members "changes" (config_plan_json()) and "text" (config_plan_text())
 * of a JSON object. Owns: the caller frees `*plan` or, on ERR_PARSE, `*reasons`; the other one is NULL.
 * Errors: ERR_PARSE (the file is faulty, or one of TLS that it names), ERR_IO (it cannot be read; reasons as
 * well), ERR_NOMEM. */
enum err reload_plan(const struct reload *r, char **plan, char **reasons);

/* The process is about to end: what has not been published is given up, later requests are refused, the file
 * is not watched any more. Idempotent. */
void reload_close(struct reload *r);

#endif
