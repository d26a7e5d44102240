/* The file behind proofctl: changes are made together or not at all, from the version that was read, and with
 * their lines in the audit. */
#include "base/path.h"
#include "proofctl/audit_file.h"
#include "proofctl/backend.h"
#include "proofctl/file_lock.h"
#include "proofctl/file_replace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { TEXT_MAX = 8192 };

static char folder[64], path[96], audit_path[128];

static int make_folder(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof folder, "/tmp/proofctl-test-XXXXXX");
    if (!mkdtemp(folder)) return -1;
    (void)snprintf(path, sizeof path, "%s/partners.ndjson", folder);
    (void)snprintf(audit_path, sizeof audit_path, "%s.audit", path);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    static const char *const names[] = {"", ".audit", ".lock", ".tmp"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *name = path_with(path, names[i]);
        (void)unlink(name);
        free(name);
    }
    return rmdir(folder); /* fails, and the test with it, when something else was left */
}

static const char *contents(const char *of)
{
    static char text[TEXT_MAX];
    FILE *in = fopen(of, "r");
    size_t n = in ? fread(text, 1, sizeof text - 1, in) : 0;
    if (in) (void)fclose(in);
    text[n] = '\0';
    return text;
}

/* The record of a partner whose token is `token`; the last four results stay valid. */
static const char *record(const char *id, char token)
{
    static char texts[4][512];
    static unsigned next;
    char *text = texts[next++ % 4], digest[65];
    memset(digest, token, 64);
    digest[64] = '\0';
    (void)snprintf(
        text, sizeof texts[0],
        "{\"partner_id\": \"%s\", \"company\": \"C\", \"contact\": \"a@b.example\", "
        "\"client_token_sha256\": \"%s\", \"widget_id\": \"0190c5b2-7a64-7000-8000-3f2a9c1d5e77\", "
        "\"production_cidrs\": [\"192.0.2.7\"]}",
        id, digest);
    return text;
}

static struct backend *opened(void)
{
    struct backend *b;
    struct errmsg why;
    assert_int_equal(backend_file_open(path, &b, &why), ERR_OK);
    return b;
}

static struct backend_change changing(const char *id, const struct backend_version *expected, char token)
{
    return (struct backend_change){.id = id,
                                   .expected = expected,
                                   .json = span_str(record(id, token)),
                                   .audit = SPAN("{\"action\": \"test\"}")};
}

static struct backend_change adding(const char *id, char token)
{
    return changing(id, NULL, token);
}

static struct backend_change removing(const char *id, const struct backend_version *expected)
{
    return (struct backend_change){.id = id, .expected = expected, .audit = SPAN("{\"action\": \"test\"}")};
}

static struct backend_version version_of(struct backend *b, const char *id)
{
    struct backend_record found;
    assert_int_equal(b->ops->get(b, id, &found), ERR_OK);
    assert_string_equal(found.id, id);
    return found.version;
}

/* A file with partners a and b. */
static struct backend *with_two(void)
{
    struct backend *b = opened();
    struct backend_change changes[] = {adding("a", '1'), adding("b", '2')};
    assert_int_equal(b->ops->commit(b, changes, 2), ERR_OK);
    return b;
}

static enum err count_line(void *arg, struct span line)
{
    size_t *n = arg;
    *n += line.n > 0;
    return ERR_OK;
}

static size_t audit_lines(struct backend *b)
{
    size_t n = 0;
    assert_int_equal(b->ops->audit(b, 1000, count_line, &n), ERR_OK);
    return n;
}

static void new_records_stand_in_the_order_of_the_call(void **state)
{
    (void)state;
    struct backend *b = with_two();
    char expected[1024];
    (void)snprintf(expected, sizeof expected, "%s\n%s\n", record("a", '1'), record("b", '2'));
    assert_string_equal(contents(path), expected);
    assert_int_equal(audit_lines(b), 2);
    b->ops->close(b);
}

static void a_missing_record_is_not_found(void **state)
{
    (void)state;
    struct backend *b = opened();
    struct backend_record found;
    assert_int_equal(b->ops->get(b, "a", &found), ERR_NOT_FOUND); /* there is no file yet */
    b->ops->close(b);
    b = with_two();
    assert_int_equal(b->ops->get(b, "c", &found), ERR_NOT_FOUND);
    b->ops->close(b);
}

static void a_change_from_an_old_version_is_a_conflict(void **state)
{
    (void)state;
    struct backend *b = with_two();
    struct backend_version old = version_of(b, "a");
    struct backend_change first = changing("a", &old, '3');
    assert_int_equal(b->ops->commit(b, &first, 1), ERR_OK);
    struct backend_change second = changing("a", &old, '4');
    assert_int_equal(b->ops->commit(b, &second, 1), ERR_CONFLICT);
    assert_int_equal(b->faults.n, 1);
    assert_null(strstr(contents(path), "4444"));
    assert_int_equal(audit_lines(b), 3);
    b->ops->close(b);
}

static void one_conflict_stops_all_changes_of_a_call(void **state)
{
    (void)state;
    struct backend *b = with_two();
    struct backend_version of_a = version_of(b, "a"), wrong = {{1}};
    char before[TEXT_MAX];
    (void)snprintf(before, sizeof before, "%s", contents(path));
    struct backend_change changes[] = {changing("a", &of_a, '3'), changing("b", &wrong, '4')};
    assert_int_equal(b->ops->commit(b, changes, 2), ERR_CONFLICT);
    assert_string_equal(contents(path), before);
    assert_int_equal(audit_lines(b), 2);
    b->ops->close(b);
}

