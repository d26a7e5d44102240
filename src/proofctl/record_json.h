/* record_json.h - a partner record as a JSON tree: to be changed, and to be shown.
 *
 * The tree is only for editing. Whether a record is good is decided by record_parse() on its text, and by
 * nothing else. What is shown or kept in the audit has no token digest in it.
 *
 * Thread: [any, pure].
 */
#ifndef PROOFCTL_RECORD_JSON_H
#define PROOFCTL_RECORD_JSON_H

#include "store/record.h"

#include <jansson.h>

/* "production_cidrs", "sandbox_cidrs". */
const char *record_json_list_key(enum environment env);

/* "client_token_sha256", "previous_token_sha256". */
const char *record_json_token_key(enum token_slot slot);

/* The tree of one line. NULL when it is no JSON object, or memory is out. Owns: the caller (json_decref). */
json_t *record_json_load(struct span line);

/* Sets a key to a string, or deletes it (`value` NULL). False: it is not valid UTF-8, or memory is out. */
bool record_json_set(json_t *record, const char *key, const char *value);

/* The text of a record on one line. Owns: the caller frees. NULL when memory is out. */
char *record_json_text(const json_t *record);

/* What may be shown of a record: every field, with defaults filled in, and for the tokens fingerprint and end
 * in place of the digests. `now_ms`: decides whether a previous token is still valid. Owns: the caller. NULL:
 * out of memory. */
json_t *record_json_view(const struct partner_record *record, uint64_t now_ms);

/* The fields in which two views differ, with their values before and after. Either view may be NULL: then the
 * other one is given as a whole, beside JSON null. Owns: the caller. False: out of memory, nothing is owned.
 */
bool record_json_differences(const json_t *before, const json_t *after, json_t **old_values,
                             json_t **new_values);

#endif
