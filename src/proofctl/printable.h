/* printable.h - text that came from somewhere else, made fit for a terminal.
 * Thread: [any, pure]. */
#ifndef PROOFCTL_PRINTABLE_H
#define PROOFCTL_PRINTABLE_H

#include <stddef.h>
#include <stdio.h>

/* Copies `text`, cut to `cap` - 1 bytes, with '?' for control characters; NULL becomes "-". Returns `out`. */
const char *printable(const char *text, char *out, size_t cap);

/* Prints `text`, which may have several lines, with '?' for other control characters. */
void printable_put(const char *text, FILE *out);

#endif
