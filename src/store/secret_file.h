/* secret_file.h - a password in a file of its own.
 *
 * Thread: [control]; reads a small file, so only when a connection is made.
 */
#ifndef STORE_SECRET_FILE_H
#define STORE_SECRET_FILE_H

#include "base/err.h"

enum { SECRET_BYTES_MAX = 512 };

/* Reads the content without the line end behind it, as a string. The caller wipes `out`. A file that
 * everybody may read is refused. Errors: ERR_IO, ERR_RANGE (empty, too long, several lines), ERR_REFUSED (its
 * mode); all with `why`, which never quotes the content. */
enum err secret_file_read(const char *path, char out[static SECRET_BYTES_MAX + 1], struct errmsg *why);

#endif
