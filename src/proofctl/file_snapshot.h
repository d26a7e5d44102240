/* file_snapshot.h - a partner file as it stood at one moment: judged by the gateway's own reader, and line by
 * line, so that what is not changed can be written back byte for byte.
 *
 * The reader of the store drops what the data plane does not need; so the contents are read here too, and the
 * reader's digest proves that both saw the same bytes.
 *
 * Thread: [any]; blocks on the disk.
 */
#ifndef PROOFCTL_FILE_SNAPSHOT_H
#define PROOFCTL_FILE_SNAPSHOT_H

#include "store/partner_file.h"

#include <sys/stat.h>

struct file_snapshot {
    bool exists;
    struct stat st;     /* valid when it exists */
    char *contents;     /* owned */
    struct span *lines; /* owned; all lines of the file in order, without LF */
    uint32_t nlines;
    struct partner_file file;                /* its records; file.report holds the warnings */
    const struct partner_file_entry **by_id; /* owned; sorted */
};

/* Reads the file. A file that does not exist is an empty one. Owns: the caller, until file_snapshot_deinit(),
 * whatever is returned; `*out` need not be initialised. Errors: ERR_PARSE (faulty records), ERR_IO; both with
 * sentences in `faults`. ERR_NOMEM. */
enum err file_snapshot_read(const char *path, struct file_snapshot *out, struct record_messages *faults);

/* Also after a failure of file_snapshot_read(). */
void file_snapshot_deinit(struct file_snapshot *s);

/* NULL when there is no such record. */
const struct partner_file_entry *file_snapshot_find(const struct file_snapshot *s, const char *id);

/* The record's text, without a CR at its end. */
struct span file_snapshot_text(const struct file_snapshot *s, const struct partner_file_entry *entry);

/* True while `path` is the file that was read, unchanged. */
bool file_snapshot_is_current(const struct file_snapshot *s, const char *path);

#endif
