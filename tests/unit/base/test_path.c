/* Names of files beside a file, and its folder in every form that a path can have. */
#include "base/path.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static void folder_is(const char *path, const char *want)
{
    char *folder = path_folder(path);
    assert_non_null(folder);
    assert_string_equal(folder, want);
    free(folder);
}

static void the_folder_stands_before_the_last_slash(void **state)
{
    (void)state;
    folder_is("/etc/proofgw/gateway.yaml", "/etc/proofgw");
    folder_is("conf/gateway.yaml", "conf");
    folder_is("gateway.yaml", ".");
    folder_is("/gateway.yaml", "/");
    folder_is("", ".");
}

static void a_suffix_is_appended(void **state)
{
    (void)state;
    char *name = path_with("/var/lib/partners", ".lock");
    assert_non_null(name);
    assert_string_equal(name, "/var/lib/partners.lock");
    free(name);
}

static void a_folder_can_be_opened_and_synchronised(void **state)
{
    (void)state;
    int fd = path_open_folder("/tmp/file");
    assert_true(fd >= 0);
    assert_int_equal(close(fd), 0);
    assert_int_equal(path_open_folder("/nonexistent/file"), -1);
    assert_int_equal(path_sync_folder("/nonexistent/file"), ERR_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_folder_stands_before_the_last_slash),
        cmocka_unit_test(a_suffix_is_appended),
        cmocka_unit_test(a_folder_can_be_opened_and_synchronised),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
