/* Whole buffers through a pipe, which takes and gives them in pieces; and the last descriptors. */
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
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

static struct rlimit usual_limit;

/* As if the limit were `max`. */
static void set_limit(rlim_t max)
{
    const struct rlimit limit = {.rlim_cur = max, .rlim_max = usual_limit.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

static void the_last_descriptors_are_told_by_their_number(void **state)
{
    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &usual_limit), 0);
    set_limit(256);
    assert_false(fd_is_reserved(0));
    assert_false(fd_is_reserved(256 - FDS_RESERVED - 1));
    assert_true(fd_is_reserved(256 - FDS_RESERVED));
    set_limit(512); /* raised: it counts at once */
    assert_false(fd_is_reserved(256));
    assert_true(fd_is_reserved(512 - FDS_RESERVED));
    set_limit(40); /* lowered: it counts from the next look on */
    assert_true(fd_is_to_be_had());
    assert_false(fd_is_reserved(29));
    assert_true(fd_is_reserved(30));
    set_limit(usual_limit.rlim_cur);
}

static void there_are_some_while_one_is_free_below_the_last(void **state)
{
    (void)state;
    int next = dup(STDERR_FILENO);
    assert_true(next > 0);
    (void)close(next);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &usual_limit), 0);
    assert_true(fd_is_to_be_had());
    rlim_t max = (rlim_t)next;
    set_limit(max);
    assert_false(fd_is_to_be_had()); /* none at all */
    set_limit(++max);
    assert_false(fd_is_to_be_had()); /* the last one */
    while (max - max / 4 <= (rlim_t)next)
        max++;
    set_limit(max);
    assert_true(fd_is_to_be_had());
    set_limit(max - 1);
    assert_false(fd_is_to_be_had());
    set_limit(usual_limit.rlim_cur);
    int again = dup(STDERR_FILENO);
    assert_int_equal(again, next); /* it keeps none */
    (void)close(again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(large_buffers_arrive_whole),
        cmocka_unit_test(failures_leave_errno),
        cmocka_unit_test(the_last_descriptors_are_told_by_their_number),
        cmocka_unit_test(there_are_some_while_one_is_free_below_the_last),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
