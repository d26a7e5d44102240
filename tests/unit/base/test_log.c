/* The log with its real thread: files, rotation, outputs that are replaced, several writers. */
#include "helper_log.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static void lines_reach_their_file(void **state)
{
    struct log_files *f = *state;
    start_log(f->ops, f->access, RING_BYTES);
    log_info("hello", KV_STR("who", "a b"), KV_UINT("n", 3));
    log_warn("bare");
    access_line("{\"status\":200}\n");
    log_stop(STOP_WAIT_MS);

    char *ops = file_text(f->ops), *access = file_text(f->access);
    assert_non_null(strstr(ops, " level=info thread=control event=hello who=\"a b\" n=3\ntime="));
    assert_non_null(strstr(ops, " level=warn thread=control event=bare\n"));
    assert_int_equal(lines_count(ops), 2);
    assert_string_equal(access, "{\"status\":200}\n");
    free(ops);
    free(access);
}

static void idle_log_thread_is_woken(void **state)
{
    struct log_files *f = *state;
    start_log(f->ops, "off", RING_BYTES);
    for (int i = 0; i < 20; i++) {
        char want[32];
        (void)snprintf(want, sizeof want, "event=round n=%d\n", i);
        log_info("round", KV_INT("n", i));
        wait_for_text(f->ops, want); /* then it goes to sleep again */
    }
    log_stop(STOP_WAIT_MS);
}

