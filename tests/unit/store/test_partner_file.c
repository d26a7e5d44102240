/* The file of partner records: lines, limits, what two records may not share, and when it is not read again.
 */
#include "store/partner_file.h"

#include "support/folder.h"
#include "helper_records.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
    char folder[FOLDER_PATH_MAX];
    char path[FOLDER_PATH_MAX];
    struct partner_file file;
};

static const atomic_bool never;

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    folder_make(f->folder);
    (void)snprintf(f->path, sizeof f->path, "%s", folder_path(f->folder, "partners.ndjson"));
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    partner_file_deinit(&f->file);
    folder_remove(f->folder);
    free(f);
    return 0;
}

static enum partner_file_outcome read_again(struct fixture *f, const struct partner_file_seen *last)
{
    partner_file_deinit(&f->file);
    return partner_file_read(f->path, last, &never, &f->file);
}

static enum partner_file_outcome read_text(struct fixture *f, const char *text)
{
    folder_write(f->folder, "partners.ndjson", text, strlen(text));
    return read_again(f, NULL);
}

/* The record of partner `number`, without its newline; the last four results stay valid. */
static const char *record(unsigned number)
{
    static char lines[4][RECORD_LINE_MAX];
    static unsigned next;
    char *line = lines[next++ % 4];
    line[record_line(number, 0, line) - 1] = '\0';
    return line;
}

__attribute__((format(printf, 1, 2))) static const char *text_of(const char *format, ...)
{
    static char out[8 * RECORD_LINE_MAX];
    va_list args;
    va_start(args, format);
    assert_in_range(vsnprintf(out, sizeof out, format, args), 0, sizeof out - 1);
    va_end(args);
    return out;
}

/* The first message is about `line` and has `words` in it. */
static void complains(const struct fixture *f, unsigned line, const char *words)
{
    const struct errmsg *m = &f->file.report.faults.list[0];
    if (m->line != line || !strstr(m->text, words)) fail_msg("%u: %s", m->line, m->text);
    assert_int_equal(f->file.nentries, 0);
}

static void records_keep_their_order_and_lines(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(read_text(f, text_of("%s\n\n  \t\r\n%s\r\n%s", record(3), record(1), record(2))), 0);
    assert_int_equal(f->file.nentries, 3);
    assert_string_equal(partner_file_id(&f->file.entries[0]), "partner-000003");
    assert_string_equal(partner_file_id(&f->file.entries[1]), "partner-000001");
    assert_int_equal(f->file.entries[1].line, 4);
    assert_int_equal(f->file.entries[2].line, 5);
}

static void an_empty_file_has_no_records(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(read_text(f, ""), PARTNER_FILE_LOADED);
    assert_int_equal(f->file.nentries, 0);
    assert_int_equal(read_text(f, "\n\n"), PARTNER_FILE_LOADED);
    assert_int_equal(f->file.nentries, 0);
}

static void one_bad_line_refuses_the_file(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(read_text(f, text_of("%s\n{\"partner_id\":\n%s\n", record(1), record(2))),
                     PARTNER_FILE_INVALID);
    complains(f, 2, "not valid JSON");
    assert_int_equal(f->file.records_rejected, 1);
    assert_true(f->file.seen.is_valid);
}

static void every_bad_line_is_reported(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(read_text(f, text_of("5\n%s\n6\n", record(1))), PARTNER_FILE_INVALID);
    assert_int_equal(f->file.report.faults.total, 2);
    assert_int_equal(f->file.report.faults.list[0].line, 1);
    assert_int_equal(f->file.report.faults.list[1].line, 3);
    assert_int_equal(f->file.records_rejected, 2);
}

static void a_file_cut_inside_its_last_record_is_refused(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(read_text(f, text_of("%s\n%.*s", record(1), 200, record(2))), PARTNER_FILE_INVALID);
    complains(f, 2, "not valid JSON");
}

static void a_byte_order_mark_is_refused(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(read_text(f, text_of("\xef\xbb\xbf%s\n", record(1))), PARTNER_FILE_INVALID);
    complains(f, 1, "byte order mark");
    assert_int_equal(f->file.report.faults.total, 1);
}

