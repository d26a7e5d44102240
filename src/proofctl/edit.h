/* edit.h - one change of one record, from reading it to having it in force: the only way in which any command
 * changes anything.
 *
 *   edit_load() or edit_new() -> change e.record -> edit_check() -> edit_commit()
 *                                                   |               `- audit, version, question before a cut
 *                                                   `- the one validator, on the text that will be stored
 *
 * Thread: [any]; one session, one thread.
 */
#ifndef PROOFCTL_EDIT_H
#define PROOFCTL_EDIT_H

#include "proofctl/cut.h"
#include "proofctl/session.h"

struct edit {
    char id[PARTNER_ID_MAX + 1];
    bool exists;                    /* there is a record in the store: `was` and `version` are filled */
    bool is_unreadable;             /* but it is not valid, so that `was` is not filled */
    bool removes;                   /* set by the command: the record is to go */
    struct backend_version version; /* of the record that is there */
    struct partner_record was;      /* owned */
    struct partner_record becomes;  /* owned; filled by edit_check() */
    json_t *record;                 /* owned; the new record, for the command to change */
    char *text;                     /* owned; the new record as it will be stored; filled by edit_check() */
    json_t *before, *after; /* owned; what may be shown of it; NULL = no record; filled by edit_commit().
                             * `after` is kept only when it differs from a `before` */
    struct cut cut;         /* filled by edit_commit() */
    char *audit;            /* owned; one line; filled by edit_commit() */
    bool is_changed;        /* filled by edit_commit() */
};

/* Reads the record `id`. Owns: the caller, until edit_deinit(), whatever is returned. Says so when there is
 * none. */
enum ctl_exit edit_load(struct session *s, const char *id, struct edit *e);

/* Starts a record that is not there yet. */
enum ctl_exit edit_new(struct session *s, struct edit *e);

/* Validates e->record (or, when it is set already, e->text) and says everything that is wrong with it. Once
 * is enough: the second call does nothing. */
enum ctl_exit edit_check(struct session *s, struct edit *e);

/* Puts checked edits in force together, after a question when live access would be cut. Edits that change
 * nothing are left out; `*nchanged` says how many did. `is_dry`: does everything but that. */
enum ctl_exit edit_commit(struct session *s, const char *action, struct edit *edits, size_t n, bool is_dry,
                          size_t *nchanged);

/* Frees all that it owns; it is empty then. */
void edit_deinit(struct edit *e);

/* The whole way for a command that changes one record: edit_check() and edit_commit(). On success prints
 * `done` with the id, or that nothing had to be changed; with --json what the record is now. */
enum ctl_exit edit_finish(struct session *s, const char *action, struct edit *e, const char *done);

#endif
