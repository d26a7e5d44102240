/* redis_state.h - the Redis backend's own state, shared by its parts: backend_redis.c (reading),
 * redis_commit.c (writing), redis_history.c, redis_audit.c, redis_check.c and redis_mend.c (comparing,
 * repairing), redis_admin.c (the rest).
 *
 * Thread: [any]; one backend, one thread.
 */
#ifndef PROOFCTL_REDIS_STATE_H
#define PROOFCTL_REDIS_STATE_H

#include "proofctl/backend.h"
#include "proofctl/names.h"
#include "proofctl/redis_find.h"
#include "store/redis_log.h"

enum {
    REDIS_BATCH = 512,      /* commands on their way at once */
    REDIS_NONCE_CHARS = 32, /* hexadecimal */
    REDIS_SHA1_CHARS = 40,
};

/* A record that the log has, and that was deleted past the script. */
struct redis_ghost {
    char id[PARTNER_ID_MAX + 1];
    uint64_t version;
};

/* What redis_check() found of the data set as a whole, for redis_mend(). */
struct redis_totals {
    bool is_known;
    char kept_sequence[24];           /* text of meta's "seq"; "" = none */
    uint64_t sequence, count, digest; /* as they should be, ghosts included */
    struct redis_ghost *ghosts;       /* owned */
    size_t nghosts;
};

struct backend_redis {
    struct backend base;               /* first */
    const struct config_redis *config; /* borrowed */
    struct redis_tls *tls;             /* owned; NULL = none */
    struct redis_link *link;           /* owned */
    struct redis_master_found master;
    struct redis_keys keys;
    char gateway_pattern[REDIS_KEY_MAX];
    char place[REDIS_KEY_MAX + sizeof(struct redis_master_found)];
    bool has_schema;             /* meta was read, and its schema is ours */
    struct bytes scratch;        /* the text of the record that was read last */
    char id[PARTNER_ID_MAX + 1]; /* of that record */
    struct names gateways;       /* keys of the last full listing */
    struct redis_totals totals;
};

static inline struct backend_redis *redis_of(struct backend *b)
{
    return (struct backend_redis *)(void *)b;
}

/* Adds a sentence to the faults and returns `e`. */
enum err redis_fail(struct backend_redis *r, enum err e, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Turns a failure of the link into a sentence of the backend. */
enum err redis_fail_link(struct backend_redis *r, enum err e);

/* ERR_IO, with a sentence. */
enum err redis_fail_malformed(struct backend_redis *r, const char *command);

/* ERR_IO, with the sentence that there is no data set. It may have been lost: `init` is not the first thing
 * to do. */
enum err redis_fail_no_data(struct backend_redis *r);

/* One command of strings, whose failure is put into words. Owns: the caller, `*out`. */
enum err redis_ask(struct backend_redis *r, size_t argc, const char *const *argv, redisReply **out);

/* Clears what the last call left. */
void redis_clear(struct backend_redis *r);

/* The same, and makes sure, once, that there is a data set of our schema. */
enum err redis_begin(struct backend_redis *r);

/* Collects the rest of every key that matches `pattern` behind `prefix`, sorted. */
enum err redis_scan(struct backend_redis *r, const char *pattern, const char *prefix, struct names *out);

/* The ids in the keys of the partners, and what stands in such keys but can be no id. Owns: the caller, also
 * on failure. */
enum err redis_partner_ids(struct backend_redis *r, struct names *ids, struct names *odd);

#define REDIS_ODD_KEY "the key of a partner ends in \"%.80s\", which is no partner_id"

/* HGETALL of partners ids[0..n), n <= REDIS_BATCH, in one round trip. `reply` is NULL when there is none of
 * that id, and dies when the function returns. Anything but ERR_OK ends it. */
typedef enum err redis_hash_fn(void *arg, size_t i, const redisReply *reply);
enum err redis_hashes(struct backend_redis *r, const char *const *ids, size_t n, redis_hash_fn *fn,
                      void *arg);

/* Makes a record of a hash, in r->scratch; out->json.p is NULL when it is not valid, and `report` says why;
 * out->tokens then point into `hash`.
 * Errors: ERR_NOMEM. */
enum err redis_describe(struct backend_redis *r, const char *id, const redisReply *hash,
                        struct backend_record *out, struct record_report *report);

/* Hands out every entry of the log from number `from` on, in order. Numbers are contiguous but for gaps where
 * a repair has put the counter right. */
typedef enum err redis_entry_fn(void *arg, const struct redis_entry *entry);
enum err redis_read_log(struct backend_redis *r, uint64_t from, redis_entry_fn *fn, void *arg);

/* 32 random hexadecimal digits and a NUL. Errors: ERR_IO, with a sentence. */
enum err redis_nonce(struct backend_redis *r, char out[static REDIS_NONCE_CHARS + 1]);

/* The operations that have files of their own; see backend.h. */
enum err redis_commit(struct backend *b, const struct backend_change *changes, size_t n);
enum err redis_check(struct backend *b, backend_finding_fn *on_finding, void *arg);
enum err redis_mend(struct backend *b, struct span audit);
enum err redis_audit(struct backend *b, uint64_t limit, backend_line_fn *on_line, void *arg);
enum err redis_init(struct backend *b, struct span audit);
enum err redis_gateways(struct backend *b, bool is_again, backend_line_fn *on_line, void *arg);

#endif
