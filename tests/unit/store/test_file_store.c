/* The file store on a real loop with real files: what is picked up, how, and what is kept when a file is bad.
 * Every wait is for a condition, with a deadline. */
#include "store/file_store.h"

#include "base/log.h"
#include "helper_folder.h"
#include "helper_records.h"
#include "policy/token.h"
#include "store/record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { DEADLINE_MS = 20000, NO_POLL_MS = 3600 * 1000 };

static const struct file_store_options by_event = {
    .watch = {.quiet_ms = 20, .quiet_max_ms = 200, .poll_ms = NO_POLL_MS}, .slice_us = 1000};
static const struct file_store_options by_poll = {
    .watch = {.quiet_ms = 20, .quiet_max_ms = 200, .poll_ms = 20}, .slice_us = 1000};

struct fixture {
    char folder[FOLDER_PATH_MAX];
    uv_loop_t loop;
    uv_timer_t beat; /* wakes the loop up, so that conditions and the deadline are looked at */
    struct policy *policy;
    struct store *store; /* NULL when it is closed */
    unsigned nclosed;
};

static void on_beat(uv_timer_t *timer)
{
    (void)timer;
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    folder_make(f->folder);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    assert_int_equal(uv_timer_init(&f->loop, &f->beat), 0);
    assert_int_equal(uv_timer_start(&f->beat, on_beat, 5, 5), 0);
    f->policy = policy_create();
    assert_non_null(f->policy);
    *state = f;
    return 0;
}

static void on_closed(void *arg)
{
    struct fixture *f = arg;
    f->nclosed++;
    f->store = NULL;
}

static void close_store(struct fixture *f)
{
    f->store->ops->close(f->store, on_closed, f);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    if (f->store) close_store(f);
    uv_close((uv_handle_t *)&f->beat, NULL);
    assert_int_equal(uv_run(&f->loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&f->loop), 0); /* no handle is left */
    assert_int_equal(f->nclosed, 1);
    policy_destroy(f->policy);
    folder_remove(f->folder);
    free(f);
    return 0;
}

/* --- actions ---------------------------------------------------------------------------------------- */

static void open_store(struct fixture *f, const char *path, const struct file_store_options *options)
{
    assert_int_equal(file_store_open(&f->loop, path, f->policy, options, &f->store), ERR_OK);
}

/* Writes the records `first` to `first + n - 1` in place. */
static void write_records(struct fixture *f, const char *name, unsigned first, unsigned n, unsigned edition)
{
    FILE *out = fopen(folder_path(f->folder, name), "w");
    char line[RECORD_LINE_MAX];
    assert_non_null(out);
    for (unsigned i = first; i < first + n; i++)
        fwrite(line, 1, record_line(i, edition, line), out);
    assert_int_equal(fclose(out), 0);
}

static void move(struct fixture *f, const char *from, const char *to)
{
    assert_int_equal(rename(folder_path(f->folder, from), folder_path(f->folder, to)), 0);
}

static void make_folder(struct fixture *f, const char *name)
{
    assert_int_equal(mkdir(folder_path(f->folder, name), 0700), 0);
}

static void link_to(struct fixture *f, const char *target, const char *name)
{
    assert_int_equal(symlink(target, folder_path(f->folder, name)), 0);
}

/* --- conditions ------------------------------------------------------------------------------------- */

static struct store_status status_of(const struct fixture *f)
{
    struct store_status s;
    f->store->ops->status(f->store, &s);
    return s;
}

static uint32_t partners_of(const struct fixture *f)
{
    struct policy_stats stats;
    policy_stats(f->policy, &stats);
    return stats.partners;
}

/* Runs the loop until `condition(f, value)`. */
static void await(struct fixture *f, bool (*condition)(const struct fixture *f, uint64_t value),
                  uint64_t value, const char *what)
{
    uint64_t deadline = uv_now(&f->loop) + DEADLINE_MS;
    while (!condition(f, value)) {
        if (uv_now(&f->loop) > deadline) fail_msg("waited in vain for: %s %u", what, (unsigned)value);
        (void)uv_run(&f->loop, UV_RUN_ONCE);
    }
}

