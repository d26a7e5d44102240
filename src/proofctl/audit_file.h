/* audit_file.h - the record of changes: FILE.audit beside the partner file, one JSON object a line, only ever
 * appended to, mode 0600.
 *
 * A line is on the disk before the change that it tells of. When the change then fails, the line is taken
 * back; a machine that loses power between the two keeps the line, never a change without one.
 *
 * Thread: [any]; blocks on the disk. Appending: callers hold the lock of the partner file.
 */
#ifndef PROOFCTL_AUDIT_FILE_H
#define PROOFCTL_AUDIT_FILE_H

#include "base/err.h"
#include "base/span.h"

#include <sys/types.h>

struct audit_file {
    int fd;      /* owned */
    off_t bytes; /* before audit_file_append() */
};

/* Opens it for appending, or makes it with the given owner (as far as that is allowed).
 * Errors: ERR_IO (errno). */
enum err audit_file_open(struct audit_file *a, const char *path, uid_t owner, gid_t group);

/* Appends whole lines, each with its LF, and brings them to the disk. On failure nothing is left of them.
 * Errors: ERR_IO (errno). */
enum err audit_file_append(struct audit_file *a, struct span lines);

/* Takes back what audit_file_append() wrote. Errors: ERR_IO (errno). */
enum err audit_file_take_back(struct audit_file *a);

/* Only closes: what was appended is on the disk already. */
void audit_file_close(struct audit_file *a);

typedef enum err audit_line_fn(void *arg, struct span line);

/* Hands out the last `limit` lines, oldest first. A file that does not exist has none.
 * Errors: ERR_IO (errno), ERR_NOMEM, what `on_line` returned. */
enum err audit_file_tail(const char *path, uint64_t limit, audit_line_fn *on_line, void *arg);

#endif
