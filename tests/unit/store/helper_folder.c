#include "helper_folder.h"

#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

void folder_make(char out[static FOLDER_PATH_MAX])
{
    const char *parent = getenv("TMPDIR");
    int n = snprintf(out, FOLDER_PATH_MAX, "%s/proofgw-store-XXXXXX", parent ? parent : "/tmp");
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
    FILE *out = fopen(folder_path(folder, name), "w");
    assert_non_null(out);
    assert_int_equal(fwrite(bytes, 1, n, out), n);
    assert_int_equal(fclose(out), 0);
}

void folder_write_secret(const char *folder, const char *name, const char *text)
{
    folder_write(folder, name, text, strlen(text));
    assert_int_equal(chmod(folder_path(folder, name), 0600), 0);
}
