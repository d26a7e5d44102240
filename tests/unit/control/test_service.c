/* The watchdog: it is fed only when every worker has answered since the last time.
 *
 * The workers here are loops without a thread: a worker that hangs is one whose loop is not run. */
#include "base/clock.h"
#include "base/metrics.h"
#include "control/handover.h"
#include "control/notify.h"
#include "control/service.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

enum { WORKERS = 2, BUFFER_BYTES = 64 * 1024, PATIENCE_MS = 10000, INTERVAL_MS = 100 };

struct test {
    struct loop loop; /* control's */
    struct worker workers[WORKERS];
    struct worker *list[WORKERS];
    struct service service;
    struct deployment deployment;
    struct drain drain;
    struct status status;
    int manager; /* the service manager's end */
};

/* An abstract name of the kernel's choice, as NOTIFY_SOCKET says it. */
static int open_manager(void)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    socklen_t n = sizeof a.sun_family;
    char text[sizeof a.sun_path + 1] = "@";
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, n), 0);
    n = sizeof a;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    size_t length = n - offsetof(struct sockaddr_un, sun_path) - 1;
    memcpy(text + 1, a.sun_path + 1, length);
    text[1 + length] = 0;
    assert_int_equal(setenv("NOTIFY_SOCKET", text, 1), 0);
    assert_int_equal(setenv("WATCHDOG_USEC", "200000", 1), 0);
    return fd;
}

static int setup(void **state)
{
    struct test *t = calloc(1, sizeof *t);
    assert_non_null(t);
    t->manager = open_manager();
    notify_init();
    assert_int_equal(notify_watchdog_ms(), INTERVAL_MS);
    assert_int_equal(loop_init(&t->loop, BUFFER_BYTES, NULL), ERR_OK);
    for (unsigned i = 0; i < WORKERS; i++) {
        assert_int_equal(loop_init(&t->workers[i].loop, BUFFER_BYTES, NULL), ERR_OK);
        t->list[i] = &t->workers[i];
    }
    t->deployment.loop = &t->loop;
    drain_init(&t->drain, &t->loop, &t->deployment.fleet, NULL, NULL);
    t->status = (struct status){.policy = policy_create(), .deployment = &t->deployment, .drain = &t->drain};
    assert_non_null(t->status.policy);
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct test *t = *state;
    service_close(&t->service);
    for (unsigned i = 0; i < WORKERS; i++) {
        loop_close(&t->workers[i].loop); /* answers what it was asked last */
        loop_run(&t->workers[i].loop);
        loop_deinit(&t->workers[i].loop);
    }
    loop_close(&t->loop);
    loop_run(&t->loop);
    loop_deinit(&t->loop);
    policy_destroy((struct policy *)(uintptr_t)t->status.policy);
    notify_deinit();
    close(t->manager);
    free(t);
    return 0;
}

/* Messages with this text among those that have come. */
static unsigned heard(struct test *t, const char *text)
{
    char message[1024];
    unsigned n = 0;
    for (ssize_t got; (got = recv(t->manager, message, sizeof message - 1, 0)) > 0;) {
        message[got] = 0;
        if (strstr(message, text)) n++;
    }
    return n;
}

/* Runs control, and the first `nworkers` workers, for a while. */
static void run_for(struct test *t, unsigned nworkers, uint64_t ms)
{
    uint64_t end = clock_mono_us() + ms * 1000;
    while (clock_mono_us() < end) {
        (void)uv_run(&t->loop.uv, UV_RUN_NOWAIT);
        for (unsigned i = 0; i < nworkers; i++)
            (void)uv_run(&t->workers[i].loop.uv, UV_RUN_NOWAIT);
    }
}

static void run_until_fed(struct test *t, unsigned nworkers)
{
    uint64_t end = clock_mono_us() + PATIENCE_MS * 1000;
    while (heard(t, "WATCHDOG=1") == 0) {
        assert_true(clock_mono_us() < end);
        run_for(t, nworkers, 1);
    }
}

static void is_fed_while_all_answer(void **state)
{
    struct test *t = *state;
    service_open(&t->service, &t->loop, t->list, WORKERS, &t->status);
    for (unsigned i = 0; i < 3; i++)
        run_until_fed(t, WORKERS);
}

/* The process before an upgrade may have been heard last a whole interval ago. */
static void is_fed_at_once(void **state)
{
    struct test *t = *state;
    service_open(&t->service, &t->loop, t->list, WORKERS, &t->status);
    for (unsigned i = 0; i < 2; i++) { /* the question, the answers; no time passes for a timer */
        (void)uv_run(&t->loop.uv, UV_RUN_NOWAIT);
        for (unsigned w = 0; w < WORKERS; w++)
            (void)uv_run(&t->workers[w].loop.uv, UV_RUN_NOWAIT);
    }
    assert_int_equal(heard(t, "WATCHDOG=1"), 1);
}

/* Five intervals, more than two and a half times what the service manager waits. */
static void is_not_fed_while_one_hangs(void **state)
{
    struct test *t = *state;
    service_open(&t->service, &t->loop, t->list, WORKERS, &t->status);
    run_until_fed(t, WORKERS);
    run_for(t, WORKERS, 1); /* an answer to the question before must not count */
    (void)heard(t, "");
    assert_int_equal(t->service.nsilent, 0);
    run_for(t, WORKERS - 1, (uint64_t)5 * INTERVAL_MS);
    assert_int_equal(heard(t, "WATCHDOG=1"), 0);
    assert_int_equal(t->service.nsilent, 1);
    run_until_fed(t, WORKERS); /* it was only slow */
    assert_int_equal(t->service.nsilent, 0);
}

/* There are no partners: it is not ready yet. */
static void says_nothing_of_being_ready_too_early(void **state)
{
    struct test *t = *state;
    service_open(&t->service, &t->loop, t->list, WORKERS, &t->status);
    run_for(t, WORKERS, (uint64_t)3 * INTERVAL_MS);
    assert_int_equal(heard(t, "READY=1"), 0);
}

static void a_stop_is_extended_while_all_answer(void **state)
{
    struct test *t = *state;
    service_open(&t->service, &t->loop, t->list, WORKERS, &t->status);
    service_stop(&t->service);
    run_for(t, WORKERS, (uint64_t)4 * INTERVAL_MS);
    assert_true(heard(t, "EXTEND_TIMEOUT_USEC=") >= 2);
    run_for(t, WORKERS - 1, (uint64_t)2 * INTERVAL_MS);
    (void)heard(t, "");
    run_for(t, WORKERS - 1, (uint64_t)4 * INTERVAL_MS);
    assert_int_equal(heard(t, "EXTEND_TIMEOUT_USEC="), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(is_fed_while_all_answer, setup, teardown),
        cmocka_unit_test_setup_teardown(is_fed_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(is_not_fed_while_one_hangs, setup, teardown),
        cmocka_unit_test_setup_teardown(says_nothing_of_being_ready_too_early, setup, teardown),
        cmocka_unit_test_setup_teardown(a_stop_is_extended_while_all_answer, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
