/* Jobs: each has a thread of its own, whatever the others do; signals stay away from it; and a thread that
 * cannot be made is an answer. */
#include "helper_net.h"
#include "net/job.h"

#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

enum { MANY = 100 };

#include "support/no_threads.h"

#include "base/process.c"
#include "net/job.c"
#undef pthread_create

struct work {
    struct job job; /* first */
    struct net_test *test;
    unsigned runs, ends;
    enum err error;
    pthread_t thread;
    bool is_blocked;
    sem_t *begun, *gate; /* NULL: it does not wait */
};

static void work_run(struct job *j)
{
    struct work *w = (struct work *)j;
    sigset_t mask;
    w->runs++;
    w->thread = pthread_self();
    w->is_blocked = pthread_sigmask(SIG_BLOCK, NULL, &mask) == 0 && sigismember(&mask, SIGTERM) == 1 &&
                    sigismember(&mask, SIGHUP) == 1;
    if (!w->gate) return;
    sem_post(w->begun);
    sem_wait(w->gate);
}

static void work_done(struct job *j, enum err e)
{
    struct work *w = (struct work *)j;
    w->ends++;
    w->error = e;
}

static void it_runs_on_a_thread_of_its_own(void **state)
{
    struct net_test *t = *state;
    struct work w = {0};
    sigset_t before, after;
    assert_int_equal(pthread_sigmask(SIG_BLOCK, NULL, &before), 0);
    job_start(&w.job, &t->loop.uv, work_run, work_done);
    assert_int_equal(w.ends, 0); /* never before it returns */
    assert_int_equal(pthread_sigmask(SIG_BLOCK, NULL, &after), 0);
    assert_int_equal(sigismember(&after, SIGTERM), sigismember(&before, SIGTERM));
    RUN_UNTIL(t, w.ends);
    net_test_settle(t);
    assert_int_equal(w.runs, 1);
    assert_int_equal(w.ends, 1);
    assert_int_equal(w.error, ERR_OK);
    assert_false(pthread_equal(w.thread, pthread_self()));
    assert_true(w.is_blocked);
}

static void those_that_hang_hold_up_no_other(void **state)
{
    struct net_test *t = *state;
    struct work *hanging = calloc(MANY, sizeof *hanging), other = {0};
    sem_t begun, gate;
    assert_non_null(hanging);
    assert_int_equal(sem_init(&begun, 0, 0) | sem_init(&gate, 0, 0), 0);
    for (unsigned i = 0; i < MANY; i++) {
        hanging[i] = (struct work){.begun = &begun, .gate = &gate};
        job_start(&hanging[i].job, &t->loop.uv, work_run, work_done);
    }
    for (unsigned i = 0; i < MANY; i++)
        assert_int_equal(sem_wait(&begun), 0); /* all of them at once */
    job_start(&other.job, &t->loop.uv, work_run, work_done);
    RUN_UNTIL(t, other.ends);
    for (unsigned i = 0; i < MANY; i++)
        assert_int_equal(sem_post(&gate), 0);
    for (unsigned i = 0; i < MANY; i++)
        RUN_UNTIL(t, hanging[i].ends);
    sem_destroy(&begun);
    sem_destroy(&gate);
    free(hanging);
}

static void the_loop_waits_for_it(void **state)
{
    struct net_test *t = *state;
    struct work w = {0};
    job_start(&w.job, &t->loop.uv, work_run, work_done);
    uv_close((uv_handle_t *)&t->watchdog, NULL);
    loop_close(&t->loop);
    loop_run(&t->loop);
    assert_int_equal(w.ends, 1);
    loop_deinit(&t->loop);
    free(t);
    assert_int_equal(net_test_setup(state), 0); /* for the tear-down */
}

static void without_a_thread_it_ends_and_has_not_run(void **state)
{
    struct net_test *t = *state;
    struct work w = {0};
    has_no_threads = true;
    job_start(&w.job, &t->loop.uv, work_run, work_done);
    has_no_threads = false;
    assert_int_equal(w.ends, 0);
    RUN_UNTIL(t, w.ends);
    assert_int_equal(w.runs, 0);
    assert_int_equal(w.error, ERR_LIMIT);
    job_start(&w.job, &t->loop.uv, work_run, work_done); /* its memory may be used again */
    RUN_UNTIL(t, w.ends == 2);
    assert_int_equal(w.runs, 1);
}

#define JOB_TEST(name) cmocka_unit_test_setup_teardown(name, net_test_setup, net_test_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        JOB_TEST(it_runs_on_a_thread_of_its_own),
        JOB_TEST(those_that_hang_hold_up_no_other),
        JOB_TEST(the_loop_waits_for_it),
        JOB_TEST(without_a_thread_it_ends_and_has_not_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
