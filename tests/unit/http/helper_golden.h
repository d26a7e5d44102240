/* helper_golden.h - reads the golden cases of tests/http/<theme>.md. Notation: tests/http/README.md. */
#ifndef HELPER_GOLDEN_H
#define HELPER_GOLDEN_H

#include "helper_trace.h"

enum { GOLDEN_NAME_MAX = 160, GOLDEN_ALIASES_MAX = 4 };

struct golden_case {
    char name[GOLDEN_NAME_MAX]; /* "file: heading" */
    struct trace_options options;
    struct span alias_allowed[GOLDEN_ALIASES_MAX]; /* options.head.alias_allowed points here */
    char *bytes;                                   /* input, escapes resolved; owned */
    size_t nbytes;
    char *trace; /* expected text, NUL-terminated; owned */
};

/* Reads all cases of one file, appending to (*cases)[0..*n). A fault in the file ends the test program with a
 * message. Owns: the caller, until golden_free(). */
void golden_load(const char *path, struct golden_case **cases, size_t *n);
void golden_free(struct golden_case *cases, size_t n);

#endif