static void a_record_that_must_be_new_is_not_replaced(void **state)
{
    (void)state;
    struct backend *b = with_two();
    struct backend_change again = adding("a", '3');
    assert_int_equal(b->ops->commit(b, &again, 1), ERR_EXISTS);
    assert_non_null(strstr(contents(path), "1111"));
    b->ops->close(b);
}

static void a_removed_record_is_gone_and_cannot_be_changed(void **state)
{
    (void)state;
    struct backend *b = with_two();
    struct backend_version of_a = version_of(b, "a");
    struct backend_change removal = removing("a", &of_a);
    assert_int_equal(b->ops->commit(b, &removal, 1), ERR_OK);
    assert_null(strstr(contents(path), "\"a\""));
    struct backend_change late = changing("a", &of_a, '3');
    assert_int_equal(b->ops->commit(b, &late, 1), ERR_CONFLICT);
    b->ops->close(b);
}

static void the_last_record_stays(void **state)
{
    (void)state;
    struct backend *b = with_two();
    struct backend_version of_a = version_of(b, "a"), of_b = version_of(b, "b");
    struct backend_change both[] = {removing("a", &of_a), removing("b", &of_b)};
    assert_int_equal(b->ops->commit(b, both, 2), ERR_RANGE);
    struct backend_change exchange[] = {both[0], both[1], adding("c", '3')};
    assert_int_equal(b->ops->commit(b, exchange, 3), ERR_OK);
    assert_non_null(strstr(contents(path), "\"c\""));
    b->ops->close(b);
}

static void what_a_gateway_would_refuse_is_not_written(void **state)
{
    (void)state;
    struct backend *b = with_two();
    struct backend_change same_token = adding("c", '1'), no_record = adding("c", '2');
    no_record.json = SPAN("{}");
    assert_int_equal(b->ops->commit(b, &same_token, 1), ERR_RANGE);
    assert_non_null(strstr(b->faults.list[0].text, "each token belongs to one partner"));
    assert_int_equal(b->ops->commit(b, &no_record, 1), ERR_RANGE);
    assert_null(strstr(contents(path), "\"c\""));
    assert_int_equal(audit_lines(b), 2);
    b->ops->close(b);
}

static void the_version_follows_the_record(void **state)
{
    (void)state;
    struct backend *b = with_two();
    struct backend_version of_a = version_of(b, "a"), of_b = version_of(b, "b"), now;
    assert_memory_not_equal(&of_a, &of_b, sizeof of_a);
    struct backend_change change = changing("b", &of_b, '5');
    assert_int_equal(b->ops->commit(b, &change, 1), ERR_OK);
    now = version_of(b, "b");
    assert_memory_not_equal(&of_b, &now, sizeof now);
    now = version_of(b, "a");
    assert_memory_equal(&of_a, &now, sizeof now);
    b->ops->close(b);
}

static void audit_lines_are_taken_back(void **state)
{
    (void)state;
    struct audit_file a;
    assert_int_equal(audit_file_open(&a, audit_path, geteuid(), getegid()), ERR_OK);
    assert_int_equal(audit_file_append(&a, SPAN("one\n")), ERR_OK);
    assert_int_equal(audit_file_append(&a, SPAN("two\nthree\n")), ERR_OK);
    assert_int_equal(audit_file_take_back(&a), ERR_OK);
    assert_string_equal(contents(audit_path), "one\n");
    audit_file_close(&a);
}

static void a_lock_that_is_held_is_waited_for_only_so_long(void **state)
{
    (void)state;
    int first, second;
    assert_int_equal(file_lock_take(audit_path, geteuid(), getegid(), 0, &first), ERR_OK);
    assert_int_equal(file_lock_take(audit_path, geteuid(), getegid(), 30, &second), ERR_TIMEOUT);
    file_lock_release(first);
    assert_int_equal(file_lock_take(audit_path, geteuid(), getegid(), 0, &second), ERR_OK);
    file_lock_release(second);
}

/* The old file survives whatever is not finished. */
static void an_aborted_file_leaves_nothing(void **state)
{
    (void)state;
    struct backend *b = with_two();
    char before[TEXT_MAX];
    (void)snprintf(before, sizeof before, "%s", contents(path));
    struct file_replace r;
    struct errmsg why;
    assert_int_equal(file_replace_begin(&r, path, NULL, &why), ERR_OK);
    assert_true(fputs("half", r.out) >= 0);
    assert_int_equal(file_replace_sync(&r, &why), ERR_OK);
    file_replace_abort(&r);
    file_replace_abort(&r); /* once more does nothing */
    assert_string_equal(contents(path), before);
    char *temporary = path_with(path, ".tmp");
    assert_int_equal(access(temporary, F_OK), -1);
    free(temporary);
    b->ops->close(b);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(new_records_stand_in_the_order_of_the_call),
        CASE(a_missing_record_is_not_found),
        CASE(a_change_from_an_old_version_is_a_conflict),
        CASE(one_conflict_stops_all_changes_of_a_call),
        CASE(a_record_that_must_be_new_is_not_replaced),
        CASE(a_removed_record_is_gone_and_cannot_be_changed),
        CASE(the_last_record_stays),
        CASE(what_a_gateway_would_refuse_is_not_written),
        CASE(the_version_follows_the_record),
        CASE(audit_lines_are_taken_back),
        CASE(a_lock_that_is_held_is_waited_for_only_so_long),
        CASE(an_aborted_file_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
