/* Outputs of the log that do not take its lines: pipes that nobody reads, a full disk. Nobody waits for them,
 * and what is lost is counted. */
#include "helper_log.h"
#include "support/skip.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* Standard output becomes a pipe, as it is in a container; cmocka prints only between tests. */
struct captured {
    int saved, read_end;
};

static struct captured stdout_capture(void)
{
    struct captured c;
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    (void)fflush(stdout);
    c.saved = dup(STDOUT_FILENO);
    c.read_end = fds[0];
    assert_true(c.saved >= 0 && dup2(fds[1], STDOUT_FILENO) >= 0);
    (void)close(fds[1]);
    return c;
}

static void stdout_release(struct captured *c)
{
    assert_true(dup2(c->saved, STDOUT_FILENO) >= 0);
    (void)close(c->saved);
    if (c->read_end >= 0) (void)close(c->read_end);
}

enum { TOO_MANY_LINES = 20000 }; /* about 2 MB: more than pipe, queue and the smallest ring together */

static bool has_dropped(void *unused)
{
    (void)unused;
    return log_dropped_total() > 0;
}

static void blocked_pipe_stops_nobody_and_is_counted(void **state)
{
    (void)state;
    struct captured out = stdout_capture();
    start_log("stdout", "off", 0);
    for (int i = 0; i < TOO_MANY_LINES; i++)
        log_info("flood", KV_INT("i", i)); /* returns: nothing waits */
    wait_until(has_dropped, NULL, "drops");
    log_stop(0); /* returns although the pipe is full */
    stdout_release(&out);
}

static void *pipe_read_all(void *arg)
{
    int fd = *(int *)arg;
    size_t n = 0, cap = 8 << 20;
    char *text = malloc(cap);
    assert_non_null(text);
    for (ssize_t got; (got = read(fd, text + n, cap - n - 1)) > 0;)
        n += (size_t)got;
    text[n] = '\0';
    return text;
}

static void drops_are_said_when_the_pipe_moves_again(void **state)
{
    (void)state;
    struct captured out = stdout_capture();
    start_log("stdout", "off", 0);
    for (int i = 0; i < TOO_MANY_LINES; i++)
        log_info("flood", KV_INT("i", i));
    wait_until(has_dropped, NULL, "drops");

    pthread_t reader;
    void *result;
    assert_int_equal(pthread_create(&reader, NULL, pipe_read_all, &out.read_end), 0);
    log_stop(STOP_WAIT_MS);
    assert_true(dup2(out.saved, STDOUT_FILENO) >= 0); /* the last write end: the reader comes to the end */
    assert_int_equal(pthread_join(reader, &result), 0);
    char *text = result;
    unsigned flood = 0;
    for (char *at = text; (at = strstr(at, "event=flood ")); at++)
        flood++;
    assert_in_range(flood, 100, TOO_MANY_LINES - 1);
    assert_non_null(strstr(text, " level=warn thread=log event=log_dropped lines="));
    free(text);
    stdout_release(&out);
}

/* The ring is still full of access lines for a moment, so the first try may be one of the drops. */
static bool operations_line_arrives(void *path)
{
    log_info("alive");
    return file_has(&(struct wanted){path, "event=alive\n"});
}

static void stuck_access_log_leaves_operations_running(void **state)
{
    struct log_files *f = *state;
    struct captured out = stdout_capture();
    start_log(f->ops, "stdout", RING_BYTES);
    for (int i = 0; i < TOO_MANY_LINES; i++) {
        char *room = log_access_reserve(100);
        if (!room) continue;
        memset(room, 'a', 99);
        room[99] = '\n';
        log_access_commit(100);
    }
    wait_until(has_dropped, NULL, "drops");
    wait_until(operations_line_arrives, f->ops, "an operations line");
    wait_for_text(f->ops, "event=log_dropped lines=");
    log_stop(0);
    stdout_release(&out);
}

static bool has_write_error(void *unused)
{
    (void)unused;
    return log_write_errors_total() > 0;
}

static void full_disk_is_counted(void **state)
{
    (void)state;
    if (access("/dev/full", W_OK)) SKIP("there is no /dev/full here");
    start_log("/dev/full", "off", RING_BYTES);
    log_info("lost");
    wait_until(has_write_error, NULL, "a write error");
    assert_int_equal(log_dropped_total(), 1);
    log_stop(STOP_WAIT_MS);
}

/* An operations log that cannot be written says so where it still can. */
static void full_disk_is_told_on_stderr(void **state)
{
    struct log_files *f = *state;
    if (access("/dev/full", W_OK)) SKIP("there is no /dev/full here");
    int saved = dup(STDERR_FILENO), fd = open(f->ops, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(saved >= 0 && fd >= 0);
    assert_true(dup2(fd, STDERR_FILENO) >= 0);
    start_log("/dev/full", "off", RING_BYTES);
    log_info("lost");
    wait_for_text(f->ops, "level=error thread=log event=log_write_failed path=/dev/full text=");
    log_info("lost too");
    log_stop(STOP_WAIT_MS);
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    (void)close(saved);
    (void)close(fd);
    char *text = file_text(f->ops);
    assert_null(strstr(strstr(text, "log_write_failed") + 1, "log_write_failed")); /* once */
    free(text);
}

static void full_access_log_is_told_in_the_operations_log(void **state)
{
    struct log_files *f = *state;
    if (access("/dev/full", W_OK)) SKIP("there is no /dev/full here");
    start_log(f->ops, "/dev/full", RING_BYTES);
    char *room = log_access_reserve(2);
    assert_non_null(room);
    memcpy(room, "a\n", 2);
    log_access_commit(2);
    wait_for_text(f->ops, "level=error thread=log event=log_write_failed path=/dev/full text=");
    log_stop(STOP_WAIT_MS);
}

static void broken_pipe_is_counted_and_survived(void **state)
{
    (void)state;
    struct captured out = stdout_capture();
    (void)close(out.read_end);
    out.read_end = -1;
    start_log("stdout", "off", RING_BYTES);
    log_info("lost");
    wait_until(has_write_error, NULL, "a write error");
    log_stop(STOP_WAIT_MS);
    stdout_release(&out);
}

#define LOG_TEST(f) cmocka_unit_test_setup_teardown(f, log_files_setup, log_files_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOG_TEST(blocked_pipe_stops_nobody_and_is_counted),
        LOG_TEST(drops_are_said_when_the_pipe_moves_again),
        LOG_TEST(stuck_access_log_leaves_operations_running),
        LOG_TEST(full_disk_is_counted),
        LOG_TEST(full_disk_is_told_on_stderr),
        LOG_TEST(full_access_log_is_told_in_the_operations_log),
        LOG_TEST(broken_pipe_is_counted_and_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