static void a_partner_id_belongs_to_one_record(void **state)
{
    struct fixture *f = *state;
    char other[RECORD_LINE_MAX];
    (void)snprintf(other, sizeof other, "%s", record(2));
    memcpy(strstr(other, "partner-000002"), "partner-000001", 14);
    assert_int_equal(read_text(f, text_of("%s\n%s\n%s\n", record(1), record(3), other)),
                     PARTNER_FILE_INVALID);
    complains(f, 3, "partner_id \"partner-000001\" is used in line 1 already");
    assert_int_equal(f->file.records_rejected, 1);
}

/* A record whose current token is that of `owner`, or whose previous one is. */
static const char *record_with_token(unsigned number, const char *field, unsigned owner)
{
    static char out[RECORD_LINE_MAX];
    char digest[65];
    const char *from = strstr(record(owner), "client_token_sha256") + strlen("client_token_sha256\":\"");
    memcpy(digest, from, 64);
    (void)snprintf(out, sizeof out, "%s", record(number));
    memcpy(strstr(out, field) + strlen(field) + 3, digest, 64);
    return out;
}

static void a_token_belongs_to_one_partner(void **state)
{
    struct fixture *f = *state;
    const char *same = record_with_token(6, "client_token_sha256", 1);
    assert_int_equal(read_text(f, text_of("%s\n%s\n", record(1), same)), PARTNER_FILE_INVALID);
    complains(f, 2, "client_token_sha256 is the same as client_token_sha256 in line 1");
    same = record_with_token(5, "previous_token_sha256", 1);
    assert_int_equal(read_text(f, text_of("%s\n%s\n%s\n", same, record(2), record(1))), PARTNER_FILE_INVALID);
    complains(f, 3, "client_token_sha256 is the same as previous_token_sha256 in line 1");
}

static void a_record_with_two_faults_is_one_record(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(read_text(f, text_of("%s\n%s\n", record(1), record(1))), PARTNER_FILE_INVALID);
    assert_int_equal(f->file.report.faults.total, 2);
    assert_int_equal(f->file.records_rejected, 1);
}

static void a_line_has_a_limit(void **state)
{
    struct fixture *f = *state;
    size_t n = PARTNER_LINE_BYTES_MAX + 2;
    char *text = malloc(n);
    assert_non_null(text);
    memset(text, 'x', n);
    text[n - 1] = '\n';
    folder_write(f->folder, "partners.ndjson", text, n);
    free(text);
    assert_int_equal(read_again(f, NULL), PARTNER_FILE_INVALID);
    complains(f, 1, "longer than 16 MiB");
}

static void a_file_has_a_limit(void **state)
{
    struct fixture *f = *state;
    folder_write(f->folder, "partners.ndjson", "", 0);
    assert_int_equal(truncate(f->path, (off_t)PARTNER_FILE_BYTES_MAX + 1), 0);
    assert_int_equal(read_again(f, NULL), PARTNER_FILE_UNREADABLE);
    complains(f, 0, "larger than 256 MiB");
}

static void a_missing_file_is_unreadable(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(read_again(f, NULL), PARTNER_FILE_UNREADABLE);
    complains(f, 0, "No such file or directory");
    assert_false(f->file.seen.is_valid);
}

static void only_a_regular_file_is_read(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(mkfifo(f->path, 0600), 0);
    assert_int_equal(read_again(f, NULL), PARTNER_FILE_UNREADABLE);
    complains(f, 0, "no regular file");
    assert_int_equal(unlink(f->path), 0);
    assert_int_equal(mkdir(f->path, 0700), 0);
    assert_int_equal(read_again(f, NULL), PARTNER_FILE_UNREADABLE);
    complains(f, 0, "no regular file");
}

static void the_same_contents_are_not_read_again(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(read_text(f, text_of("%s\n", record(1))), PARTNER_FILE_LOADED);
    struct partner_file_seen last = f->file.seen;
    assert_false(last.is_settled); /* written just now: its times prove nothing */
    folder_write(f->folder, "other", text_of("%s\n", record(1)), strlen(record(1)) + 1);
    assert_int_equal(rename(folder_path(f->folder, "other"), f->path), 0);
    assert_int_equal(read_again(f, &last), PARTNER_FILE_UNCHANGED);
    assert_int_not_equal(f->file.seen.ino, last.ino);
}

