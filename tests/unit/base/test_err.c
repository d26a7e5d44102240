/* The closed list of results: texts, errno mapping, messages, and the line that a bug leaves behind. */
#include "base/err.h"

#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void ok_is_zero_and_every_result_has_a_text(void **state)
{
    (void)state;
    assert_int_equal(ERR_OK, 0);
    assert_string_equal(err_text(ERR_OK), "ok");
    assert_string_equal(err_text(ERR_RESET), "connection_reset");
    assert_string_equal(err_text(ERR_UNSUPPORTED), "unsupported");
    assert_string_equal(err_text((enum err)(ERR_TLS + 1)), "unknown");
}

static void errno_maps_the_same_with_either_sign(void **state)
{
    (void)state;
    assert_int_equal(err_from_errno(0), ERR_OK);
    assert_int_equal(err_from_errno(ECONNREFUSED), ERR_REFUSED);
    assert_int_equal(err_from_errno(-ECONNREFUSED), ERR_REFUSED);
    assert_int_equal(err_from_errno(EPIPE), ERR_RESET);
    assert_int_equal(err_from_errno(EADDRNOTAVAIL), ERR_NO_PORT);
    assert_int_equal(err_from_errno(-ETIMEDOUT), ERR_TIMEOUT);
    assert_int_equal(err_from_errno(-ENOENT), ERR_NOT_FOUND);
}

static void unknown_errno_is_an_io_error(void **state)
{
    (void)state;
    assert_int_equal(err_from_errno(EIO), ERR_IO);
    assert_int_equal(err_from_errno(123456), ERR_IO);
    assert_int_equal(err_from_errno(INT_MIN), ERR_IO);
}

static void message_keeps_place_and_is_cut_silently(void **state)
{
    (void)state;
    struct errmsg m;
    errmsg_set(&m, 3, 7, "key %s", "workers");
    assert_int_equal(m.line, 3);
    assert_int_equal(m.column, 7);
    assert_string_equal(m.text, "key workers");

    char longer[2 * sizeof m.text];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    errmsg_set(&m, 0, 0, "%s", longer);
    assert_int_equal(strlen(m.text), sizeof m.text - 1);
}

/* Runs `BUG_IF(true, text)` in a child and returns what it wrote to standard error. */
static size_t bug_output(const char *text, char *out, size_t cap, int *status)
{
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct rlimit none = {0, 0};
        (void)setrlimit(RLIMIT_CORE, &none);
        (void)signal(SIGABRT, SIG_DFL); /* cmocka's handler is for this process */
        (void)dup2(fds[1], STDERR_FILENO);
        BUG_IF(true, text);
        _exit(0);
    }
    (void)close(fds[1]);
    size_t n = 0;
    for (ssize_t got; (got = read(fds[0], out + n, cap - 1 - n)) > 0;)
        n += (size_t)got;
    out[n] = '\0';
    (void)close(fds[0]);
    assert_int_equal(waitpid(pid, status, 0), pid);
    return n;
}

static void bug_says_where_and_aborts(void **state)
{
    (void)state;
    char out[1024];
    int status;
    size_t n = bug_output("the floor is gone", out, sizeof out, &status);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
    assert_int_equal(strncmp(out, "time=", 5), 0);
    assert_non_null(strstr(out, " level=error event=BUG at="));
    assert_non_null(strstr(out, "test_err.c:"));
    assert_non_null(strstr(out, " text=\"the floor is gone\"\n"));
    assert_int_equal(out[n - 1], '\n');
}

static void condition_that_is_false_does_nothing(void **state)
{
    (void)state;
    BUG_IF(false, "not reached");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ok_is_zero_and_every_result_has_a_text),
        cmocka_unit_test(errno_maps_the_same_with_either_sign),
        cmocka_unit_test(unknown_errno_is_an_io_error),
        cmocka_unit_test(message_keeps_place_and_is_cut_silently),
        cmocka_unit_test(bug_says_where_and_aborts),
        cmocka_unit_test(condition_that_is_false_does_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
