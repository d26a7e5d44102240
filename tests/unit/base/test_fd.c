/* Whole buffers through a pipe, which takes and gives them in pieces. */
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { BYTES = 1 << 20 }; /* many times what a pipe holds */

static char sent[BYTES], received[BYTES + 1];

static void *write_all(void *arg)
{
    int fd = *(int *)arg;
    enum err e = fd_write_all(fd, sent, sizeof sent);
    (void)close(fd);
    return e == ERR_OK ? arg : NULL;
}

static void large_buffers_arrive_whole(void **state)
{
    (void)state;
    int ends[2];
    pthread_t writer;
    void *written;
    for (size_t i = 0; i < sizeof sent; i++)
        sent[i] = (char)(i * 2654435761u >> 24);
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(pthread_create(&writer, NULL, write_all, &ends[1]), 0);
    assert_int_equal(fd_read_all(ends[0], received, 100), 100);
    assert_int_equal(fd_read_all(ends[0], received + 100, sizeof received - 100), BYTES - 100);
    assert_int_equal(pthread_join(writer, &written), 0);
    assert_non_null(written);
    assert_memory_equal(received, sent, sizeof sent);
    assert_int_equal(fd_read_all(ends[0], received, 1), 0);
    assert_int_equal(close(ends[0]), 0);
}

static void failures_leave_errno(void **state)
{
    (void)state;
    int folder = open("/", O_RDONLY | O_DIRECTORY);
    assert_true(folder >= 0);
    errno = 0;
    assert_int_equal(fd_read_all(folder, received, 1), -1);
    assert_int_equal(errno, EISDIR);
    assert_int_equal(fd_write_all(folder, sent, 1), ERR_IO);
    assert_int_equal(errno, EBADF);
    assert_int_equal(close(folder), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(large_buffers_arrive_whole),
        cmocka_unit_test(failures_leave_errno),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
