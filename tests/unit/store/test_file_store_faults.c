/* Partner files that are bad, missing or cut: the old data stays, and the log says what is wrong. */
#include "base/log.h"
#include "helper_records.h"
#include "helper_watched.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void a_bad_file_keeps_the_old_data_and_says_so(void **state)
{
    struct watched *f = *state;
    watched_write(f, "p", 0, 3, 0);
    watched_open(f, folder_path(f->folder, "p"), &watched_by_event);
    folder_write(f->folder, "p", "\n{\"partner_id\": 7}\n", 19);
    WATCHED_UNTIL(f, watched_status(f).load_failures_total >= 1);
    struct store_status s = watched_status(f);
    assert_false(s.up);
    assert_int_equal(s.records_rejected, 1);
    assert_non_null(strstr(s.last_error, "/p:2:16: partner_id must be"));
    assert_int_equal(watched_partners(f), 3);
    assert_true(policy_is_ready(f->policy));
    watched_write(f, "p", 0, 4, 0);
    WATCHED_UNTIL(f, watched_partners(f) == 4);
    assert_true(watched_status(f).up);
    assert_int_equal(watched_status(f).records_rejected, 0);
}

static void a_bad_file_is_reported_once(void **state)
{
    struct watched *f = *state;
    folder_write(f->folder, "p", "bad\n", 4);
    watched_open(f, folder_path(f->folder, "p"), &watched_by_poll);
    for (int i = 0; i < 50; i++)
        (void)uv_run(&f->loop, UV_RUN_ONCE);
    assert_int_equal(watched_status(f).load_failures_total, 1);
    f->store->ops->reload(f->store);
    WATCHED_UNTIL(f, watched_status(f).load_failures_total >= 2);
}

static void a_duplicate_names_both_lines(void **state)
{
    struct watched *f = *state;
    char line[RECORD_LINE_MAX], twice[2 * RECORD_LINE_MAX];
    (void)record_line(1, 0, line);
    int n = snprintf(twice, sizeof twice, "%s%s", line, line);
    folder_write(f->folder, "p", twice, (size_t)n);
    watched_open(f, folder_path(f->folder, "p"), &watched_by_event);
    assert_non_null(strstr(watched_status(f).last_error,
                           "/p:2: partner_id \"partner-000001\" is used in line 1 already"));
}

static void a_deleted_file_keeps_the_data(void **state)
{
    struct watched *f = *state;
    watched_write(f, "p", 0, 3, 0);
    watched_open(f, folder_path(f->folder, "p"), &watched_by_poll);
    assert_int_equal(unlink(folder_path(f->folder, "p")), 0);
    WATCHED_UNTIL(f, watched_status(f).load_failures_total >= 1);
    for (int i = 0; i < 50; i++)
        (void)uv_run(&f->loop, UV_RUN_ONCE);
    assert_int_equal(watched_status(f).load_failures_total,
                     1); /* said once, however often it is looked for */
    assert_int_equal(watched_partners(f), 3);
    assert_false(watched_status(f).up);
    watched_write(f, "p", 0, 3, 0); /* the very same contents */
    WATCHED_UNTIL(f, watched_status(f).loads_total >= 2);
    assert_true(watched_status(f).up);
}

static void a_truncated_file_does_not_remove_everybody(void **state)
{
    struct watched *f = *state;
    watched_write(f, "p", 0, 3, 0);
    watched_open(f, folder_path(f->folder, "p"), &watched_by_event);
    assert_int_equal(truncate(folder_path(f->folder, "p"), 0), 0);
    WATCHED_UNTIL(f, watched_status(f).load_failures_total >= 1);
    assert_int_equal(watched_partners(f), 3);
    assert_non_null(strstr(watched_status(f).last_error, "would remove every partner"));
}

static void the_log_names_each_fault_and_no_secret(void **state)
{
    static const char digest[] = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8";
    struct watched *f = *state;
    FILE *out = fopen(folder_path(f->folder, "p"), "w");
    assert_non_null(out);
    for (int i = 0; i < 30; i++)
        fprintf(out, "{\"client_token_sha256\": \"%s\", \"previous_token_sha256\": \"x%s\"\n", digest,
                digest);
    assert_int_equal(fclose(out), 0);

    struct errmsg why;
    const char *log_path = folder_path(f->folder, "log");
    const struct log_options options = {.ops_path = log_path, .access_path = "off", .ring_bytes = 1 << 20};
    assert_int_equal(log_start(&options, &why), ERR_OK);
    watched_open(f, folder_path(f->folder, "p"), &watched_by_event);
    log_stop(1000);

    char *text = file_text(folder_path(f->folder, "log"));
    assert_non_null(strstr(text, "event=store_record_error at="));
    assert_non_null(strstr(text, "/p:1:118 "));
    assert_non_null(strstr(text, "event=store_record_error and_more=40"));
    assert_non_null(strstr(text, "event=store_load_failed"));
    assert_null(strstr(text, digest));
    free(text);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, watched_setup, watched_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_bad_file_keeps_the_old_data_and_says_so),
        TEST(a_bad_file_is_reported_once),
        TEST(a_duplicate_names_both_lines),
        TEST(a_deleted_file_keeps_the_data),
        TEST(a_truncated_file_does_not_remove_everybody),
        TEST(the_log_names_each_fault_and_no_secret),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
