/* helper_log.h - the log with its real thread, in a folder of its own. */
#ifndef TEST_BASE_HELPER_LOG_H
#define TEST_BASE_HELPER_LOG_H

#include "base/log.h"
#include "support/folder.h"

enum { RING_BYTES = 1 << 20, STOP_WAIT_MS = 10000 };

struct log_files {
    char folder[FOLDER_PATH_MAX];
    char ops[FOLDER_PATH_MAX + 16];
    char access[FOLDER_PATH_MAX + 16];
};

/* cmocka set-up and tear-down: `*state` is a struct log_files; the files are not there yet. */
int log_files_setup(void **state);
int log_files_teardown(void **state);

/* Starts the log at level info. */
void start_log(const char *ops, const char *access, size_t ring_bytes);

/* Writes a line to the access log. */
void access_line(const char *text);

unsigned lines_count(const char *text);

/* Asks `is_true` until it says so; fails the test after ten seconds. */
void wait_until(bool (*is_true)(void *), void *arg, const char *what);

/* A condition for it: the file `path` contains `text`. */
struct wanted {
    const char *path, *text;
};
bool file_has(void *wanted);
void wait_for_text(const char *path, const char *text);

#endif
