/* helper_folder.h - a folder of its own for a test, with small files in it. */
#ifndef STORE_HELPER_FOLDER_H
#define STORE_HELPER_FOLDER_H

#include <stddef.h>

enum { FOLDER_PATH_MAX = 512 };

/* Makes a new empty folder below $TMPDIR or /tmp. */
void folder_make(char out[static FOLDER_PATH_MAX]);

/* Removes it with everything in it. */
void folder_remove(const char *folder);

/* "<folder>/<name>"; the last four results stay valid. */
const char *folder_path(const char *folder, const char *name);

/* Writes a file in place (it is truncated, then written). */
void folder_write(const char *folder, const char *name, const char *bytes, size_t n);

/* The same for a text that only the owner may read. */
void folder_write_secret(const char *folder, const char *name, const char *text);

#endif
