/* A password in a file. */
#include "store/secret_file.h"

#include "base/fd.h"
#include "support/folder.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

/* The disk fails when a part has been read. */
static bool is_disk_failing;

static ssize_t read_all(int fd, void *out, size_t cap)
{
    ssize_t n = fd_read_all(fd, out, cap);
    errno = EIO;
    return is_disk_failing ? -1 : n;
}

#define fd_read_all(fd, out, cap) read_all(fd, out, cap)
#include "store/secret_file.c"
#undef fd_read_all

static enum err read_content(const char *folder, const char *content, size_t n, mode_t mode, char *out,
                             struct errmsg *why)
{
    folder_write(folder, "secret", content, n);
    assert_int_equal(chmod(folder_path(folder, "secret"), mode), 0);
    return secret_file_read(folder_path(folder, "secret"), out, why);
}

static void test_one_line(void **state)
{
    char out[SECRET_ROOM];
    struct errmsg why;
    assert_int_equal(read_content(*state, "s3cret\n", 7, 0600, out, &why), ERR_OK);
    assert_string_equal(out, "s3cret");
    assert_int_equal(read_content(*state, "s3cret", 6, 0440, out, &why), ERR_OK);
    assert_string_equal(out, "s3cret");
    assert_int_equal(read_content(*state, " a b ", 5, 0640, out, &why), ERR_OK);
    assert_string_equal(out, " a b ");
}

static void test_length(void **state)
{
    char out[SECRET_ROOM], text[SECRET_BYTES_MAX + 2];
    struct errmsg why;
    memset(text, 'x', sizeof text);
    assert_int_equal(read_content(*state, text, SECRET_BYTES_MAX, 0600, out, &why), ERR_OK);
    assert_int_equal(strlen(out), SECRET_BYTES_MAX);
    assert_int_equal(read_content(*state, text, SECRET_BYTES_MAX + 1, 0600, out, &why), ERR_RANGE);
    text[SECRET_BYTES_MAX] = '\n';
    assert_int_equal(read_content(*state, text, SECRET_BYTES_MAX + 1, 0600, out, &why), ERR_OK);
    assert_int_equal(read_content(*state, text, sizeof text, 0600, out, &why), ERR_RANGE);
}

static void test_what_is_no_password(void **state)
{
    char out[SECRET_ROOM];
    struct errmsg why;
    assert_int_equal(read_content(*state, "", 0, 0600, out, &why), ERR_RANGE);
    assert_int_equal(read_content(*state, "\n", 1, 0600, out, &why), ERR_RANGE);
    assert_int_equal(read_content(*state, "a\nb\n", 4, 0600, out, &why), ERR_RANGE);
    assert_int_equal(read_content(*state, "a\0b", 3, 0600, out, &why), ERR_RANGE);
    assert_null(strstr(why.text, "a\n"));
}

static void test_everybody_may_read_it(void **state)
{
    char out[SECRET_ROOM];
    struct errmsg why;
    assert_int_equal(read_content(*state, "s3cret\n", 7, 0644, out, &why), ERR_REFUSED);
    assert_non_null(strstr(why.text, "chmod"));
    assert_null(strstr(why.text, "s3cret"));
}

static void expect_nothing_left(const char *folder, const char *content, enum err wanted)
{
    static const char zeros[SECRET_ROOM];
    char out[SECRET_ROOM] = "";
    struct errmsg why;
    assert_int_equal(read_content(folder, content, strlen(content), 0600, out, &why), wanted);
    assert_memory_equal(out, zeros, sizeof out);
}

static void test_nothing_is_left_after_an_error(void **state)
{
    expect_nothing_left(*state, "s3cret\nmore\n", ERR_RANGE);
    is_disk_failing = true;
    expect_nothing_left(*state, "s3cret\n", ERR_IO);
    is_disk_failing = false;
}

static void test_no_file(void **state)
{
    char out[SECRET_ROOM];
    struct errmsg why;
    assert_int_equal(secret_file_read(folder_path(*state, "none"), out, &why), ERR_IO);
    assert_non_null(strstr(why.text, "No such file"));
    assert_int_equal(secret_file_read(*state, out, &why), ERR_IO);
}

#define SECRET_TEST(test) cmocka_unit_test_setup_teardown(test, folder_setup, folder_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SECRET_TEST(test_one_line),
        SECRET_TEST(test_length),
        SECRET_TEST(test_what_is_no_password),
        SECRET_TEST(test_everybody_may_read_it),
        SECRET_TEST(test_nothing_is_left_after_an_error),
        SECRET_TEST(test_no_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
