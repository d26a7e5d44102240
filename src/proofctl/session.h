/* session.h - one run of proofctl: its arguments, the store that it works on, and how it talks to the
 * operator.
 *
 * Results go to stdout, everything else to stderr. With --json both are JSON: a failure is
 * {"error": "failed" | "usage" | "unavailable" | "conflict" | "pending", "messages": [...]}.
 *
 * Thread: [any]; one session, one thread.
 */
#ifndef PROOFCTL_SESSION_H
#define PROOFCTL_SESSION_H

#include "config/config.h"
#include "proofctl/args.h"
#include "proofctl/backend.h"

#include <jansson.h>

#include <signal.h>

enum { SESSION_NAME_MAX = 256 };

struct session {
    const struct args *args; /* borrowed */
    bool is_json;
    char by[4 * SESSION_NAME_MAX];  /* who changes something */
    char os_user[SESSION_NAME_MAX]; /* the user that the process runs as */
    struct config *config;          /* owned; NULL when no configuration was read */
    struct backend *backend;        /* owned; NULL for commands that need no store */
    uint64_t now_ms;                /* wall clock at the start */
    uint64_t wait_ms;               /* --wait; 0 = it was not given */
    uint64_t committed;             /* Redis: number of the last change that was made; 0 = none */
    struct progress progress;       /* of the backend */
    bool has_token;                 /* one was issued that is not printed yet */
    sigset_t mask;                  /* of signals, before session_hold_signals() */
};

/* Opens what the command needs. `args` must outlive the session. Owns: the caller, until session_close(),
 * whatever is returned. */
enum ctl_exit session_open(struct session *s, const struct args *args);
void session_close(struct session *s);

/* The gateway's configuration that is meant: --config, $PROOFCTL_CONFIG, or the default one. */
const char *session_config_path(const struct session *s);

/* Prints one sentence and returns `code`. */
enum ctl_exit session_fail(const struct session *s, enum ctl_exit code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Prints messages with their places in `place` (NULL: without place), and returns CTL_FAILED. */
enum ctl_exit session_fail_messages(const struct session *s, enum ctl_exit code, const char *place,
                                    const struct record_messages *messages);

/* Prints why a call of the backend failed. */
enum ctl_exit session_fail_backend(const struct session *s, enum err e);

/* Says that memory is out, and returns CTL_FAILED. */
enum ctl_exit session_fail_memory(const struct session *s);

/* Something to know that is no failure. */
void session_note(const struct session *s, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Asks before live access is cut: true with --yes, or when the operator says yes on a terminal. Otherwise
 * says why nothing was done. `subject`: whom it is about; `what`: what will happen. */
bool session_confirm(const struct session *s, const char *subject, const char *what);

/* Keeps Ctrl-C and the like waiting until session_release_signals(). */
void session_hold_signals(struct session *s);
void session_release_signals(const struct session *s);

/* Prints a JSON value and drops the reference. `value` NULL: out of memory. */
enum ctl_exit session_print_json(const struct session *s, json_t *value);

#endif
