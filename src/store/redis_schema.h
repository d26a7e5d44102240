/* redis_schema.h - how partner data lies in Redis: the keys, the script that writes, the running digest.
 *
 *   gw:{TAG}:p:ID    hash: the fields of one partner, and "v", its version
 *   gw:{TAG}:seq     counter: every write takes the next number
 *   gw:{TAG}:log     stream: one entry per write, id "<number>-1", with the whole record
 *   gw:{TAG}:meta    hash: schema, epoch, count, digest, seq
 *   gw:{TAG}:audit   stream: who changed what; one line of JSON per change, written by the same script
 *   gw:{TAG}:g:ID    string: what the running gateway ID reports of itself (redis_report.c); it expires
 *
 * The braces keep all keys of a tag in one slot of a cluster, so that one script may write them together.
 * Numbers are contiguous, so a reader sees a gap; the digest is the XOR of a hash of every (id, version), so
 * it sees that its set of records is the server's without reading it again.
 *
 * docs/DATA.md describes it for operators.
 *
 * Thread: [any, pure]; a hasher belongs to one thread.
 */
#ifndef STORE_REDIS_SCHEMA_H
#define STORE_REDIS_SCHEMA_H

#include "base/err.h"
#include "base/span.h"

enum {
    REDIS_SCHEMA_VERSION = 1,
    REDIS_KEY_MAX = 160, /* of a tag and a partner id of 64 bytes each, with the NUL */
    REDIS_EPOCH_MAX = 64,
    REDIS_NONCE_MAX = 64,
    REDIS_DIGEST_CHARS = 16,
};

struct redis_keys {
    char seq[REDIS_KEY_MAX], log[REDIS_KEY_MAX], meta[REDIS_KEY_MAX], audit[REDIS_KEY_MAX];
    char prefix[REDIS_KEY_MAX];   /* of partners: "gw:{TAG}:p:" */
    char pattern[REDIS_KEY_MAX];  /* for SCAN MATCH */
    char gateways[REDIS_KEY_MAX]; /* of what gateways report of themselves: "gw:{TAG}:g:" */
};

/* `tag`: 1 to 64 characters out of A-Z a-z 0-9 . _ - */
void redis_keys_init(struct redis_keys *k, const char *tag);

/* The key of a partner, with a NUL. `id` has at most 64 bytes. */
void redis_keys_partner(const struct redis_keys *k, struct span id, char out[static REDIS_KEY_MAX]);

/* The id in the key of a partner; false when the key is none. `id` points into `key`. */
bool redis_keys_id(const struct redis_keys *k, struct span key, struct span *id);

/* Makes the data set, which must not exist. KEYS seq log meta [audit]; ARGV epoch [line of the audit].
 * Errors: "EXISTS ...", "BADARG ...". */
extern const char redis_script_init[];

/* The one way to change a partner: counts, writes the record, the log entry and the digest in one step.
 *
 *   KEYS  partner seq log meta [audit]
 *   ARGV  op ("set" or "del"), id, expected version ("" = any, "0" = must be new), nonce,
 *         then, with "set", field value field value ...
 *         then, with a fifth key, the line of the audit
 *
 * "@" and a nonce behind the expected version: the log must end with that writing; when it is empty, the
 * number in meta stands for the nonce. So a writer can make sure that it knows of all changes, for example
 * because its token must be nobody else's.
 *
 * Replies {version, count, digest}. Errors, after which nothing has changed: "CONFLICT <version>", "NEWER
 * <number of the last change>", "NOTFOUND", "SCHEMA ...", "BADARG ...". Send it with EVALSHA, and EVAL after
 * NOSCRIPT. */
extern const char redis_script_write[];

/* Puts right what meta says of the records, for the case that they were changed past the script. Nothing
 * happens when meta has another "seq" by now. The caller then rewrites a record, so that the log ends with
 * the right digest as well; without any record there is no log.
 *
 * Records that were deleted past the script get a hash with nothing but their version, which `count` and
 * `digest` include, so that they can be deleted by the script.
 *
 *   KEYS  seq log meta audit, then those of the records that were deleted
 *   ARGV  the "seq" that meta has ("" = none), seq, count, digest, nonce, line of the audit, then their
 *         versions
 *
 * Errors, after which nothing has changed: "CONFLICT <seq>", "SCHEMA ...", "BADARG ...". */
extern const char redis_script_mend[];

struct redis_hasher;

/* NULL when memory is out. */
struct redis_hasher *redis_hasher_create(void);
void redis_hasher_destroy(struct redis_hasher *h);

/* What one record adds to the digest: the first 64 bits of SHA-1("<id>:<version>"). No security rests on it:
 * whoever may write records may write the digest as well. */
uint64_t redis_hasher_record(struct redis_hasher *h, struct span id, uint64_t version);

/* 16 lower-case hexadecimal digits and a NUL. */
void redis_digest_format(uint64_t digest, char out[static REDIS_DIGEST_CHARS + 1]);
bool redis_digest_parse(struct span text, uint64_t *out);

#endif
