/* The file store on a real loop with real files: what is picked up, how, and what is kept when a file is bad.
 * Every wait is for a condition, with a deadline. */
#include "helper_watched.h"
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

static void move(struct watched *f, const char *from, const char *to)
{
    assert_int_equal(rename(folder_path(f->folder, from), folder_path(f->folder, to)), 0);
}

static void make_folder(struct watched *f, const char *name)
{
    assert_int_equal(mkdir(folder_path(f->folder, name), 0700), 0);
}

static void link_to(struct watched *f, const char *target, const char *name)
{
    assert_int_equal(symlink(target, folder_path(f->folder, name)), 0);
}

/* --- first load ------------------------------------------------------------------------------------- */

static void the_policy_is_ready_when_the_store_is_open(void **state)
{
    struct watched *f = *state;
    watched_write(f, "p", 0, 3, 0);
    watched_open(f, folder_path(f->folder, "p"), &watched_by_event);
    assert_true(policy_is_ready(f->policy));
    assert_int_equal(watched_partners(f), 3);
    struct store_status s = watched_status(f);
    assert_true(s.up);
    assert_int_equal(s.loads_total, 1);
    assert_int_equal(s.load_failures_total, 0);
    assert_true(s.loaded_at_ms > 0);
    assert_string_equal(s.last_error, "");
}

static void a_first_load_that_fails_leaves_the_policy_not_ready(void **state)
{
    struct watched *f = *state;
    watched_open(f, folder_path(f->folder, "p"), &watched_by_event);
    assert_false(policy_is_ready(f->policy));
    struct store_status s = watched_status(f);
    assert_false(s.up);
    assert_int_equal(s.loaded_at_ms, 0);
    assert_non_null(strstr(s.last_error, "No such file or directory"));
    watched_write(f, "p", 0, 2, 0);
    WATCHED_UNTIL(f, watched_status(f).loads_total >= 1);
    assert_true(policy_is_ready(f->policy));
    assert_true(watched_status(f).up);
    assert_string_equal(watched_status(f).last_error, "");
}

static void an_empty_file_is_a_start(void **state)
{
    struct watched *f = *state;
    watched_write(f, "p", 0, 0, 0);
    watched_open(f, folder_path(f->folder, "p"), &watched_by_event);
    assert_true(policy_is_ready(f->policy));
    assert_int_equal(watched_partners(f), 0);
}

static void ten_thousand_partners_are_loaded(void **state)
{
    struct watched *f = *state;
    watched_write(f, "p", 0, 10000, 0);
    watched_open(f, folder_path(f->folder, "p"), &watched_by_event);
    assert_int_equal(watched_partners(f), 10000);
}

/* --- changes ---------------------------------------------------------------------------------------- */

static void a_file_renamed_over_the_old_one_is_loaded(void **state)
{
    struct watched *f = *state;
    watched_write(f, "p", 0, 3, 0);
    watched_open(f, folder_path(f->folder, "p"), &watched_by_event);
    for (unsigned i = 1; i <= 3; i++) { /* the second time is where a watch on the file would be lost */
        watched_write(f, "new", i, 3 + i, 0);
        move(f, "new", "p");
        WATCHED_UNTIL(f, watched_partners(f) == 3 + i);
    }
    assert_false(watched_has(f, "partner-000000"));
    assert_true(watched_has(f, "partner-000008"));
}

static void a_file_rewritten_in_place_is_loaded(void **state)
{
    struct watched *f = *state;
    watched_write(f, "p", 0, 3, 0);
    watched_open(f, folder_path(f->folder, "p"), &watched_by_event);
    for (unsigned i = 1; i <= 3; i++) {
        watched_write(f, "p", 0, 3 + i, 0);
        WATCHED_UNTIL(f, watched_partners(f) == 3 + i);
    }
}

static void a_swap_of_kubernetes_links_is_loaded(void **state)
{
    struct watched *f = *state;
    make_folder(f, "..v1");
    make_folder(f, "..v2");
    make_folder(f, "..v3");
    watched_write(f, "..v1/p", 0, 1, 0);
    watched_write(f, "..v2/p", 0, 2, 0);
    watched_write(f, "..v3/p", 0, 3, 0);
    link_to(f, "..v1", "..data");
    link_to(f, "..data/p", "p");
    watched_open(f, folder_path(f->folder, "p"), &watched_by_event);
    assert_int_equal(watched_partners(f), 1);
    for (unsigned i = 2; i <= 3; i++) {
        link_to(f, i == 2 ? "..v2" : "..v3", "..data_tmp");
        move(f, "..data_tmp", "..data");
        WATCHED_UNTIL(f, watched_partners(f) == i);
    }
}

static void a_replaced_directory_is_followed(void **state)
{
    struct watched *f = *state;
    make_folder(f, "d");
    watched_write(f, "d/p", 0, 1, 0);
    watched_open(f, folder_path(f->folder, "d/p"), &watched_by_event);
    make_folder(f, "e");
    watched_write(f, "e/p", 0, 2, 0);
    move(f, "d", "old");
    move(f, "e", "d");
    WATCHED_UNTIL(f, watched_partners(f) == 2);
    watched_write(f, "d/p", 0, 3, 0);
    WATCHED_UNTIL(f, watched_partners(f) == 3);
}

static void a_directory_that_comes_later_is_found(void **state)
{
    struct watched *f = *state;
    watched_open(f, folder_path(f->folder, "d/p"), &watched_by_poll);
    assert_false(watched_status(f).up);
    make_folder(f, "d");
    watched_write(f, "d/p", 0, 1, 0);
    WATCHED_UNTIL(f, watched_partners(f) == 1);
}

