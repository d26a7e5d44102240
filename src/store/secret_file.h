/* secret_file.h - a password in a file of its own.
 *
 * Thread: [control]; reads a small file, so only when a connection is made.
 */
#ifndef STORE_SECRET_FILE_H
#define STORE_SECRET_FILE_H

#include "base/err.h"

enum {
    SECRET_BYTES_MAX = 512,
    SECRET_ROOM = SECRET_BYTES_MAX + 2, /* one byte more than is allowed, and a line end */
};

/* Reads the content without the line end behind it, as a string. The caller wipes `out`; after an error
 * nothing of the content is in it. A file that everybody may read is refused. Errors: ERR_IO, ERR_RANGE
 * (empty, too long, several lines), ERR_REFUSED (its mode); all with `why`, which never quotes the content.
 */
enum err secret_file_read(const char *path, char out[static SECRET_ROOM], struct errmsg *why);

#endif
