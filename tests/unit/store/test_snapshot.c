/* The snapshot file: whole or not at all. */
#include "support/folder.h"
#include "store/snapshot.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { RECORDS = 200 };

struct fixture {
    char folder[FOLDER_PATH_MAX];
    const char *path;
    char *bytes; /* of a good file */
    size_t n;
    unsigned ntaken;
    uint64_t nexpected; /* told before the first */
    uint64_t versions;  /* their sum */
    uint64_t announced; /* version of the record that is to come, or 0 */
    unsigned nannounced;
};

static const struct snapshot_head head = {
    .saved_at_ms = 1800000000000, .sequence = 500, .nonce = "n500", .epoch = "e1", .tag = "cfg"};
static const struct snapshot_foot foot = {.exact_from = 510, .count_bias = -3, .digest_bias = 77};

static void write_snapshot(const char *path, unsigned n)
{
    struct snapshot_writer *w;
    struct errmsg why;
    assert_int_equal(snapshot_create(path, &head, &w, &why), ERR_OK);
    for (unsigned i = 0; i < n; i++) {
        char id[16];
        struct bytes b = {0};
        snprintf(id, sizeof id, "p%u", i);
        assert_int_equal(packed_add_bare(&b, span_str(id), i + 1, PACKED_REFUSED), ERR_OK);
        assert_int_equal(snapshot_append(w, span_of(b.p, b.n), &why), ERR_OK);
        bytes_deinit(&b);
    }
    assert_int_equal(snapshot_commit(w, &foot, &why), ERR_OK);
}

static enum err take(const struct packed *r, void *arg)
{
    struct fixture *f = arg;
    f->ntaken++;
    f->versions += r->version;
    return ERR_OK;
}

static void announce(const struct packed *r, void *arg)
{
    struct fixture *f = arg;
    f->announced = r->version;
    f->nannounced++;
}

/* The records have their number as version. */
static enum err take_announced(const struct packed *r, void *arg)
{
    struct fixture *f = arg;
    assert_int_equal(f->announced, r->version < RECORDS ? r->version + 1 : RECORDS);
    return take(r, arg);
}

static void begin(uint64_t nrecords, void *arg)
{
    struct fixture *f = arg;
    assert_int_equal(f->ntaken, 0);
    f->nexpected = nrecords;
}

static enum err load(struct fixture *f, const char *tag, struct errmsg *why)
{
    struct snapshot_head h;
    struct snapshot_foot t;
    f->ntaken = 0;
    f->versions = 0;
    f->nexpected = 0;
    const struct snapshot_sink sink = {.begin = begin, .record = take, .arg = f};
    enum err e = snapshot_load(f->path, tag, &sink, &h, &t, why);
    if (!e) assert_int_equal(f->nexpected, f->ntaken);
    return e;
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    folder_make(f->folder);
    f->path = strdup(folder_path(f->folder, "snapshot"));
    write_snapshot(f->path, RECORDS);
    FILE *in = fopen(f->path, "r");
    assert_non_null(in);
    f->bytes = malloc(1 << 20);
    assert_non_null(f->bytes);
    f->n = fread(f->bytes, 1, 1 << 20, in);
    fclose(in);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    folder_remove(f->folder);
    free((char *)(uintptr_t)f->path);
    free(f->bytes);
    free(f);
    return 0;
}

static void put_file(struct fixture *f, const char *bytes, size_t n)
{
    (void)unlink(f->path);
    folder_write(f->folder, "snapshot", bytes, n);
    assert_int_equal(chmod(f->path, 0600), 0);
}

static void assert_refused(struct fixture *f, const char *tag, enum err expected, const char *problem)
{
    struct errmsg why;
    assert_int_equal(load(f, tag, &why), expected);
    if (!strstr(why.text, problem)) fail_msg("\"%s\", not %s", why.text, problem);
    assert_int_equal(f->ntaken, 0);
}

