/* Messages to a worker that takes none: they have a bound, and nothing is forgotten. */
#include "base/metrics.h"
#include "proxy/partner_limits.h"
#include "proxy/sources.h"
#include "proxy/worker.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { CHANGES = 100000, WAITING_MAX = 2000, BUFFER_BYTES = 64 * 1024 };

static unsigned count_waiting(const struct worker *w)
{
    unsigned n = 0;
    for (const struct loop_message *m = w->loop.inbox; m; m = m->next)
        n++;
    return n;
}

static void changes_of_partners_have_a_bound(void **state)
{
    struct policy *policy = policy_create();
    struct partner_limits *limits = partner_limits_create();
    struct sources *sources = sources_create();
    struct worker *w = worker_create(0, BUFFER_BYTES, policy, limits, sources);
    (void)state;
    assert_non_null(w);
    for (uint32_t i = 0; i < CHANGES; i++)
        worker_policy_changed(w, &i, 1, false);
    assert_in_range(count_waiting(w), 2, WAITING_MAX);
    assert_true(atomic_load(&w->recheck_posted)); /* what did not wait for itself: one look at everybody */
    worker_destroy(w);                            /* which takes them */
    sources_destroy(sources);
    partner_limits_destroy(limits);
    policy_destroy(policy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(changes_of_partners_have_a_bound)};
    metrics_init(&(struct metrics_labels){0});
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    metrics_deinit();
    return failed;
}
