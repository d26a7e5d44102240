/* edit.h - one change of one record, from reading it to having it in force: the only way in which any command
 * changes anything.
 *
 *   edit_load() or edit_new() -> change e.record -> edit_check() -> edit_commit()
 *                                                   |               `- audit, version, question before a cut
 *                                                   `- the one validator, on the text that will be stored
 *
 * What an edit comes to is its plan. An import keeps no more than the plans of its records: a million edits
 * would take gigabytes.
 *
 * Thread: [any]; one session, one thread.
 */
#ifndef PROOFCTL_EDIT_H
#define PROOFCTL_EDIT_H

#include "proofctl/cut.h"
#include "proofctl/session.h"

struct edit_plan {
    char id[PARTNER_ID_MAX + 1];
    bool exists;             /* there is a record in the store: `version` is filled */
    bool is_unreadable;      /* but it is not valid */
    bool removes;            /* set by the command: the record is to go */
    bool has_foreign_tokens; /* set by the command: they were not issued here; edit_prepare() takes it back
                              * when the record has them already */
    bool is_changed;         /* filled by edit_prepare(), as all that follows */
    struct backend_version version; /* of the record that is there */
    struct cut cut;
    char
        *text; /* owned; the new record as it will be stored, since edit_check(); NULL when nothing changes */
    char *audit; /* owned; one line; NULL when nothing changes */
};

struct edit {
    struct edit_plan plan;
    struct partner_record was;     /* owned; the record that is there, when it is valid */
    struct partner_record becomes; /* owned; filled by edit_check() */
    json_t *record;                /* owned; the new record, for the command to change */
    json_t *before, *after; /* owned; what may be shown of it; NULL = no record; filled by edit_prepare().
                             * `after` is kept only when it differs from a `before` */
};

/* Reads the record `id`. Owns: the caller, until edit_deinit(), whatever is returned. Says so when there is
 * none. */
enum ctl_exit edit_load(struct session *s, const char *id, struct edit *e);

/* Starts a record that is not there yet. */
enum ctl_exit edit_new(struct session *s, struct edit *e);

/* Validates e->record (or, when it is set already, e->plan.text) and says everything that is wrong with it.
 * Once is enough: the second call does nothing. */
enum ctl_exit edit_check(struct session *s, struct edit *e);

/* Completes the plan of a checked edit. */
enum ctl_exit edit_prepare(struct session *s, const char *action, struct edit *e);

/* Puts what was prepared in force together, after a question when live access would be cut. Plans that change
 * nothing are left out. */
enum ctl_exit edit_commit_plans(struct session *s, const struct edit_plan *plans, size_t n);

/* Says whether a token in them belongs to another partner, which only putting them in force would show else.
 */
enum ctl_exit edit_try_plans(struct session *s, const struct edit_plan *plans, size_t n);

/* edit_prepare() and edit_commit_plans() for one checked edit. */
enum ctl_exit edit_commit(struct session *s, const char *action, struct edit *e);

/* Frees all that it owns; it is empty then. */
void edit_deinit(struct edit *e);
void edit_plan_deinit(struct edit_plan *p);

/* The whole way for a command that changes one record: edit_check() and edit_commit(). On success prints
 * `done` with the id, or that nothing had to be changed; with --json what the record is now. */
enum ctl_exit edit_finish(struct session *s, const char *action, struct edit *e, const char *done);

#endif