static void other_contents_of_the_same_size_are_read(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(read_text(f, text_of("%s\n", record(2))), PARTNER_FILE_LOADED);
    struct partner_file_seen last = f->file.seen;
    char changed[RECORD_LINE_MAX];
    size_t n = record_line(2, 0, changed);
    memcpy(strstr(changed, "Company 2"), "Company 3", 9);
    folder_write(f->folder, "partners.ndjson", changed, n);
    assert_int_equal(read_again(f, &last), PARTNER_FILE_LOADED);
}

static void a_settled_file_is_not_hashed_again(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(read_text(f, text_of("%s\n", record(1))), PARTNER_FILE_LOADED);
    struct partner_file_seen last = f->file.seen;
    memset(last.digest, 0, sizeof last.digest); /* so that only stat(2) can call it unchanged */
    assert_int_equal(read_again(f, &last), PARTNER_FILE_LOADED);
    last.is_settled = true;
    assert_int_equal(read_again(f, &last), PARTNER_FILE_UNCHANGED);
}

static void a_cancelled_read_ends_early(void **state)
{
    struct fixture *f = *state;
    const atomic_bool cancelled = true;
    folder_write(f->folder, "partners.ndjson", "bad\n", 4);
    (void)partner_file_read(f->path, NULL, &cancelled, &f->file);
    assert_int_equal(f->file.report.faults.total, 0);
}

static void write_records(const char *path, unsigned n)
{
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    records_write(out, n, 0);
    assert_int_equal(fclose(out), 0);
}

static void ten_thousand_records_are_read(void **state)
{
    struct fixture *f = *state;
    write_records(f->path, 10000);
    if (read_again(f, NULL)) fail_msg("%s", f->file.report.faults.list[0].text);
    assert_int_equal(f->file.nentries, 10000);
    assert_string_equal(partner_file_id(&f->file.entries[9999]), "partner-009999");
}

struct replacing {
    const char *path, *next;
    atomic_bool over;
};

static void *replace_on_and_on(void *arg)
{
    struct replacing *r = arg;
    while (!atomic_load(&r->over)) {
        write_records(r->next, 1000);
        assert_int_equal(rename(r->next, r->path), 0);
    }
    return NULL;
}

/* It was whole all the time. What is there by then is read next. */
static void a_file_that_is_replaced_meanwhile_is_read(void **state)
{
    struct fixture *f = *state;
    char next[FOLDER_PATH_MAX];
    pthread_t thread;
    (void)snprintf(next, sizeof next, "%s", folder_path(f->folder, "partners.new"));
    struct replacing replacing = {.path = f->path, .next = next};
    write_records(f->path, 1000);
    assert_int_equal(pthread_create(&thread, NULL, replace_on_and_on, &replacing), 0);
    unsigned nread = 0;
    for (unsigned i = 0; i < 300; i++)
        nread += read_again(f, NULL) == PARTNER_FILE_LOADED && f->file.nentries == 1000;
    atomic_store(&replacing.over, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(nread, 300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(records_keep_their_order_and_lines, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_empty_file_has_no_records, set_up, tear_down),
        cmocka_unit_test_setup_teardown(one_bad_line_refuses_the_file, set_up, tear_down),
        cmocka_unit_test_setup_teardown(every_bad_line_is_reported, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_file_cut_inside_its_last_record_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_byte_order_mark_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_partner_id_belongs_to_one_record, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_token_belongs_to_one_partner, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_record_with_two_faults_is_one_record, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_line_has_a_limit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_file_has_a_limit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_missing_file_is_unreadable, set_up, tear_down),
        cmocka_unit_test_setup_teardown(only_a_regular_file_is_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_same_contents_are_not_read_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(other_contents_of_the_same_size_are_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_settled_file_is_not_hashed_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_cancelled_read_ends_early, set_up, tear_down),
        cmocka_unit_test_setup_teardown(ten_thousand_records_are_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_file_that_is_replaced_meanwhile_is_read, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