static bool has_loads(const struct fixture *f, uint64_t n)
{
    return status_of(f).loads_total >= n;
}

static bool has_failures(const struct fixture *f, uint64_t n)
{
    return status_of(f).load_failures_total >= n;
}

static bool has_partners(const struct fixture *f, uint64_t n)
{
    return partners_of(f) == n;
}

static bool has_more_partners_than(const struct fixture *f, uint64_t n)
{
    return partners_of(f) > n;
}

static bool has_closed(const struct fixture *f, uint64_t n)
{
    return f->nclosed == n;
}

#define AWAIT(f, condition, value) await(f, condition, value, #condition)

static bool has_partner(const struct fixture *f, const char *id)
{
    return policy_find(f->policy, span_str(id)) != PARTNER_INDEX_NONE;
}

/* --- first load ------------------------------------------------------------------------------------- */

static void the_policy_is_ready_when_the_store_is_open(void **state)
{
    struct fixture *f = *state;
    write_records(f, "p", 0, 3, 0);
    open_store(f, folder_path(f->folder, "p"), &by_event);
    assert_true(policy_is_ready(f->policy));
    assert_int_equal(partners_of(f), 3);
    struct store_status s = status_of(f);
    assert_true(s.up);
    assert_int_equal(s.loads_total, 1);
    assert_int_equal(s.load_failures_total, 0);
    assert_true(s.loaded_at_ms > 0);
    assert_string_equal(s.last_error, "");
}

static void a_first_load_that_fails_leaves_the_policy_not_ready(void **state)
{
    struct fixture *f = *state;
    open_store(f, folder_path(f->folder, "p"), &by_event);
    assert_false(policy_is_ready(f->policy));
    struct store_status s = status_of(f);
    assert_false(s.up);
    assert_int_equal(s.loaded_at_ms, 0);
    assert_non_null(strstr(s.last_error, "No such file or directory"));
    write_records(f, "p", 0, 2, 0);
    AWAIT(f, has_loads, 1);
    assert_true(policy_is_ready(f->policy));
    assert_true(status_of(f).up);
    assert_string_equal(status_of(f).last_error, "");
}

static void an_empty_file_is_a_start(void **state)
{
    struct fixture *f = *state;
    write_records(f, "p", 0, 0, 0);
    open_store(f, folder_path(f->folder, "p"), &by_event);
    assert_true(policy_is_ready(f->policy));
    assert_int_equal(partners_of(f), 0);
}

static void ten_thousand_partners_are_loaded(void **state)
{
    struct fixture *f = *state;
    write_records(f, "p", 0, 10000, 0);
    open_store(f, folder_path(f->folder, "p"), &by_event);
    assert_int_equal(partners_of(f), 10000);
}

/* --- changes ---------------------------------------------------------------------------------------- */

static void a_file_renamed_over_the_old_one_is_loaded(void **state)
{
    struct fixture *f = *state;
    write_records(f, "p", 0, 3, 0);
    open_store(f, folder_path(f->folder, "p"), &by_event);
    for (unsigned i = 1; i <= 3; i++) { /* the second time is where a watch on the file would be lost */
        write_records(f, "new", i, 3 + i, 0);
        move(f, "new", "p");
        AWAIT(f, has_partners, 3 + i);
    }
    assert_false(has_partner(f, "partner-000000"));
    assert_true(has_partner(f, "partner-000008"));
}

static void a_file_rewritten_in_place_is_loaded(void **state)
{
    struct fixture *f = *state;
    write_records(f, "p", 0, 3, 0);
    open_store(f, folder_path(f->folder, "p"), &by_event);
    for (unsigned i = 1; i <= 3; i++) {
        write_records(f, "p", 0, 3 + i, 0);
        AWAIT(f, has_partners, 3 + i);
    }
}

