/* helper_records.h - partner records for tests and benchmarks, by number and always the same.
 *
 * Shaped like real ones: most partners have one to four prefixes, one in a hundred has thirty; some have a
 * previous token, a webhook or no sandbox list. */
#ifndef STORE_HELPER_RECORDS_H
#define STORE_HELPER_RECORDS_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum { RECORD_LINE_MAX = 4096 };

/* Writes the record of partner `number` with a newline and a NUL; returns its length without the NUL.
 * `edition` changes the off_ramp flag and nothing else. */
size_t record_line(unsigned number, unsigned edition, char out[static RECORD_LINE_MAX]);

/* Writes the records 0 to n - 1. */
void records_write(FILE *out, unsigned n, unsigned edition);

#endif
