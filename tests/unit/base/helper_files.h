/* Files for tests: a folder of its own per test, small files, and waiting for a condition. */
#ifndef TEST_BASE_HELPER_FILES_H
#define TEST_BASE_HELPER_FILES_H

#include <stdbool.h>
#include <stddef.h>

enum { TEST_PATH_MAX = 512 };

/* A new empty folder below $TMPDIR. */
void test_folder_make(char out[static TEST_PATH_MAX]);
/* Removes the folder with everything in it. */
void test_folder_remove(const char *folder);

/* Writes <folder>/<name>, making the folders between. */
void test_file_write(const char *folder, const char *name, const char *text);

/* The whole file with a NUL behind it, "" when it does not exist. Caller frees. */
char *test_file_read(const char *path);

/* Asks `is_true` until it says so; fails the test after ten seconds. */
void test_wait_until(bool (*is_true)(void *), void *arg, const char *what);

#endif