static void files_are_not_for_everybody(void **state)
{
    struct log_files *f = *state;
    struct stat st;
    mode_t before = umask(0);
    start_log(f->ops, "", RING_BYTES);
    log_stop(STOP_WAIT_MS);
    umask(before);
    assert_int_equal(stat(f->ops, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
}

static void level_decides(void **state)
{
    struct log_files *f = *state;
    start_log(f->ops, "off", RING_BYTES);
    log_debug("too_fine");
    log_set_level(LOG_DEBUG);
    assert_true(log_enabled(LOG_DEBUG));
    log_debug("fine");
    log_set_level(LOG_ERROR);
    assert_int_equal(log_get_level(), LOG_ERROR);
    log_warn("too_mild");
    log_event(LOG_INFO, "whatever_the_level", (const struct kv[]){{.kind = KV_END}});
    log_error("grave");
    log_stop(STOP_WAIT_MS);
    log_set_level(LOG_INFO);

    char *ops = file_text(f->ops);
    assert_null(strstr(ops, "too_"));
    assert_non_null(strstr(ops, "event=fine\n"));
    assert_non_null(strstr(ops, "event=grave\n"));
    assert_non_null(strstr(ops, "event=whatever_the_level\n"));
    free(ops);
}

static void access_log_can_be_off(void **state)
{
    struct log_files *f = *state;
    start_log(f->ops, "off", RING_BYTES);
    assert_null(log_access_reserve(10));
    assert_int_equal(log_dropped_total(), 0);
    log_stop(STOP_WAIT_MS);
    assert_null(log_access_reserve(10));
}

static void output_that_cannot_be_opened_is_named(void **state)
{
    struct log_files *f = *state;
    char path[FOLDER_PATH_MAX + 32];
    struct errmsg why;
    (void)snprintf(path, sizeof path, "%s/missing/ops.log", f->folder);
    struct log_options o = {.ops_path = path, .access_path = "off", .ring_bytes = RING_BYTES};
    assert_int_equal(log_start(&o, &why), ERR_IO);
    assert_non_null(strstr(why.text, path));
    assert_non_null(strstr(why.text, "No such file or directory"));

    o = (struct log_options){.ops_path = f->ops, .access_path = path, .ring_bytes = RING_BYTES};
    assert_int_equal(log_start(&o, &why), ERR_IO);
    start_log(f->ops, "off", RING_BYTES); /* nothing is left behind that would be in the way */
    log_stop(STOP_WAIT_MS);
}

enum { WRITERS = 4, LINES_EACH = 2000 };

static void *writer_run(void *name)
{
    assert_int_equal(log_thread_attach(name), ERR_OK);
    for (int i = 0; i < LINES_EACH; i++) {
        log_info("work", KV_INT("i", i));
        access_line("{\"access\":true}\n");
    }
    return NULL;
}

/* Starts the writers and waits for their end. */
static void writers_run(void)
{
    static char names[WRITERS][4] = {"w0", "w1", "w2", "w3"};
    pthread_t threads[WRITERS];
    for (int i = 0; i < WRITERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, writer_run, names[i]), 0);
    for (int i = 0; i < WRITERS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
}

/* Every line is an access line or the next line of one of the writers. */
static void lines_are_whole(char *text, unsigned want)
{
    int next[WRITERS] = {0};
    unsigned n = 0;
    for (char *save, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save), n++) {
        int w, i, used = 0;
        if (strcmp(line, "{\"access\":true}") == 0) continue;
        if (sscanf(line, "time=%*s level=info thread=w%d event=work i=%d%n", &w, &i, &used) != 2 ||
            line[used])
            fail_msg("not a whole line: %s", line);
        assert_in_range(w, 0, WRITERS - 1);
        assert_int_equal(i, next[w]++);
    }
    assert_int_equal(n, want);
}

static void lines_of_each_thread_stay_in_order(void **state)
{
    struct log_files *f = *state;
    start_log(f->ops, f->access, RING_BYTES);
    writers_run();
    assert_int_equal(log_dropped_total(), 0);
    log_stop(STOP_WAIT_MS);

    char *ops = file_text(f->ops), *access = file_text(f->access);
    lines_are_whole(ops, WRITERS * LINES_EACH);
    lines_are_whole(access, WRITERS * LINES_EACH);
    free(ops);
    free(access);
}

static void streams_may_share_a_file(void **state)
{
    struct log_files *f = *state;
    start_log(f->ops, f->ops, RING_BYTES);
    writers_run();
    log_stop(STOP_WAIT_MS);
    char *text = file_text(f->ops);
    lines_are_whole(text, 2 * WRITERS * LINES_EACH);
    free(text);
}

static void reopen_follows_a_rename(void **state)
{
    struct log_files *f = *state;
    char old[sizeof f->ops + 2];
    (void)snprintf(old, sizeof old, "%s.1", f->ops);
    start_log(f->ops, "off", RING_BYTES);
    log_info("before");
    wait_for_text(f->ops, "event=before\n");
    assert_int_equal(rename(f->ops, old), 0);
    log_info("between");
    wait_for_text(old, "event=between\n");
    log_reopen();
    log_info("after");
    wait_for_text(f->ops, "event=after\n");
    log_stop(STOP_WAIT_MS);
}

static void failed_reopen_keeps_the_old_file(void **state)
{
    struct log_files *f = *state;
    char folder[FOLDER_PATH_MAX + 8], moved[FOLDER_PATH_MAX + 8], path[FOLDER_PATH_MAX + 16];
    (void)snprintf(folder, sizeof folder, "%s/logs", f->folder);
    (void)snprintf(moved, sizeof moved, "%s/moved", f->folder);
    (void)snprintf(path, sizeof path, "%s/ops.log", folder);
    assert_int_equal(mkdir(folder, 0700), 0);
    start_log(path, "off", RING_BYTES);
    assert_int_equal(rename(folder, moved), 0);
    log_reopen();
    (void)snprintf(path, sizeof path, "%s/ops.log", moved);
    wait_for_text(path, "level=error thread=log event=log_reopen_failed");
    log_info("still_here");
    log_stop(STOP_WAIT_MS);
    wait_for_text(path, "event=still_here\n");
}

static void thread_without_a_ring_writes_to_stderr(void **state)
{
    struct log_files *f = *state;
    int saved = dup(STDERR_FILENO), fd = open(f->ops, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(saved >= 0 && fd >= 0);
    assert_true(dup2(fd, STDERR_FILENO) >= 0);
    log_info("early", KV_UINT("n", 1));
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    (void)close(saved);
    (void)close(fd);
    char *text = file_text(f->ops);
    assert_non_null(strstr(text, " level=info thread=- event=early n=1\n"));
    free(text);
}

static void stop_and_start_again(void **state)
{
    struct log_files *f = *state;
    log_stop(STOP_WAIT_MS); /* not started: nothing happens */
    for (int i = 0; i < 3; i++) {
        start_log(f->ops, "off", RING_BYTES);
        log_info("round", KV_INT("n", i));
        log_stop(STOP_WAIT_MS);
    }
    char *text = file_text(f->ops);
    assert_int_equal(lines_count(text), 3);
    free(text);
}

static void threads_are_limited(void **state)
{
    struct log_files *f = *state;
    start_log(f->ops, "off", 0);
    for (int i = 1; i < LOG_THREADS_MAX; i++)
        assert_int_equal(log_thread_attach("many"), ERR_OK);
    assert_int_equal(log_thread_attach("many"), ERR_LIMIT);
    log_stop(STOP_WAIT_MS);
}

static void replace_outputs(const char *ops, const char *access)
{
    struct errmsg why;
    struct log_outputs *outputs;
    if (log_outputs_open(ops, access, &outputs, &why)) fail_msg("%s", why.text);
    log_outputs_use(outputs);
}

/* Apart, together, off, and back: each line is in the file of its time. */
static void outputs_are_replaced(void **state)
{
    struct log_files *f = *state;
    char other[FOLDER_PATH_MAX + 16];
    (void)snprintf(other, sizeof other, "%s/other.log", f->folder);
    start_log(f->ops, f->access, RING_BYTES);
    access_line("{\"n\":1}\n");
    wait_for_text(f->access, "{\"n\":1}\n");
    replace_outputs(other, other);
    log_info("first_there");
    wait_for_text(other, "first_there");
    access_line("{\"n\":2}\n");
    wait_for_text(other, "{\"n\":2}\n");
    replace_outputs(other, "off");
    log_info("access_is_off");
    wait_for_text(other, "access_is_off");
    assert_null(log_access_reserve(16));
    log_info("last_there"); /* the log thread waits for more to write together: both lines are in the ring */
    replace_outputs(f->ops, f->access);
    log_info("back");
    wait_for_text(f->ops, "back");
    access_line("{\"n\":3}\n");
    log_stop(STOP_WAIT_MS);
    char *access = file_text(f->access), *ops = file_text(f->ops);
    assert_string_equal(access, "{\"n\":1}\n{\"n\":3}\n");
    assert_null(strstr(ops, "there"));
    free(access);
    free(ops);
    wait_for_text(other, "last_there");
    char *before = file_text(other);
    assert_null(strstr(before, "back"));
    free(before);
}

static void outputs_that_cannot_be_opened_change_nothing(void **state)
{
    struct log_files *f = *state;
    struct errmsg why;
    struct log_outputs *outputs;
    start_log(f->ops, f->access, RING_BYTES);
    assert_int_equal(log_outputs_open(f->ops, "/no/such/folder/x", &outputs, &why), ERR_IO);
    assert_non_null(strstr(why.text, "/no/such/folder/x"));
    assert_int_equal(log_outputs_open(f->ops, "off", &outputs, &why), ERR_OK);
    log_outputs_discard(outputs);
    log_outputs_discard(NULL);
    access_line("{}\n");
    wait_for_text(f->access, "{}\n");
    log_stop(STOP_WAIT_MS);
}

#define LOG_TEST(f) cmocka_unit_test_setup_teardown(f, log_files_setup, log_files_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOG_TEST(lines_reach_their_file),
        LOG_TEST(idle_log_thread_is_woken),
        LOG_TEST(files_are_not_for_everybody),
        LOG_TEST(level_decides),
        LOG_TEST(outputs_are_replaced),
        LOG_TEST(outputs_that_cannot_be_opened_change_nothing),
        LOG_TEST(access_log_can_be_off),
        LOG_TEST(output_that_cannot_be_opened_is_named),
        LOG_TEST(lines_of_each_thread_stay_in_order),
        LOG_TEST(streams_may_share_a_file),
        LOG_TEST(reopen_follows_a_rename),
        LOG_TEST(failed_reopen_keeps_the_old_file),
        LOG_TEST(thread_without_a_ring_writes_to_stderr),
        LOG_TEST(stop_and_start_again),
        LOG_TEST(threads_are_limited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