static void a_swap_of_kubernetes_links_is_loaded(void **state)
{
    struct fixture *f = *state;
    make_folder(f, "..v1");
    make_folder(f, "..v2");
    make_folder(f, "..v3");
    write_records(f, "..v1/p", 0, 1, 0);
    write_records(f, "..v2/p", 0, 2, 0);
    write_records(f, "..v3/p", 0, 3, 0);
    link_to(f, "..v1", "..data");
    link_to(f, "..data/p", "p");
    open_store(f, folder_path(f->folder, "p"), &by_event);
    assert_int_equal(partners_of(f), 1);
    for (unsigned i = 2; i <= 3; i++) {
        link_to(f, i == 2 ? "..v2" : "..v3", "..data_tmp");
        move(f, "..data_tmp", "..data");
        AWAIT(f, has_partners, i);
    }
}

static void a_replaced_directory_is_followed(void **state)
{
    struct fixture *f = *state;
    make_folder(f, "d");
    write_records(f, "d/p", 0, 1, 0);
    open_store(f, folder_path(f->folder, "d/p"), &by_event);
    make_folder(f, "e");
    write_records(f, "e/p", 0, 2, 0);
    move(f, "d", "old");
    move(f, "e", "d");
    AWAIT(f, has_partners, 2);
    write_records(f, "d/p", 0, 3, 0);
    AWAIT(f, has_partners, 3);
}

static void a_directory_that_comes_later_is_found(void **state)
{
    struct fixture *f = *state;
    open_store(f, folder_path(f->folder, "d/p"), &by_poll);
    assert_false(status_of(f).up);
    make_folder(f, "d");
    write_records(f, "d/p", 0, 1, 0);
    AWAIT(f, has_partners, 1);
}

static void what_no_event_shows_is_found_by_the_poll(void **state)
{
    struct fixture *f = *state;
    make_folder(f, "elsewhere");
    make_folder(f, "d");
    write_records(f, "elsewhere/p", 0, 1, 0);
    link_to(f, "../elsewhere/p", "d/p");
    open_store(f, folder_path(f->folder, "d/p"), &by_poll);
    write_records(f, "elsewhere/p", 0, 2, 0);
    AWAIT(f, has_partners, 2);
}

static void an_unchanged_file_is_loaded_only_on_demand(void **state)
{
    struct fixture *f = *state;
    write_records(f, "p", 0, 3, 0);
    open_store(f, folder_path(f->folder, "p"), &by_poll);
    uint64_t generation = policy_generation(f->policy);
    write_records(f, "marker", 0, 0, 0); /* an event for another file of the directory */
    for (int i = 0; i < 20; i++)
        (void)uv_run(&f->loop, UV_RUN_ONCE);
    assert_int_equal(status_of(f).loads_total, 1);
    f->store->ops->reload(f->store);
    AWAIT(f, has_loads, 2);
    assert_true(policy_generation(f->policy) == generation);
}

static void reloads_during_a_load_become_one_more(void **state)
{
    struct fixture *f = *state;
    write_records(f, "p", 0, 100, 0);
    open_store(f, folder_path(f->folder, "p"), &by_event);
    for (int i = 0; i < 5; i++)
        f->store->ops->reload(f->store);
    AWAIT(f, has_loads, 3);
    for (int i = 0; i < 20; i++)
        (void)uv_run(&f->loop, UV_RUN_ONCE);
    assert_int_equal(status_of(f).loads_total, 3);
}

/* The index of the partner that has the current token of this record. */
static uint32_t owner_of_token(struct fixture *f, const char *line)
{
    struct record_report report = {0};
    struct partner_record record;
    uint32_t owner = PARTNER_INDEX_NONE;
    assert_int_equal(record_parse(span_str(line), 1, &record, &report), ERR_OK);
    (void)key_table_find(policy_tokens(f->policy), token_key(record.partner.digest[SLOT_CURRENT]), &owner);
    record_deinit(&record);
    return owner;
}

static void memory_of_replaced_partners_is_freed(void **state)
{
    struct fixture *f = *state;
    struct policy_stats stats;
    write_records(f, "p", 0, 300, 0);
    open_store(f, folder_path(f->folder, "p"), &by_event);
    write_records(f, "p", 0, 300, 1);
    AWAIT(f, has_loads, 2);
    policy_stats(f->policy, &stats);
    assert_int_equal(stats.limbo_bytes, 0); /* there is no reader to wait for */
}

