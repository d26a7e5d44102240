/* difference.h - two sets of values, as record_json_differences() makes them, on one line for people:
 *
 *   company: "Acme" -> "Acme GmbH"; production_cidrs: -192.0.2.7 +192.0.2.8
 *
 * Thread: [any].
 */
#ifndef PROOFCTL_DIFFERENCE_H
#define PROOFCTL_DIFFERENCE_H

#include <jansson.h>
#include <stdio.h>

/* Prints what became of `before` in `after`, shortened; nothing when either is no object. Tolerates any JSON:
 * the audit is a file that somebody may have edited. */
void difference_print(const json_t *before, const json_t *after, FILE *out);

#endif
