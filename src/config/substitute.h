/* substitute.h - ${NAME} and ${NAME:-default} in the values of a configuration file.
 *
 * It works on one scalar after YAML was parsed, so that an environment variable is always text inside one
 * value: it cannot add keys, lists or comments. "$$" is a dollar.
 *
 * Thread: [control]; reads the environment.
 */
#ifndef CONFIG_SUBSTITUTE_H
#define CONFIG_SUBSTITUTE_H

#include "base/err.h"
#include "base/outbuf.h"

/* Writes `text` with every reference replaced. An unset variable without a default, a variable with control
 * characters and a reference that is not well-formed are errors; `why->column` is then 1 + the offset of the
 * '$' in `text`. `${NAME:-default}` also takes the default when the variable is empty.
 * Errors: ERR_PARSE, ERR_NOT_FOUND (not set), ERR_LIMIT (does not fit into `o`). */
enum err substitute(struct span text, struct outbuf *o, struct errmsg *why);

#endif