static void tokens_may_be_exchanged_between_partners(void **state)
{
    struct fixture *f = *state;
    char first[RECORD_LINE_MAX], second[RECORD_LINE_MAX], both[2 * RECORD_LINE_MAX];
    write_records(f, "p", 0, 2, 0);
    open_store(f, folder_path(f->folder, "p"), &by_event);
    (void)record_line(0, 0, first);
    (void)record_line(1, 0, second);
    assert_int_equal(owner_of_token(f, first), policy_find(f->policy, SPAN("partner-000000")));
    memcpy(strstr(first, "partner-000000"), "partner-000001", 14);
    memcpy(strstr(second, "partner-000001"), "partner-000000", 14);
    int n = snprintf(both, sizeof both, "%s%s", first, second);
    folder_write(f->folder, "p", both, (size_t)n);
    AWAIT(f, has_loads, 2);
    assert_int_equal(owner_of_token(f, first), policy_find(f->policy, SPAN("partner-000001")));
    assert_int_equal(owner_of_token(f, second), policy_find(f->policy, SPAN("partner-000000")));
    assert_int_not_equal(owner_of_token(f, first), PARTNER_INDEX_NONE);
}

/* --- faults ----------------------------------------------------------------------------------------- */

static void a_bad_file_keeps_the_old_data_and_says_so(void **state)
{
    struct fixture *f = *state;
    write_records(f, "p", 0, 3, 0);
    open_store(f, folder_path(f->folder, "p"), &by_event);
    folder_write(f->folder, "p", "\n{\"partner_id\": 7}\n", 19);
    AWAIT(f, has_failures, 1);
    struct store_status s = status_of(f);
    assert_false(s.up);
    assert_int_equal(s.records_rejected, 1);
    assert_non_null(strstr(s.last_error, "/p:2:16: partner_id must be"));
    assert_int_equal(partners_of(f), 3);
    assert_true(policy_is_ready(f->policy));
    write_records(f, "p", 0, 4, 0);
    AWAIT(f, has_partners, 4);
    assert_true(status_of(f).up);
    assert_int_equal(status_of(f).records_rejected, 0);
}

static void a_bad_file_is_reported_once(void **state)
{
    struct fixture *f = *state;
    folder_write(f->folder, "p", "bad\n", 4);
    open_store(f, folder_path(f->folder, "p"), &by_poll);
    for (int i = 0; i < 50; i++)
        (void)uv_run(&f->loop, UV_RUN_ONCE);
    assert_int_equal(status_of(f).load_failures_total, 1);
    f->store->ops->reload(f->store);
    AWAIT(f, has_failures, 2);
}

static void a_duplicate_names_both_lines(void **state)
{
    struct fixture *f = *state;
    char line[RECORD_LINE_MAX], twice[2 * RECORD_LINE_MAX];
    (void)record_line(1, 0, line);
    int n = snprintf(twice, sizeof twice, "%s%s", line, line);
    folder_write(f->folder, "p", twice, (size_t)n);
    open_store(f, folder_path(f->folder, "p"), &by_event);
    assert_non_null(
        strstr(status_of(f).last_error, "/p:2: partner_id \"partner-000001\" is used in line 1 already"));
}

static void a_deleted_file_keeps_the_data(void **state)
{
    struct fixture *f = *state;
    write_records(f, "p", 0, 3, 0);
    open_store(f, folder_path(f->folder, "p"), &by_poll);
    assert_int_equal(unlink(folder_path(f->folder, "p")), 0);
    AWAIT(f, has_failures, 1);
    for (int i = 0; i < 50; i++)
        (void)uv_run(&f->loop, UV_RUN_ONCE);
    assert_int_equal(status_of(f).load_failures_total, 1); /* said once, however often it is looked for */
    assert_int_equal(partners_of(f), 3);
    assert_false(status_of(f).up);
    write_records(f, "p", 0, 3, 0); /* the very same contents */
    AWAIT(f, has_loads, 2);
    assert_true(status_of(f).up);
}

