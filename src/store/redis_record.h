/* redis_record.h - a partner record as the fields of a Redis hash, and back.
 *
 * The fields have the names of the partner file (docs/PARTNERS-FILE.md) and the same values as text: true and
 * false are written out, a list is one field with single spaces between them, partner_id is in
 * the key and no field. Reading goes through record.h, the one validator, so that a record is good in Redis
 * exactly when it is good in a file.
 *
 * Thread: [any, pure].
 */
#ifndef STORE_REDIS_RECORD_H
#define STORE_REDIS_RECORD_H

#include "store/bytes.h"
#include "store/record.h"

#include <hiredis/hiredis.h>

/* Reads the fields element[from], value, field, value ... of an array reply; a field "v" is left out.
 * `scratch` is memory to be used again by the next call. Owns: the caller, `out`, until record_deinit().
 * Errors: those of record_parse(); ERR_PARSE also when the reply has another shape (reported as well). */
enum err redis_record_read(struct span id, const redisReply *reply, size_t from, struct bytes *scratch,
                           struct partner_record *out, struct record_report *report);

enum { REDIS_FIELDS_MAX = 12 };

/* The fields to write for a record. */
struct redis_fields {
    size_t n;
    const char *names[REDIS_FIELDS_MAX]; /* static */
    struct span values[REDIS_FIELDS_MAX];
    struct bytes text; /* owned: holds the values */
};

/* Fields that have no value are left out. Owns: the caller, until redis_fields_deinit(), also on failure.
 * Errors: ERR_NOMEM. */
enum err redis_fields_make(const struct partner_record *record, struct redis_fields *out);
void redis_fields_deinit(struct redis_fields *f);

#endif
