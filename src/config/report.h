/* report.h - what is wrong with a configuration file, for the person who has to mend it.
 *
 * Findings are collected while the file is read and printed in the order of its lines:
 *
 *   gateway.yaml:7:9: error: limits.head: "64kb" is not a size: write KiB, MiB or GiB
 *       7 |   head: 64kb
 *         |         ^~~~
 *         = expected a size from 1KiB to 256KiB (default 32KiB)
 *
 * Plain text without colours: it is read in terminals, journals and tickets alike. Control characters that
 * came from the file are shown as '?'.
 *
 * Limits: REPORT_MAX findings are kept, the rest is counted.
 * Thread: [any]; a report belongs to one thread.
 */
#ifndef CONFIG_REPORT_H
#define CONFIG_REPORT_H

#include "base/err.h"
#include "base/span.h"

#include <stdarg.h>
#include <stdio.h>

enum { REPORT_MAX = 50 };

struct place {
    unsigned line;   /* 1-based; 0 = the file as a whole */
    unsigned column; /* 1-based, in characters */
    unsigned width;  /* characters to underline; 0 = do not show the line */
};

struct report;

/* `path` and `text` are borrowed until report_destroy(). Errors: NULL when memory is out. */
struct report *report_create(const char *path, struct span text);
void report_destroy(struct report *r);

/* Adds a finding. `subject` is the key it is about ("limits.head"), or "". */
void report_add(struct report *r, struct place at, const char *subject, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void report_addv(struct report *r, struct place at, const char *subject, const char *format, va_list args)
    __attribute__((format(printf, 4, 0)));

/* Says what to write instead, below the finding added last. */
void report_expected(struct report *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Findings added so far. */
unsigned report_count(const struct report *r);

/* True when something was found on this line already: what follows from it need not be said as well. */
bool report_has_line(const struct report *r, unsigned line);

/* Prints everything and a last line with the number of errors. Prints nothing when nothing was found. */
void report_print(struct report *r, FILE *out);

#endif
