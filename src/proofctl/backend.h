/* backend.h - where the operator's command reads and changes partner records.
 *
 * One small vtable, because there are two sources behind it: a partner file and Redis. A backend knows
 * records as text with an id and a version; what they mean is for the others. A change names the version that
 * it was made from: when the record is another one by then, nothing is changed (ERR_CONFLICT). There is no
 * change without its line in the audit. A file takes all changes of one call together or none; Redis takes
 * each as a whole, one after the other, and `ncommitted` says how far it came.
 *
 * Example:  backend_file_open(path, &b);
 *           if (!b->ops->get(b, "acme", &r)) ... b->ops->commit(b, &change, 1);
 *
 * Thread: [any]; one backend, one thread. Blocks.
 */
#ifndef PROOFCTL_BACKEND_H
#define PROOFCTL_BACKEND_H

#include "base/span.h"
#include "config/config.h"
#include "proofctl/progress.h"
#include "store/record.h"

enum { BACKEND_EPOCH_MAX = 64 };

struct backend;

/* Opaque; equal when the record is the same. */
struct backend_version {
    uint8_t bytes[32];
};

struct backend_record {
    const char *id;
    struct span json; /* one line, without its end; valid JSON, a valid record. p is NULL: it is not valid */
    struct span tokens[SLOT_PREVIOUS + 1]; /* when it is not valid: its digests, or anything */
    struct backend_version version;
};

struct backend_change {
    const char *id;
    const struct backend_version *expected; /* NULL: there must be no such record */
    struct span json;                       /* the new record, one line; p is NULL: remove it */
    struct span audit;                      /* one line */
    bool has_foreign_tokens; /* made elsewhere: other records may have them, and are then in the way */
};

/* What mends it. */
enum backend_remedy {
    REMEDY_NONE = 0, /* a person has to */
    REMEDY_MEND,     /* ops->mend */
    REMEDY_REWRITE,  /* writing the record once more as it stands */
    REMEDY_REMOVE, /* ops->mend, then removing the record, which is not there but for its version `version` */
};

/* What is wrong with the data set (ops->check). */
struct backend_finding {
    const char *id;   /* NULL: with the data set as a whole */
    const char *text; /* what, for people */
    enum backend_remedy remedy;
    struct backend_version version;
};

/* Anything but ERR_OK ends the walk and is returned by it. What is pointed to: until the function returns. */
typedef enum err backend_record_fn(void *arg, const struct backend_record *r);
typedef enum err backend_line_fn(void *arg, struct span line);
typedef enum err backend_finding_fn(void *arg, const struct backend_finding *f);
/* `r` is NULL when there is no record ids[i]. */
typedef enum err backend_found_fn(void *arg, size_t i, const struct backend_record *r);

/* Each function that fails leaves at least one sentence in b->faults, except for ERR_NOT_FOUND of one record,
 * ERR_NOMEM and what a callback returned. Further errors: ERR_IO, ERR_PARSE (the store has faulty records);
 * with Redis also ERR_UNREACHABLE (away or not ready: try again later) and ERR_REFUSED (login, rights,
 * certificates). */
struct backend_ops {
    /* Every record, in the order of the file, or of the ids; with Redis those that are not valid without
     * text, and ERR_PARSE at the end. ERR_PARSE of a file: nothing was handed out. ERR_NOT_FOUND: there is no
     * such file. */
    enum err (*list)(struct backend *b, backend_record_fn *on_record, void *arg);
    /* One record; `out` is valid until the next call. Errors: ERR_NOT_FOUND. */
    enum err (*get)(struct backend *b, const char *id, struct backend_record *out);
    /* Several records, in the order of `ids`; those that are not valid are handed out without text. */
    enum err (*get_many)(struct backend *b, const char *const *ids, size_t n, backend_found_fn *on_found,
                         void *arg);
    /* Makes all changes, or none; see above. Errors: ERR_CONFLICT, ERR_EXISTS (a record that must not be
     * there is), ERR_TIMEOUT (another operator is writing), ERR_RANGE (the store as a whole would not be
     * valid: a foreign token belongs to another record, for example). */
    enum err (*commit)(struct backend *b, const struct backend_change *changes, size_t n);
    /* The last `limit` lines of the audit, oldest first. ERR_NOT_FOUND: there is neither file nor audit. */
    enum err (*audit)(struct backend *b, uint64_t limit, backend_line_fn *on_line, void *arg);
    void (*close)(struct backend *b);

    /* Redis only; NULL with a file. */

    /* Makes the data set. Errors: ERR_EXISTS (there is one, or something else stands in its place). */
    enum err (*init)(struct backend *b, struct span audit);
    /* Compares the records with each other, with the log, and with the counts that are kept. */
    enum err (*check)(struct backend *b, backend_finding_fn *on_finding, void *arg);
    /* Puts count and digest right, as the last ops->check found them. Errors: ERR_CONFLICT (a change since).
     */
    enum err (*mend)(struct backend *b, struct span audit);
    /* What each gateway that is alive reports, a JSON object each; and, read after them, the number of the
     * last change, and the epoch of the data set, in b->sequence and b->epoch: a report with a higher number
     * is of another history. `is_again`: only those of the last call. */
    enum err (*gateways)(struct backend *b, bool is_again, backend_line_fn *on_line, void *arg);
};

struct backend {
    const struct backend_ops *ops;
    const char *place;             /* for people: the file or the server; valid until close */
    struct record_messages faults; /* of the last call; line 0: no place in the store */
    char note[240];                /* after a commit: something that the operator should know; "" = nothing */
    size_t ncommitted;             /* of the last commit: changes that are in force, whatever was returned */
    bool is_outcome_unknown;       /* of the last commit, which failed: the last changes may be in force */
    uint64_t sequence;             /* Redis: of the last change that was made or asked for; 0 = none */
    char epoch[BACKEND_EPOCH_MAX + 1]; /* Redis: after ops->gateways */
    struct progress *progress;         /* borrowed; NULL = nobody looks */
};

/* Records in a partner file (backend_file.c). The file need not exist yet: the first commit makes it.
 * Owns: the caller, until ops->close(). On ERR_IO `why` says why. Errors: ERR_NOMEM, ERR_IO. */
enum err backend_file_open(const char *path, struct backend **out, struct errmsg *why);

/* Records in Redis (backend_redis.c), with the settings of the gateway but another login; NULL = the
 * gateway's. Connects at once. `config` is borrowed until ops->close(). Owns: the caller, until then. Errors,
 * with `why`: ERR_UNREACHABLE, ERR_REFUSED, ERR_IO (what answers is no Redis), ERR_NOMEM. */
enum err backend_redis_open(const struct config_redis *config, const char *user, const char *password_file,
                            struct backend **out, struct errmsg *why);

#endif
