#include "helper_files.h"

#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { WAIT_STEPS = 10000, WAIT_STEP_NS = 1000000 };

void test_folder_make(char out[static TEST_PATH_MAX])
{
    const char *base = getenv("TMPDIR");
    (void)snprintf(out, TEST_PATH_MAX, "%s/proofgw-test-XXXXXX", base && *base ? base : "/tmp");
    assert_non_null(mkdtemp(out));
}

static int entry_remove(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st, (void)kind, (void)ftw;
    return remove(path);
}

void test_folder_remove(const char *folder)
{
    assert_int_equal(nftw(folder, entry_remove, 8, FTW_DEPTH | FTW_PHYS), 0);
}

void test_file_write(const char *folder, const char *name, const char *text)
{
    char path[2 * TEST_PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    for (char *slash = path + strlen(folder) + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
        *slash = '\0';
        (void)mkdir(path, 0700); /* often there already; the open below tells */
    }
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

char *test_file_read(const char *path)
{
    size_t n = 0, cap = 4096;
    char *text = malloc(cap);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_non_null(text);
    for (ssize_t got; fd >= 0 && (got = read(fd, text + n, cap - n - 1)) > 0;) {
        n += (size_t)got;
        if (cap - n < 2) assert_non_null(text = realloc(text, cap *= 2));
    }
    if (fd >= 0) (void)close(fd);
    text[n] = '\0';
    return text;
}

void test_wait_until(bool (*is_true)(void *), void *arg, const char *what)
{
    for (int i = 0; i < WAIT_STEPS; i++) {
        if (is_true(arg)) return;
        nanosleep(&(struct timespec){.tv_nsec = WAIT_STEP_NS}, NULL);
    }
    fail_msg("gave up waiting: %s", what);
}
