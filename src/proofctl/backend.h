/* backend.h - where the operator's command reads and changes partner records.
 *
 * One small vtable, because a second source (Redis) comes behind it. A backend knows records as text with an
 * id and a version; what they mean is for the others. A change names the version that it was made from: when
 * the record is another one by then, nothing is changed (ERR_CONFLICT). All changes of one call are made
 * together or not at all, and none without its line in the audit.
 *
 * Example:  backend_file_open(path, &b);
 *           if (!b->ops->get(b, "acme", &r)) ... b->ops->commit(b, &change, 1);
 *
 * Thread: [any]; one backend, one thread. Blocks.
 */
#ifndef PROOFCTL_BACKEND_H
#define PROOFCTL_BACKEND_H

#include "base/span.h"
#include "store/record.h"

struct backend;

/* Opaque; equal when the record is the same. */
struct backend_version {
    uint8_t bytes[32];
};

struct backend_record {
    const char *id;
    struct span json; /* one line, without its end; valid JSON, a valid record */
    struct backend_version version;
};

struct backend_change {
    const char *id;
    const struct backend_version *expected; /* NULL: there must be no such record */
    struct span json;                       /* the new record, one line; p is NULL: remove it */
    struct span audit;                      /* one line */
};

/* Anything but ERR_OK ends the walk and is returned by it. `r` and `line`: until the function returns. */
typedef enum err backend_record_fn(void *arg, const struct backend_record *r);
typedef enum err backend_line_fn(void *arg, struct span line);

/* Each function that fails leaves at least one sentence in b->faults, except for ERR_NOT_FOUND, ERR_NOMEM and
 * what a callback returned. Further errors: ERR_IO, ERR_PARSE (the store has faulty records: nothing is done
 * then). */
struct backend_ops {
    /* Every record in the store's order. */
    enum err (*list)(struct backend *b, backend_record_fn *on_record, void *arg);
    /* One record; `out` is valid until the next call. Errors: ERR_NOT_FOUND. */
    enum err (*get)(struct backend *b, const char *id, struct backend_record *out);
    /* Makes all changes, or none. Errors: ERR_CONFLICT, ERR_EXISTS (a record that must not be there is),
     * ERR_TIMEOUT (another operator is writing), ERR_RANGE (the store as a whole would not be valid). */
    enum err (*commit)(struct backend *b, const struct backend_change *changes, size_t n);
    /* The last `limit` lines of the audit, oldest first. */
    enum err (*audit)(struct backend *b, uint64_t limit, backend_line_fn *on_line, void *arg);
    void (*close)(struct backend *b);
};

struct backend {
    const struct backend_ops *ops;
    const char *place;             /* for people: the file; valid until close */
    struct record_messages faults; /* of the last call; line 0: no place in the store */
    char note[240];                /* after a commit: something that the operator should know; "" = nothing */
};

/* Records in a partner file (backend_file.c). The file need not exist yet: the first commit makes it.
 * Owns: the caller, until ops->close(). On ERR_IO `why` says why. Errors: ERR_NOMEM, ERR_IO. */
enum err backend_file_open(const char *path, struct backend **out, struct errmsg *why);

#endif
