/* reference.h - texts that come from the command table: help, docs/PROOFCTL.md, the completion for bash.
 *
 * Thread: [any].
 */
#ifndef PROOFCTL_REFERENCE_H
#define PROOFCTL_REFERENCE_H

#include "proofctl/command.h"

#include <stdio.h>

/* The help of proofctl as a whole. */
void reference_help(FILE *out);

/* The commands whose name begins with `words`, such as "partner". */
void reference_help_group(const char *words, FILE *out);

/* The help of one command: usage, options, examples. */
void reference_help_command(const struct command *c, FILE *out);

/* docs/PROOFCTL.md. */
void reference_markdown(FILE *out);

/* A script that bash can source. */
void reference_bash(FILE *out);

#endif
