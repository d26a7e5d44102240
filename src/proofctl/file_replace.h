/* file_replace.h - a new version of a file, written beside it and renamed over it: readers see the old one or
 * the new one, and a failure on the way leaves the old one.
 *
 *   file_replace_begin() -> write to r.out -> file_replace_sync() -> file_replace_commit()
 *                                         `-----------------------> file_replace_abort()
 *
 * The new file has the mode, owner, group and access control list of the old one, or none is made: a gateway
 * that could read the old one can read it. Its name while it is written is fixed (FILE.tmp), so that what a
 * killed writer left is cleared by the next one; callers hold the lock.
 *
 * Thread: [any]; blocks on the disk.
 */
#ifndef PROOFCTL_FILE_REPLACE_H
#define PROOFCTL_FILE_REPLACE_H

#include "base/err.h"

#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>

struct file_replace {
    const char *path; /* borrowed */
    char *temporary;  /* owned: its path */
    FILE *out;        /* owned until file_replace_sync() */
};

/* Makes the temporary file. `like`: what fstat(2) said about the old file, or NULL when there is none: then
 * it is readable for the group of its folder. Owns: the caller, until file_replace_commit() or _abort().
 * Errors: ERR_IO (errno; `why` says what failed), ERR_NOMEM. Nothing is left then. */
enum err file_replace_begin(struct file_replace *r, const char *path, const struct stat *like,
                            struct errmsg *why);

/* Brings what was written to the disk and closes r->out. Errors: ERR_IO. */
enum err file_replace_sync(struct file_replace *r, struct errmsg *why);

/* Renames it over the old file. `*is_durable`: false when the disk did not confirm the renaming, so that the
 * old file may be back after a power failure. Errors: ERR_IO, the old file is still there. */
enum err file_replace_commit(struct file_replace *r, bool *is_durable, struct errmsg *why);

/* Removes the temporary file. Does nothing after file_replace_commit(). */
void file_replace_abort(struct file_replace *r);

#endif
