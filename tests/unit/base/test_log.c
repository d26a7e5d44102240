/* The log with its real thread: files, pipes that nobody reads, full disks, rotation, several writers. */
#include "base/log.h"

#include "helper_files.h"

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

enum { RING_BYTES = 1 << 20, STOP_WAIT_MS = 10000 };

struct fixture {
    char folder[TEST_PATH_MAX];
    char ops[TEST_PATH_MAX + 16];
    char access[TEST_PATH_MAX + 16];
};

static int fixture_make(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    test_folder_make(f->folder);
    (void)snprintf(f->ops, sizeof f->ops, "%s/ops.log", f->folder);
    (void)snprintf(f->access, sizeof f->access, "%s/access.log", f->folder);
    *state = f;
    return 0;
}

static int fixture_free(void **state)
{
    struct fixture *f = *state;
    test_folder_remove(f->folder);
    free(f);
    return 0;
}

static void start(const char *ops, const char *access, size_t ring_bytes)
{
    struct errmsg why;
    struct log_options o = {
        .ops_path = ops, .access_path = access, .level = LOG_INFO, .ring_bytes = ring_bytes};
    if (log_start(&o, &why)) fail_msg("%s", why.text);
}

static void access_line(const char *text)
{
    char *room = log_access_reserve(strlen(text));
    assert_non_null(room);
    memcpy(room, text, strlen(text));
    log_access_commit(strlen(text));
}

static unsigned lines_count(const char *text)
{
    unsigned n = 0;
    while ((text = strchr(text, '\n')))
        n++, text++;
    return n;
}

/* A condition for test_wait_until(): `path` contains `text`. */
struct file_text {
    const char *path, *text;
};

static bool file_has(void *arg)
{
    struct file_text *want = arg;
    char *text = test_file_read(want->path);
    bool has = strstr(text, want->text);
    free(text);
    return has;
}

static void wait_for_text(const char *path, const char *text)
{
    test_wait_until(file_has, &(struct file_text){path, text}, text);
}

static void lines_reach_their_file(void **state)
{
    struct fixture *f = *state;
    start(f->ops, f->access, RING_BYTES);
    log_info("hello", KV_STR("who", "a b"), KV_UINT("n", 3));
    log_warn("bare");
    access_line("{\"status\":200}\n");
    log_stop(STOP_WAIT_MS);

    char *ops = test_file_read(f->ops), *access = test_file_read(f->access);
    assert_non_null(strstr(ops, " level=info thread=control event=hello who=\"a b\" n=3\ntime="));
    assert_non_null(strstr(ops, " level=warn thread=control event=bare\n"));
    assert_int_equal(lines_count(ops), 2);
    assert_string_equal(access, "{\"status\":200}\n");
    free(ops);
    free(access);
}