static void a_truncated_file_does_not_remove_everybody(void **state)
{
    struct fixture *f = *state;
    write_records(f, "p", 0, 3, 0);
    open_store(f, folder_path(f->folder, "p"), &by_event);
    assert_int_equal(truncate(folder_path(f->folder, "p"), 0), 0);
    AWAIT(f, has_failures, 1);
    assert_int_equal(partners_of(f), 3);
    assert_non_null(strstr(status_of(f).last_error, "would remove every partner"));
}

static void the_log_names_each_fault_and_no_secret(void **state)
{
    static const char digest[] = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8";
    struct fixture *f = *state;
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
    open_store(f, folder_path(f->folder, "p"), &by_event);
    log_stop(1000);

    char text[65536];
    FILE *in = fopen(folder_path(f->folder, "log"), "r");
    assert_non_null(in);
    text[fread(text, 1, sizeof text - 1, in)] = '\0';
    assert_int_equal(fclose(in), 0);
    assert_non_null(strstr(text, "event=store_record_error at="));
    assert_non_null(strstr(text, "/p:1:118 "));
    assert_non_null(strstr(text, "event=store_record_error and_more=40"));
    assert_non_null(strstr(text, "event=store_load_failed"));
    assert_null(strstr(text, digest));
}

/* --- close ------------------------------------------------------------------------------------------ */

static void closing_waits_for_a_read(void **state)
{
    struct fixture *f = *state;
    write_records(f, "p", 0, 5000, 0);
    open_store(f, folder_path(f->folder, "p"), &by_event);
    f->store->ops->reload(f->store);
    close_store(f);
    assert_int_equal(f->nclosed, 0); /* never before close() returns */
    AWAIT(f, has_closed, 1);
}

static void closing_while_partners_are_applied_removes_nobody(void **state)
{
    struct fixture *f = *state;
    struct file_store_options tiny_slices = by_event;
    tiny_slices.slice_us = 1;
    write_records(f, "p", 0, 10, 0);
    open_store(f, folder_path(f->folder, "p"), &tiny_slices);
    write_records(f, "p", 5, 5000, 0);
    f->store->ops->reload(f->store);
    AWAIT(f, has_more_partners_than, 10);
    assert_true(partners_of(f) < 5000); /* in the middle */
    close_store(f);
    AWAIT(f, has_closed, 1);
    assert_true(has_partner(f, "partner-000000"));
}

static void the_configured_kind_is_opened(void **state)
{
    struct fixture *f = *state;
    write_records(f, "p", 0, 3, 0);
    struct config *config = calloc(1, sizeof *config);
    assert_non_null(config);
    config->store.kind = STORE_FILE;
    config->store.file = (char *)folder_path(f->folder, "p");
    assert_int_equal(store_open(&f->loop, config, f->policy, &f->store), ERR_OK);
    free(config); /* the store keeps nothing of it */
    assert_int_equal(partners_of(f), 3);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_policy_is_ready_when_the_store_is_open),
        TEST(a_first_load_that_fails_leaves_the_policy_not_ready),
        TEST(an_empty_file_is_a_start),
        TEST(ten_thousand_partners_are_loaded),
        TEST(a_file_renamed_over_the_old_one_is_loaded),
        TEST(a_file_rewritten_in_place_is_loaded),
        TEST(a_swap_of_kubernetes_links_is_loaded),
        TEST(a_replaced_directory_is_followed),
        TEST(a_directory_that_comes_later_is_found),
        TEST(what_no_event_shows_is_found_by_the_poll),
        TEST(an_unchanged_file_is_loaded_only_on_demand),
        TEST(reloads_during_a_load_become_one_more),
        TEST(memory_of_replaced_partners_is_freed),
        TEST(tokens_may_be_exchanged_between_partners),
        TEST(a_bad_file_keeps_the_old_data_and_says_so),
        TEST(a_bad_file_is_reported_once),
        TEST(a_duplicate_names_both_lines),
        TEST(a_deleted_file_keeps_the_data),
        TEST(a_truncated_file_does_not_remove_everybody),
        TEST(the_log_names_each_fault_and_no_secret),
        TEST(closing_waits_for_a_read),
        TEST(closing_while_partners_are_applied_removes_nobody),
        TEST(the_configured_kind_is_opened),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
