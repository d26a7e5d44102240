/* partner_file.h - reads a file of partner records: one JSON record per line, all or nothing.
 *
 * Blank lines are allowed. One bad line, or a partner id or token digest that two lines share, refuses the
 * file as a whole: half of a partner list would lock out the other half. Every fault is collected with its
 * line.
 *
 * A read is compared with the one before it, so that a file that was only touched is not loaded again: first
 * by what stat(2) says, then by the SHA-256 of the contents.
 *
 * The file is read in pieces, and its records are packed: with a million partners neither its text nor a
 * struct for each of them is ever in memory.
 *
 * Limits: PARTNER_FILE_BYTES_MAX, PARTNER_LINE_BYTES_MAX (room for two lists of PARTNER_CIDRS_MAX prefixes);
 * they bound the number of records to about a million.
 *
 * Thread: [any]; blocks on the disk, so it is called from a job (net/job.h), or at start.
 */
#ifndef STORE_PARTNER_FILE_H
#define STORE_PARTNER_FILE_H

#include "store/blocks.h"
#include "store/packed.h"
#include "store/record.h"

#include <stdatomic.h>
#include <sys/types.h>
#include <time.h>

enum { PARTNER_FILE_BYTES_MAX = 256 << 20, PARTNER_LINE_BYTES_MAX = 16 << 20 };

/* What the last read saw. Starts as zeros. */
struct partner_file_seen {
    bool is_valid;   /* the file could be read; the rest is filled */
    bool is_settled; /* its times were old enough then to show every later change */
    dev_t dev;
    ino_t ino;
    off_t bytes;
    struct timespec modified, changed; /* mtime, ctime */
    uint8_t digest[32];                /* SHA-256 of the contents */
};

/* A record: packed, and behind that its id once more, with a NUL. */
struct partner_file_entry {
    const char *packed; /* in `records` */
    unsigned line;
    bool is_rejected; /* only while the file is read */
};

enum partner_file_outcome {
    PARTNER_FILE_LOADED = 0, /* entries filled */
    PARTNER_FILE_UNCHANGED,  /* same contents as `last`; nothing but `seen` filled */
    PARTNER_FILE_INVALID,    /* the contents are faulty: report.faults filled, no entries */
    PARTNER_FILE_UNREADABLE, /* no contents: report.faults has one message, no entries, `seen` is not valid */
};

struct partner_file {
    struct partner_file_entry *entries; /* owned, in the order of the file */
    struct blocks records;              /* owned */
    uint32_t nentries, capacity;
    uint64_t records_rejected;
    struct partner_file_seen seen;
    struct record_report report;
};

/* Reads and checks the file. `last`: what the read before saw, or NULL to read in any case. `*cancelled` is
 * looked at between two records; when it becomes true the outcome means nothing. Owns: the caller, until
 * partner_file_deinit(), whatever the outcome. `*out` need not be initialised. */
enum partner_file_outcome partner_file_read(const char *path, const struct partner_file_seen *last,
                                            const atomic_bool *cancelled, struct partner_file *out);

void partner_file_deinit(struct partner_file *f);

/* Looks at a record. Valid until its block is given up. */
struct packed partner_file_look(const struct partner_file_entry *entry);

/* The id of a record, with a NUL. As long as that. */
const char *partner_file_id(const struct partner_file_entry *entry);

#endif
