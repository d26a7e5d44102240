/* tls_file.h - the small files that TLS is made from, read whole into memory: certificates, keys, ticket
 * keys.
 *
 * Thread: [control]; reads files.
 */
#ifndef NET_TLS_FILE_H
#define NET_TLS_FILE_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

enum { TLS_FILE_BYTES_MAX = 1024 * 1024 }; /* the list of all public authorities is a quarter of that */

struct tls_file {
    char *p; /* owned */
    size_t n;
};

/* Reads a regular file. One that holds a secret must not be readable by everybody. Errors: ERR_NOT_FOUND,
 * ERR_IO, ERR_LIMIT (too large), ERR_REFUSED (its mode), ERR_NOMEM; all with `why`. */
enum err tls_file_read(const char *path, bool is_secret, struct tls_file *out, struct errmsg *why);

/* Wipes and frees. */
void tls_file_free(struct tls_file *f);

#endif
