/* folder.h - files for tests: a folder of its own with small files in it, and the files of the source tree.
 */
#ifndef SUPPORT_FOLDER_H
#define SUPPORT_FOLDER_H

#include <stddef.h>

enum { FOLDER_PATH_MAX = 512 };

/* Makes a new empty folder below $TMPDIR or /tmp. */
void folder_make(char out[static FOLDER_PATH_MAX]);

/* Removes it with everything in it. */
void folder_remove(const char *folder);

/* cmocka set-up and tear-down: `*state` is the path of a folder. */
int folder_setup(void **state);
int folder_teardown(void **state);

/* "<folder>/<name>"; the last four results stay valid. */
const char *folder_path(const char *folder, const char *name);

/* Writes a file in place (it is truncated, then written), making the folders between. */
void folder_write(const char *folder, const char *name, const char *bytes, size_t n);
void folder_write_text(const char *folder, const char *name, const char *text);

/* The same for a text that only the owner may read. */
void folder_write_secret(const char *folder, const char *name, const char *text);

/* The whole file with a NUL behind it, "" when it does not exist. Owns: the caller. */
char *file_text(const char *path);

/* The same for a file of the source tree ("docs/DATA.md"), which must exist. */
char *source_text(const char *name);

#endif
