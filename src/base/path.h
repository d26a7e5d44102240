/* path.h - names of files beside and around a file.
 *
 * Thread: [any]; path_open_folder() and path_sync_folder() block on the disk.
 */
#ifndef BASE_PATH_H
#define BASE_PATH_H

#include "base/err.h"

/* `path` followed by `suffix`. Owns: the caller frees. NULL when memory is out. */
char *path_with(const char *path, const char *suffix);

/* The folder of `path`: what stands before its last slash, "/" or "." where that is nothing. Owns: the caller
 * frees. NULL when memory is out. */
char *path_folder(const char *path);

/* Opens the folder of `path`. Returns a descriptor, -1 with errno. */
int path_open_folder(const char *path);

/* Brings the folder of `path` to the disk, so that a rename in it survives a power failure. Errors: ERR_IO
 * (errno); not every file system can. */
enum err path_sync_folder(const char *path);

#endif
