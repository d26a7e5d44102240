#include "support/folder.h"

#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

void folder_make(char out[static FOLDER_PATH_MAX])
{
    const char *parent = getenv("TMPDIR");
    int n = snprintf(out, FOLDER_PATH_MAX, "%s/proofgw-test-XXXXXX", parent && *parent ? parent : "/tmp");
    assert_in_range(n, 1, FOLDER_PATH_MAX - 1);
    assert_non_null(mkdtemp(out));
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    (void)st, (void)kind, (void)where;
    return remove(path);
}

void folder_remove(const char *folder)
{
    assert_int_equal(nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

int folder_setup(void **state)
{
    char *folder = malloc(FOLDER_PATH_MAX);
    assert_non_null(folder);
    folder_make(folder);
    *state = folder;
    return 0;
}

int folder_teardown(void **state)
{
    folder_remove(*state);
    free(*state);
    return 0;
}

const char *folder_path(const char *folder, const char *name)
{
    static char paths[4][FOLDER_PATH_MAX];
    static unsigned next;
    char *out = paths[next++ % 4];
    int n = snprintf(out, FOLDER_PATH_MAX, "%s/%s", folder, name);
    assert_in_range(n, 1, FOLDER_PATH_MAX - 1);
    return out;
}

void folder_write(const char *folder, const char *name, const char *bytes, size_t n)
{
    char path[FOLDER_PATH_MAX];
    (void)snprintf(path, sizeof path, "%s", folder_path(folder, name)); /* fits */
    for (char *slash = path + strlen(folder) + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
        *slash = '\0';
        (void)mkdir(path, 0700); /* often there already; the open below tells */
    }
    FILE *out = fopen(path, "we");
    assert_non_null(out);
    assert_int_equal(fwrite(bytes, 1, n, out), n);
    assert_int_equal(fclose(out), 0);
}

void folder_write_text(const char *folder, const char *name, const char *text)
{
    folder_write(folder, name, text, strlen(text));
}

void folder_write_secret(const char *folder, const char *name, const char *text)
{
    folder_write_text(folder, name, text);
    assert_int_equal(chmod(folder_path(folder, name), 0600), 0);
}

char *file_text(const char *path)
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

char *source_text(const char *name)
{
    char *text = file_text(folder_path(GW_SOURCE_DIR, name));
    if (!text[0]) fail_msg("%s cannot be read", name);
    return text;
}
