/* What needs a thread for a moment and gets none: the old data stays, it is said, and tried again. */
#include "helper_sync.h"
#include "helper_watched.h"
#include "net/job.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/no_threads.h"

#include "base/process.c"
#include "net/job.c"
#undef pthread_create

static void a_partner_file_is_read_when_there_is_one_again(void **state)
{
    struct watched *f = *state;
    watched_write(f, "p", 0, 3, 0);
    watched_open(f, folder_path(f->folder, "p"), &watched_by_poll);
    has_no_threads = true;
    watched_write(f, "p", 0, 4, 0);
    WATCHED_UNTIL(f, watched_status(f).load_failures_total >= 1);
    assert_false(watched_status(f).up);
    assert_non_null(strstr(watched_status(f).last_error, "no thread could be made"));
    for (int i = 0; i < 50; i++)
        (void)uv_run(&f->loop, UV_RUN_ONCE);
    assert_int_equal(watched_status(f).load_failures_total, 1); /* said once, however often it is tried */
    assert_int_equal(watched_partners(f), 3);
    has_no_threads = false;
    WATCHED_UNTIL(f, watched_partners(f) == 4);
    assert_true(watched_status(f).up);
}

static void a_snapshot_is_written_when_there_is_one_again(void **state)
{
    struct sync *f = sync_of(state);
    f->config.snapshot = strdup(folder_path(f->folder, "snapshot"));
    partners_set_many(&f->redis, 0, 3);
    has_no_threads = true;
    sync_open(f);
    sync_catch_up(f);
    SYNC_UNTIL(f, sync_status(f).snapshot_failures_total > 0);
    assert_int_equal(sync_status(f).snapshot_at_ms, 0);
    has_no_threads = false;
    SYNC_UNTIL(f, sync_status(f).snapshot_at_ms > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_partner_file_is_read_when_there_is_one_again, watched_setup,
                                        watched_teardown),
        cmocka_unit_test_setup_teardown(a_snapshot_is_written_when_there_is_one_again, sync_setup,
                                        sync_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