static void idle_log_thread_is_woken(void **state)
{
    struct fixture *f = *state;
    start(f->ops, "off", RING_BYTES);
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
    struct fixture *f = *state;
    struct stat st;
    mode_t before = umask(0);
    start(f->ops, "", RING_BYTES);
    log_stop(STOP_WAIT_MS);
    umask(before);
    assert_int_equal(stat(f->ops, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
}

static void level_decides(void **state)
{
    struct fixture *f = *state;
    start(f->ops, "off", RING_BYTES);
    log_debug("too_fine");
    log_set_level(LOG_DEBUG);
    assert_true(log_enabled(LOG_DEBUG));
    log_debug("fine");
    log_set_level(LOG_ERROR);
    log_warn("too_mild");
    log_error("grave");
    log_stop(STOP_WAIT_MS);
    log_set_level(LOG_INFO);

    char *ops = test_file_read(f->ops);
    assert_null(strstr(ops, "too_"));
    assert_non_null(strstr(ops, "event=fine\n"));
    assert_non_null(strstr(ops, "event=grave\n"));
    free(ops);
}

static void access_log_can_be_off(void **state)
{
    struct fixture *f = *state;
    start(f->ops, "off", RING_BYTES);
    assert_null(log_access_reserve(10));
    assert_int_equal(log_dropped_total(), 0);
    log_stop(STOP_WAIT_MS);
    assert_null(log_access_reserve(10));
}

static void output_that_cannot_be_opened_is_named(void **state)
{
    struct fixture *f = *state;
    char path[TEST_PATH_MAX + 32];
    struct errmsg why;
    (void)snprintf(path, sizeof path, "%s/missing/ops.log", f->folder);
    struct log_options o = {.ops_path = path, .access_path = "off", .ring_bytes = RING_BYTES};
    assert_int_equal(log_start(&o, &why), ERR_IO);
    assert_non_null(strstr(why.text, path));
    assert_non_null(strstr(why.text, "No such file or directory"));

    o = (struct log_options){.ops_path = f->ops, .access_path = path, .ring_bytes = RING_BYTES};
    assert_int_equal(log_start(&o, &why), ERR_IO);
    start(f->ops, "off", RING_BYTES); /* nothing is left behind that would be in the way */
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
    struct fixture *f = *state;
    start(f->ops, f->access, RING_BYTES);
    writers_run();
    assert_int_equal(log_dropped_total(), 0);
    log_stop(STOP_WAIT_MS);

    char *ops = test_file_read(f->ops), *access = test_file_read(f->access);
    lines_are_whole(ops, WRITERS * LINES_EACH);
    lines_are_whole(access, WRITERS * LINES_EACH);
    free(ops);
    free(access);
}

static void streams_may_share_a_file(void **state)
{
    struct fixture *f = *state;
    start(f->ops, f->ops, RING_BYTES);
    writers_run();
    log_stop(STOP_WAIT_MS);
    char *text = test_file_read(f->ops);
    lines_are_whole(text, 2 * WRITERS * LINES_EACH);
    free(text);
}

static void reopen_follows_a_rename(void **state)
{
    struct fixture *f = *state;
    char old[sizeof f->ops + 2];
    (void)snprintf(old, sizeof old, "%s.1", f->ops);
    start(f->ops, "off", RING_BYTES);
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
    struct fixture *f = *state;
    char folder[TEST_PATH_MAX + 8], moved[TEST_PATH_MAX + 8], path[TEST_PATH_MAX + 16];
    (void)snprintf(folder, sizeof folder, "%s/logs", f->folder);
    (void)snprintf(moved, sizeof moved, "%s/moved", f->folder);
    (void)snprintf(path, sizeof path, "%s/ops.log", folder);
    assert_int_equal(mkdir(folder, 0700), 0);
    start(path, "off", RING_BYTES);
    assert_int_equal(rename(folder, moved), 0);
    log_reopen();
    (void)snprintf(path, sizeof path, "%s/ops.log", moved);
    wait_for_text(path, "level=error thread=log event=log_reopen_failed");
    log_info("still_here");
    log_stop(STOP_WAIT_MS);
    wait_for_text(path, "event=still_here\n");
}

/* Standard output becomes a pipe, as it is in a container; cmocka prints only between tests. */
struct captured {
    int saved, read_end;
};

static struct captured stdout_capture(void)
{
    struct captured c;
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    (void)fflush(stdout);
    c.saved = dup(STDOUT_FILENO);
    c.read_end = fds[0];
    assert_true(c.saved >= 0 && dup2(fds[1], STDOUT_FILENO) >= 0);
    (void)close(fds[1]);
    return c;
}

static void stdout_release(struct captured *c)
{
    assert_true(dup2(c->saved, STDOUT_FILENO) >= 0);
    (void)close(c->saved);
    if (c->read_end >= 0) (void)close(c->read_end);
}

enum { TOO_MANY_LINES = 20000 }; /* about 2 MB: more than pipe, queue and the smallest ring together */

static bool has_dropped(void *unused)
{
    (void)unused;
    return log_dropped_total() > 0;
}

static void blocked_pipe_stops_nobody_and_is_counted(void **state)
{
    (void)state;
    struct captured out = stdout_capture();
    start("stdout", "off", 0);
    for (int i = 0; i < TOO_MANY_LINES; i++)
        log_info("flood", KV_INT("i", i)); /* returns: nothing waits */
    test_wait_until(has_dropped, NULL, "drops");
    log_stop(0); /* returns although the pipe is full */
    stdout_release(&out);
}

static void *pipe_read_all(void *arg)
{
    int fd = *(int *)arg;
    size_t n = 0, cap = 8 << 20;
    char *text = malloc(cap);
    assert_non_null(text);
    for (ssize_t got; (got = read(fd, text + n, cap - n - 1)) > 0;)
        n += (size_t)got;
    text[n] = '\0';
    return text;
}

static void drops_are_said_when_the_pipe_moves_again(void **state)
{
    (void)state;
    struct captured out = stdout_capture();
    start("stdout", "off", 0);
    for (int i = 0; i < TOO_MANY_LINES; i++)
        log_info("flood", KV_INT("i", i));
    test_wait_until(has_dropped, NULL, "drops");

    pthread_t reader;
    void *result;
    assert_int_equal(pthread_create(&reader, NULL, pipe_read_all, &out.read_end), 0);
    log_stop(STOP_WAIT_MS);
    assert_true(dup2(out.saved, STDOUT_FILENO) >= 0); /* the last write end: the reader comes to the end */
    assert_int_equal(pthread_join(reader, &result), 0);
    char *text = result;
    unsigned flood = 0;
    for (char *at = text; (at = strstr(at, "event=flood ")); at++)
        flood++;
    assert_in_range(flood, 100, TOO_MANY_LINES - 1);
    assert_non_null(strstr(text, " level=warn thread=log event=log_dropped lines="));
    free(text);
    stdout_release(&out);
}

/* The ring is still full of access lines for a moment, so the first try may be one of the drops. */
static bool operations_line_arrives(void *path)
{
    log_info("alive");
    return file_has(&(struct file_text){path, "event=alive\n"});
}

static void stuck_access_log_leaves_operations_running(void **state)
{
    struct fixture *f = *state;
    struct captured out = stdout_capture();
    start(f->ops, "stdout", RING_BYTES);
    for (int i = 0; i < TOO_MANY_LINES; i++) {
        char *room = log_access_reserve(100);
        if (!room) continue;
        memset(room, 'a', 99);
        room[99] = '\n';
        log_access_commit(100);
    }
    test_wait_until(has_dropped, NULL, "drops");
    test_wait_until(operations_line_arrives, f->ops, "an operations line");
    wait_for_text(f->ops, "event=log_dropped lines=");
    log_stop(0);
    stdout_release(&out);
}

static bool has_write_error(void *unused)
{
    (void)unused;
    return log_write_errors_total() > 0;
}

static void full_disk_is_counted(void **state)
{
    (void)state;
    if (access("/dev/full", W_OK)) skip();
    start("/dev/full", "off", RING_BYTES);
    log_info("lost");
    test_wait_until(has_write_error, NULL, "a write error");
    assert_int_equal(log_dropped_total(), 1);
    log_stop(STOP_WAIT_MS);
}

/* An operations log that cannot be written says so where it still can. */
static void full_disk_is_told_on_stderr(void **state)
{
    struct fixture *f = *state;
    if (access("/dev/full", W_OK)) skip();
    int saved = dup(STDERR_FILENO), fd = open(f->ops, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(saved >= 0 && fd >= 0);
    assert_true(dup2(fd, STDERR_FILENO) >= 0);
    start("/dev/full", "off", RING_BYTES);
    log_info("lost");
    wait_for_text(f->ops, "level=error thread=log event=log_write_failed path=/dev/full text=");
    log_info("lost too");
    log_stop(STOP_WAIT_MS);
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    (void)close(saved);
    (void)close(fd);
    char *text = test_file_read(f->ops);
    assert_null(strstr(strstr(text, "log_write_failed") + 1, "log_write_failed")); /* once */
    free(text);
}

static void full_access_log_is_told_in_the_operations_log(void **state)
{
    struct fixture *f = *state;
    if (access("/dev/full", W_OK)) skip();
    start(f->ops, "/dev/full", RING_BYTES);
    char *room = log_access_reserve(2);
    assert_non_null(room);
    memcpy(room, "a\n", 2);
    log_access_commit(2);
    wait_for_text(f->ops, "level=error thread=log event=log_write_failed path=/dev/full text=");
    log_stop(STOP_WAIT_MS);
}

static void broken_pipe_is_counted_and_survived(void **state)
{
    (void)state;
    struct captured out = stdout_capture();
    (void)close(out.read_end);
    out.read_end = -1;
    start("stdout", "off", RING_BYTES);
    log_info("lost");
    test_wait_until(has_write_error, NULL, "a write error");
    log_stop(STOP_WAIT_MS);
    stdout_release(&out);
}

static void thread_without_a_ring_writes_to_stderr(void **state)
{
    struct fixture *f = *state;
    int saved = dup(STDERR_FILENO), fd = open(f->ops, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(saved >= 0 && fd >= 0);
    assert_true(dup2(fd, STDERR_FILENO) >= 0);
    log_info("early", KV_UINT("n", 1));
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    (void)close(saved);
    (void)close(fd);
    char *text = test_file_read(f->ops);
    assert_non_null(strstr(text, " level=info thread=- event=early n=1\n"));
    free(text);
}

static void stop_and_start_again(void **state)
{
    struct fixture *f = *state;
    log_stop(STOP_WAIT_MS); /* not started: nothing happens */
    for (int i = 0; i < 3; i++) {
        start(f->ops, "off", RING_BYTES);
        log_info("round", KV_INT("n", i));
        log_stop(STOP_WAIT_MS);
    }
    char *text = test_file_read(f->ops);
    assert_int_equal(lines_count(text), 3);
    free(text);
}

static void threads_are_limited(void **state)
{
    struct fixture *f = *state;
    start(f->ops, "off", 0);
    for (int i = 1; i < 256; i++)
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
    struct fixture *f = *state;
    char other[TEST_PATH_MAX + 16];
    (void)snprintf(other, sizeof other, "%s/other.log", f->folder);
    start(f->ops, f->access, RING_BYTES);
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
    char *access = test_file_read(f->access), *ops = test_file_read(f->ops);
    assert_string_equal(access, "{\"n\":1}\n{\"n\":3}\n");
    assert_null(strstr(ops, "there"));
    free(access);
    free(ops);
    wait_for_text(other, "last_there");
    char *before = test_file_read(other);
    assert_null(strstr(before, "back"));
    free(before);
}

static void outputs_that_cannot_be_opened_change_nothing(void **state)
{
    struct fixture *f = *state;
    struct errmsg why;
    struct log_outputs *outputs;
    start(f->ops, f->access, RING_BYTES);
    assert_int_equal(log_outputs_open(f->ops, "/no/such/folder/x", &outputs, &why), ERR_IO);
    assert_non_null(strstr(why.text, "/no/such/folder/x"));
    assert_int_equal(log_outputs_open(f->ops, "off", &outputs, &why), ERR_OK);
    log_outputs_discard(outputs);
    log_outputs_discard(NULL);
    access_line("{}\n");
    wait_for_text(f->access, "{}\n");
    log_stop(STOP_WAIT_MS);
}

#define LOG_TEST(f) cmocka_unit_test_setup_teardown(f, fixture_make, fixture_free)

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
        LOG_TEST(blocked_pipe_stops_nobody_and_is_counted),
        LOG_TEST(drops_are_said_when_the_pipe_moves_again),
        LOG_TEST(stuck_access_log_leaves_operations_running),
        LOG_TEST(full_disk_is_counted),
        LOG_TEST(full_disk_is_told_on_stderr),
        LOG_TEST(full_access_log_is_told_in_the_operations_log),
        LOG_TEST(broken_pipe_is_counted_and_survived),
        LOG_TEST(thread_without_a_ring_writes_to_stderr),
        LOG_TEST(stop_and_start_again),
        LOG_TEST(threads_are_limited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
