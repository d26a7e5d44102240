/* args.h - a command line, taken apart by the command table.
 *
 *   proofctl [options of every command] WORDS [options] [arguments]
 *
 * Options are --name VALUE, --name=VALUE, -c VALUE; -- ends them.
 *
 * Not getopt_long(3): which options there are, and whether --off-ramp takes a value, depends on the command,
 * and a wrong one deserves a suggestion.
 *
 * Thread: [any, pure].
 */
#ifndef PROOFCTL_ARGS_H
#define PROOFCTL_ARGS_H

#include "base/err.h"
#include "proofctl/command.h"

struct args_option {
    enum option option;
    const char *value; /* NULL for a flag */
};

struct args {
    char words[64];                /* what was found of the command's name; "" = nothing */
    const struct command *command; /* NULL: incomplete or no command */
    struct args_option *options;   /* owned, in their order */
    size_t noptions;
    char **positional; /* owned; the strings are argv's */
    size_t npositional;
};

/* Takes argv apart. Borrows the strings of argv. Owns: the caller, until args_deinit(), whatever is returned.
 * Errors: ERR_PARSE (`why`: one sentence), ERR_NOMEM. */
enum err args_parse(struct args *a, int argc, char **argv, struct errmsg *why);

/* Also after a failure of args_parse(). */
void args_deinit(struct args *a);

/* Whether the option was given. */
bool args_has(const struct args *a, enum option o);

/* The value of an option, or NULL when it was not given. */
const char *args_value(const struct args *a, enum option o);

/* The values of an option one after the other: start with *at = 0; NULL at the end. */
const char *args_next(const struct args *a, enum option o, size_t *at);

#endif
