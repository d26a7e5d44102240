/* One output of the log whose disk is full for a while: no line is glued to the rest of another one. */
#include "base/log_sink.h"

#include "support/folder.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

/* As a full disk does it: the write that meets the bound is short, the next ones fail. RLIM_INFINITY: none.
 */
static void file_bound(rlim_t bytes)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes == RLIM_INFINITY ? limit.rlim_max : bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void log_line(struct log_sink *s, const char *text)
{
    assert_true(log_sink_put(s, text, strlen(text)));
    assert_true(log_sink_flush(s));
}

static void lines_after_a_full_disk_stand_alone(void **state)
{
    const char *path = folder_path(*state, "access.log");
    struct log_sink s;
    assert_int_equal(log_sink_open(&s, path), ERR_OK);
    log_line(&s, "first\n");
    file_bound(8);
    log_line(&s, "second\n");
    log_line(&s, "third\n");
    log_line(&s, "fourth\n");
    file_bound(RLIM_INFINITY);
    assert_int_equal(s.dropped, 3);
    assert_int_equal(s.write_errors, 3);
    log_line(&s, "fifth\n");
    log_line(&s, "sixth\n");
    log_sink_close(&s);

    char *text = file_text(path);
    assert_string_equal(text, "first\nse\nfifth\nsixth\n");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(lines_after_a_full_disk_stand_alone, folder_setup, folder_teardown),
    };
    (void)signal(SIGXFSZ, SIG_IGN); /* write(2) then says EFBIG */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