static void test_comes_back(void **state)
{
    struct fixture *f = *state;
    struct snapshot_head h;
    struct snapshot_foot t;
    struct errmsg why;
    assert_int_equal(
        snapshot_load(f->path, "cfg", &(struct snapshot_sink){.record = take, .arg = f}, &h, &t, &why),
        ERR_OK);
    assert_int_equal(f->ntaken, RECORDS);
    assert_int_equal(f->versions, RECORDS * (RECORDS + 1) / 2);
    assert_memory_equal(&h, &head, sizeof h);
    assert_memory_equal(&t, &foot, sizeof t);
}

/* Each record but the first is announced before the one before it is handed out. */
static void test_announces(void **state)
{
    struct fixture *f = *state;
    struct snapshot_head h;
    struct snapshot_foot t;
    struct errmsg why;
    const struct snapshot_sink sink = {.record = take_announced, .announce = announce, .arg = f};
    assert_int_equal(snapshot_load(f->path, "cfg", &sink, &h, &t, &why), ERR_OK);
    assert_int_equal(f->ntaken, RECORDS);
    assert_int_equal(f->nannounced, RECORDS - 1);
}

static void test_only_for_its_owner(void **state)
{
    struct fixture *f = *state;
    struct stat st;
    assert_int_equal(stat(f->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(access(folder_path(f->folder, "snapshot.tmp"), F_OK), -1);
}

static void test_an_empty_one(void **state)
{
    struct fixture *f = *state;
    struct errmsg why;
    write_snapshot(f->path, 0);
    assert_int_equal(load(f, "cfg", &why), ERR_OK);
    assert_int_equal(f->ntaken, 0);
}

static void test_an_aborted_one_leaves_the_old(void **state)
{
    struct fixture *f = *state;
    struct snapshot_writer *w;
    struct errmsg why;
    assert_int_equal(snapshot_create(f->path, &head, &w, &why), ERR_OK);
    snapshot_abort(w);
    assert_int_equal(access(folder_path(f->folder, "snapshot.tmp"), F_OK), -1);
    assert_int_equal(load(f, "cfg", &why), ERR_OK);
    assert_int_equal(f->ntaken, RECORDS);
}

static void test_a_leftover_does_no_harm(void **state)
{
    struct fixture *f = *state;
    struct errmsg why;
    struct stat st;
    assert_int_equal(symlink("/etc/passwd", folder_path(f->folder, "snapshot.tmp")), 0);
    assert_int_equal(unlink(folder_path(f->folder, "snapshot.lock")), 0);
    assert_int_equal(symlink("/etc/passwd", folder_path(f->folder, "snapshot.lock")), 0);
    write_snapshot(f->path, 3);
    assert_int_equal(load(f, "cfg", &why), ERR_OK);
    assert_int_equal(f->ntaken, 3);
    assert_int_equal(lstat(folder_path(f->folder, "snapshot.lock"), &st), 0);
    assert_true(S_ISREG(st.st_mode));
}

/* While one gateway takes over from another, both follow the same changes and write at the same time. */
static void test_one_writes_at_a_time(void **state)
{
    struct fixture *f = *state;
    struct snapshot_writer *w, *other;
    struct errmsg why;
    assert_int_equal(snapshot_create(f->path, &head, &w, &why), ERR_OK);
    assert_int_equal(snapshot_create(f->path, &head, &other, &why), ERR_AGAIN);
    assert_non_null(strstr(why.text, "another gateway"));
    assert_int_equal(snapshot_commit(w, &foot, &why), ERR_OK);
    assert_int_equal(load(f, "cfg", &why), ERR_OK);
    assert_int_equal(f->ntaken, 0);
    write_snapshot(f->path, 3);
    assert_int_equal(load(f, "cfg", &why), ERR_OK);
    assert_int_equal(f->ntaken, 3);
}

static void test_every_changed_byte_is_found(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < f->n; i += i < 400 || i > f->n - 200 ? 1 : 37) {
        struct errmsg why;
        f->bytes[i] = (char)(f->bytes[i] ^ 0x10);
        put_file(f, f->bytes, f->n);
        if (load(f, "cfg", &why) != ERR_PARSE || f->ntaken) fail_msg("byte %zu: %s", i, why.text);
        f->bytes[i] = (char)(f->bytes[i] ^ 0x10);
    }
}

static void test_every_cut_is_found(void **state)
{
    struct fixture *f = *state;
    for (size_t n = 0; n < f->n; n += 100) {
        put_file(f, f->bytes, n);
        assert_refused(f, "cfg", ERR_PARSE, "snapshot");
    }
    put_file(f, f->bytes, f->n - 1);
    assert_refused(f, "cfg", ERR_PARSE, "checksum");
}

static void test_more_than_there_should_be(void **state)
{
    struct fixture *f = *state;
    f->bytes[f->n] = 0;
    put_file(f, f->bytes, f->n + 1);
    assert_refused(f, "cfg", ERR_PARSE, "checksum");
}

static void test_of_another_tag(void **state)
{
    struct fixture *f = *state;
    assert_refused(f, "staging", ERR_PARSE, "the tag \"cfg\", not of \"staging\"");
}

static void test_of_a_newer_program(void **state)
{
    struct fixture *f = *state;
    f->bytes[8] = 2;
    put_file(f, f->bytes, f->n);
    assert_refused(f, "cfg", ERR_PARSE, "written by another version of the program");
}

static void test_something_else(void **state)
{
    struct fixture *f = *state;
    memset(f->bytes, 'x', f->n);
    put_file(f, f->bytes, f->n);
    assert_refused(f, "cfg", ERR_PARSE, "no snapshot of this program");
}

static void test_others_may_write_it(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(chmod(f->path, 0620), 0);
    assert_refused(f, "cfg", ERR_PARSE, "others may write it");
}

static void test_there_is_none(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(unlink(f->path), 0);
    assert_refused(f, "cfg", ERR_NOT_FOUND, "No such file");
}

static void test_a_folder_in_its_place(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(unlink(f->path), 0);
    assert_int_equal(mkdir(f->path, 0700), 0);
    assert_refused(f, "cfg", ERR_PARSE, "no regular file");
}

static void test_no_folder_to_write_to(void **state)
{
    struct fixture *f = *state;
    struct snapshot_writer *w = NULL;
    struct errmsg why;
    assert_int_equal(snapshot_create(folder_path(f->folder, "none/snapshot"), &head, &w, &why), ERR_IO);
    assert_non_null(strstr(why.text, "cannot be made"));
    assert_null(w);
}

/* A record that its user does not want ends the reading. */
static enum err refuse(const struct packed *r, void *arg)
{
    (void)r, (void)arg;
    return ERR_NOMEM;
}

static void test_an_error_of_the_user(void **state)
{
    struct fixture *f = *state;
    struct snapshot_head h;
    struct snapshot_foot t;
    struct errmsg why;
    assert_int_equal(snapshot_load(f->path, "cfg", &(struct snapshot_sink){.record = refuse}, &h, &t, &why),
                     ERR_NOMEM);
}

#define SNAPSHOT_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SNAPSHOT_TEST(test_comes_back),
        SNAPSHOT_TEST(test_announces),
        SNAPSHOT_TEST(test_only_for_its_owner),
        SNAPSHOT_TEST(test_an_empty_one),
        SNAPSHOT_TEST(test_an_aborted_one_leaves_the_old),
        SNAPSHOT_TEST(test_a_leftover_does_no_harm),
        SNAPSHOT_TEST(test_one_writes_at_a_time),
        SNAPSHOT_TEST(test_every_changed_byte_is_found),
        SNAPSHOT_TEST(test_every_cut_is_found),
        SNAPSHOT_TEST(test_more_than_there_should_be),
        SNAPSHOT_TEST(test_of_another_tag),
        SNAPSHOT_TEST(test_of_a_newer_program),
        SNAPSHOT_TEST(test_something_else),
        SNAPSHOT_TEST(test_others_may_write_it),
        SNAPSHOT_TEST(test_there_is_none),
        SNAPSHOT_TEST(test_a_folder_in_its_place),
        SNAPSHOT_TEST(test_no_folder_to_write_to),
        SNAPSHOT_TEST(test_an_error_of_the_user),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
