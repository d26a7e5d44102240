/* cidr_explain.h - what is wrong with a text that is no prefix, in a sentence for people.
 *
 * Private to cidr.c: the slow half of cidr_parse(), which only looks at texts that were refused already.
 *
 * Thread: [any, pure].
 */
#ifndef POLICY_CIDR_EXPLAIN_H
#define POLICY_CIDR_EXPLAIN_H

#include "base/err.h"
#include "base/span.h"

enum { CIDR_SHOWN_MAX = 64 };

/* `text` as it may stand in a message: printable, and cut when it is long. Returns `out`. */
const char *cidr_shown(struct span text, char out[static CIDR_SHOWN_MAX]);

/* `address`: the refused part before the slash. */
void cidr_explain_address(struct span address, struct errmsg *why);

/* `length`: the refused part after the slash. `len_max`: 32 or 128. */
void cidr_explain_length(struct span text, struct span length, unsigned len_max, struct errmsg *why);

#endif
