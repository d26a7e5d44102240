/* audit_line.h - one line of the audit: who did what to whom, and when.
 * Thread: [any]. */
#ifndef PROOFCTL_AUDIT_LINE_H
#define PROOFCTL_AUDIT_LINE_H

#include "proofctl/session.h"

/* One JSON object without a line end; the caller frees. `id`: NULL = it is about the store as a whole.
 * `before`, `after`: views of the record (record_json.h), NULL = no record; what differs is written, tokens
 * by fingerprint. NULL when memory is out. */
char *audit_line(const struct session *s, const char *action, const char *id, const json_t *before,
                 const json_t *after);

#endif