static void what_no_event_shows_is_found_by_the_poll(void **state)
{
    struct watched *f = *state;
    make_folder(f, "elsewhere");
    make_folder(f, "d");
    watched_write(f, "elsewhere/p", 0, 1, 0);
    link_to(f, "../elsewhere/p", "d/p");
    watched_open(f, folder_path(f->folder, "d/p"), &watched_by_poll);
    watched_write(f, "elsewhere/p", 0, 2, 0);
    WATCHED_UNTIL(f, watched_partners(f) == 2);
}

static void an_unchanged_file_is_loaded_only_on_demand(void **state)
{
    struct watched *f = *state;
    watched_write(f, "p", 0, 3, 0);
    watched_open(f, folder_path(f->folder, "p"), &watched_by_poll);
    uint64_t generation = policy_generation(f->policy);
    watched_write(f, "marker", 0, 0, 0); /* an event for another file of the directory */
    for (int i = 0; i < 20; i++)
        (void)uv_run(&f->loop, UV_RUN_ONCE);
    assert_int_equal(watched_status(f).loads_total, 1);
    f->store->ops->reload(f->store);
    WATCHED_UNTIL(f, watched_status(f).loads_total >= 2);
    assert_true(policy_generation(f->policy) == generation);
}

static void reloads_during_a_load_become_one_more(void **state)
{
    struct watched *f = *state;
    watched_write(f, "p", 0, 100, 0);
    watched_open(f, folder_path(f->folder, "p"), &watched_by_event);
    for (int i = 0; i < 5; i++)
        f->store->ops->reload(f->store);
    WATCHED_UNTIL(f, watched_status(f).loads_total >= 3);
    for (int i = 0; i < 20; i++)
        (void)uv_run(&f->loop, UV_RUN_ONCE);
    assert_int_equal(watched_status(f).loads_total, 3);
}

/* The index of the partner that has the current token of this record. */
static uint32_t owner_of_token(struct watched *f, const char *line)
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
    struct watched *f = *state;
    struct policy_stats stats;
    watched_write(f, "p", 0, 300, 0);
    watched_open(f, folder_path(f->folder, "p"), &watched_by_event);
    watched_write(f, "p", 0, 300, 1);
    WATCHED_UNTIL(f, watched_status(f).loads_total >= 2);
    policy_stats(f->policy, &stats);
    assert_int_equal(stats.limbo_bytes, 0); /* there is no reader to wait for */
}

static void tokens_may_be_exchanged_between_partners(void **state)
{
    struct watched *f = *state;
    char first[RECORD_LINE_MAX], second[RECORD_LINE_MAX], both[2 * RECORD_LINE_MAX];
    watched_write(f, "p", 0, 2, 0);
    watched_open(f, folder_path(f->folder, "p"), &watched_by_event);
    (void)record_line(0, 0, first);
    (void)record_line(1, 0, second);
    assert_int_equal(owner_of_token(f, first), policy_find(f->policy, SPAN("partner-000000")));
    memcpy(strstr(first, "partner-000000"), "partner-000001", 14);
    memcpy(strstr(second, "partner-000001"), "partner-000000", 14);
    int n = snprintf(both, sizeof both, "%s%s", first, second);
    folder_write(f->folder, "p", both, (size_t)n);
    WATCHED_UNTIL(f, watched_status(f).loads_total >= 2);
    assert_int_equal(owner_of_token(f, first), policy_find(f->policy, SPAN("partner-000001")));
    assert_int_equal(owner_of_token(f, second), policy_find(f->policy, SPAN("partner-000000")));
    assert_int_not_equal(owner_of_token(f, first), PARTNER_INDEX_NONE);
}

/* --- close ------------------------------------------------------------------------------------------ */

static void closing_waits_for_a_read(void **state)
{
    struct watched *f = *state;
    watched_write(f, "p", 0, 5000, 0);
    watched_open(f, folder_path(f->folder, "p"), &watched_by_event);
    f->store->ops->reload(f->store);
    watched_close(f);
    assert_int_equal(f->nclosed, 0); /* never before close() returns */
    WATCHED_UNTIL(f, f->nclosed == 1);
}

static void closing_while_partners_are_applied_removes_nobody(void **state)
{
    struct watched *f = *state;
    struct file_store_options tiny_slices = watched_by_event;
    tiny_slices.slice_us = 1;
    watched_write(f, "p", 0, 10, 0);
    watched_open(f, folder_path(f->folder, "p"), &tiny_slices);
    watched_write(f, "p", 5, 5000, 0);
    f->store->ops->reload(f->store);
    WATCHED_UNTIL(f, watched_partners(f) > 10);
    assert_true(watched_partners(f) < 5000); /* in the middle */
    watched_close(f);
    WATCHED_UNTIL(f, f->nclosed == 1);
    assert_true(watched_has(f, "partner-000000"));
}

static void the_configured_kind_is_opened(void **state)
{
    struct watched *f = *state;
    watched_write(f, "p", 0, 3, 0);
    struct config *config = calloc(1, sizeof *config);
    assert_non_null(config);
    config->store.kind = STORE_FILE;
    config->store.file = (char *)folder_path(f->folder, "p");
    assert_int_equal(store_open(&f->loop, config, f->policy, &f->store), ERR_OK);
    free(config); /* the store keeps nothing of it */
    assert_int_equal(watched_partners(f), 3);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, watched_setup, watched_teardown)

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
        TEST(closing_waits_for_a_read),
        TEST(closing_while_partners_are_applied_removes_nobody),
        TEST(the_configured_kind_is_opened),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
