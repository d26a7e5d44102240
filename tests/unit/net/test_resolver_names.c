/* The resolver before name servers that do not answer, answer with more than there is room for, and in
 * another order each time. The look-ups are this file's: "hangs" waits until it is let go and fails, "slow"
 * has addresses then, "many" has them at once. */
#include "helper_net.h"
#include "net/resolver.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { PORT = 4711, MANY = 40 };

static sem_t gate;
static unsigned naddresses, rotation; /* of "many"; set while nothing is looked up */

struct answer {
    struct addrinfo info[MANY];
    struct sockaddr_in at[MANY];
};

/* 10.0.0.0, 10.0.0.1, ... beginning with the one that `rotation` says. */
static struct addrinfo *answer_many(void)
{
    struct answer *a = calloc(1, sizeof *a);
    if (!a) return NULL;
    for (unsigned i = 0; i < naddresses; i++) {
        a->at[i] = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(PORT)};
        a->at[i].sin_addr.s_addr = htonl(0x0a000000 + (rotation + i) % naddresses);
        a->info[i] = (struct addrinfo){.ai_family = AF_INET,
                                       .ai_addr = (struct sockaddr *)&a->at[i],
                                       .ai_addrlen = sizeof a->at[i],
                                       .ai_next = i + 1 < naddresses ? &a->info[i + 1] : NULL};
    }
    return a->info;
}

static int look_up_here(const char *host, const char *service, const struct addrinfo *wanted,
                        struct addrinfo **out)
{
    (void)service, (void)wanted;
    if (strcmp(host, "many") == 0) {
        *out = answer_many();
        return *out ? 0 : EAI_MEMORY;
    }
    sem_wait(&gate);
    if (strcmp(host, "hangs") == 0) return EAI_AGAIN;
    *out = answer_many();
    return *out ? 0 : EAI_MEMORY;
}

#define getaddrinfo     look_up_here
#define freeaddrinfo(p) free(p) /* the first member of a struct answer */

#include "support/no_threads.h"

#include "base/process.c"
#include "net/job.c"
#include "net/resolver.c"
#undef pthread_create

struct asker {
    struct resolver resolver; /* first */
    unsigned changes, closed;
};

static void count_change(struct resolver *r, const struct address_list *list)
{
    (void)list;
    ((struct asker *)r->user)->changes++;
}

static void count_closed(struct resolver *r)
{
    ((struct asker *)r->user)->closed++;
}

static void asker_open(struct asker *a, struct net_test *t, const char *host)
{
    *a = (struct asker){0};
    resolver_open(&a->resolver, &t->loop, host, PORT, count_change, a);
}

static void asker_close(struct asker *a, struct net_test *t)
{
    resolver_close(&a->resolver, count_closed);
    RUN_UNTIL(t, a->closed);
}

static void ask_again(struct asker *a, struct net_test *t)
{
    RUN_UNTIL(t, !a->resolver.busy);
    loop_turn(&t->loop);
    loop_deadline(&t->loop, &a->resolver.due, 0);
    RUN_UNTIL(t, a->resolver.busy);
    RUN_UNTIL(t, !a->resolver.busy);
}

static void names_that_hang_hold_up_no_other(void **state)
{
    struct net_test *t = *state;
    struct asker hanging[RESOLVER_LOOKUPS_MAX - 1], other;
    naddresses = 3;
    for (size_t i = 0; i < RESOLVER_LOOKUPS_MAX - 1; i++)
        asker_open(&hanging[i], t, "hangs");
    asker_open(&other, t, "many");
    RUN_UNTIL(t, other.changes);
    assert_int_equal(other.resolver.last.n, 3);
    asker_close(&other, t);
    for (size_t i = 0; i < RESOLVER_LOOKUPS_MAX - 1; i++) {
        resolver_close(&hanging[i].resolver, count_closed);
        assert_int_equal(hanging[i].closed, 0); /* its thread has it still */
        sem_post(&gate);
    }
    for (size_t i = 0; i < RESOLVER_LOOKUPS_MAX - 1; i++)
        RUN_UNTIL(t, hanging[i].closed);
    assert_int_equal(t->loop.nlookups, 0);
}

static void look_ups_have_a_bound(void **state)
{
    struct net_test *t = *state;
    struct asker hanging[RESOLVER_LOOKUPS_MAX], other;
    naddresses = 1;
    for (size_t i = 0; i < RESOLVER_LOOKUPS_MAX; i++)
        asker_open(&hanging[i], t, "hangs");
    asker_open(&other, t, "many");
    assert_false(other.resolver.busy);
    assert_int_equal(other.resolver.failures, 1);
    assert_int_equal(t->loop.nlookups, RESOLVER_LOOKUPS_MAX);
    sem_post(&gate);
    RUN_UNTIL(t, t->loop.nlookups < RESOLVER_LOOKUPS_MAX);
    for (size_t i = 0; i < RESOLVER_LOOKUPS_MAX; i++)
        resolver_close(&hanging[i].resolver, count_closed); /* the one that has ended asks no more */
    assert_true(list_is_linked(&other.resolver.due.link));
    ask_again(&other, t);
    assert_int_equal(other.changes, 1);
    asker_close(&other, t);
    for (size_t i = 1; i < RESOLVER_LOOKUPS_MAX; i++)
        sem_post(&gate);
    for (size_t i = 0; i < RESOLVER_LOOKUPS_MAX; i++)
        RUN_UNTIL(t, hanging[i].closed);
}

static void of_more_addresses_than_fit_always_the_same_are_used(void **state)
{
    struct net_test *t = *state;
    struct asker a;
    naddresses = MANY;
    rotation = MANY / 2;
    asker_open(&a, t, "many");
    RUN_UNTIL(t, a.changes);
    assert_int_equal(a.resolver.last.n, RESOLVER_ADDRESSES_MAX);
    for (uint32_t i = 0; i < RESOLVER_ADDRESSES_MAX; i++) {
        const struct addr got = addr_from_sockaddr(&a.resolver.last.addresses[i].any);
        assert_int_equal(got.v4, 0x0a000000 + i);
    }
    for (rotation = 0; rotation < MANY; rotation += 7)
        ask_again(&a, t);
    assert_int_equal(a.changes, 1);
    asker_close(&a, t);
}

static void without_a_thread_it_is_asked_again(void **state)
{
    struct net_test *t = *state;
    struct asker a;
    naddresses = 1;
    has_no_threads = true;
    asker_open(&a, t, "many");
    RUN_UNTIL(t, a.resolver.failures);
    has_no_threads = false;
    assert_int_equal(a.changes, 0);
    assert_true(list_is_linked(&a.resolver.due.link));
    ask_again(&a, t);
    assert_int_equal(a.changes, 1);
    asker_close(&a, t);
}

/* Opens "many", and lets the next look-up of it be one of `host` that has not ended when it is slow. */
static void asker_open_slow(struct asker *a, struct net_test *t, const char *host)
{
    naddresses = 1;
    asker_open(a, t, "many");
    RUN_UNTIL(t, a->changes);
    a->resolver.host = host;
    loop_turn(&t->loop);
    loop_deadline(&t->loop, &a->resolver.due, 0);
    RUN_UNTIL(t, a->resolver.busy);
    assert_true(list_is_linked(&a->resolver.due.link)); /* RESOLVER_SLOW_MS, which are over */
    loop_turn(&t->loop);
    loop_deadline(&t->loop, &a->resolver.due, 0);
    RUN_UNTIL(t, a->resolver.failures);
    assert_true(a->resolver.busy);
    assert_false(list_is_linked(&a->resolver.due.link)); /* once */
    assert_int_equal(a->resolver.last.n, 1);
}

static void a_look_up_that_hangs_is_said_once_and_so_is_its_end(void **state)
{
    struct net_test *t = *state;
    struct asker a;
    char log[4096] = "";
    int pipe_ends[2], saved = dup(STDERR_FILENO);
    assert_true(saved >= 0 && pipe(pipe_ends) == 0 && dup2(pipe_ends[1], STDERR_FILENO) >= 0);
    asker_open_slow(&a, t, "slow");
    sem_post(&gate);
    RUN_UNTIL(t, !a.resolver.busy);
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    assert_true(read(pipe_ends[0], log, sizeof log - 1) > 0);
    close(pipe_ends[0]);
    close(pipe_ends[1]);
    close(saved);
    char *hangs =
        strstr(log, "event=resolve_failed host=slow cause=\"no answer so far; the look-up goes on\" "
                    "kept_addresses=1\n");
    assert_non_null(hangs);
    assert_null(strstr(hangs + 1, "event=resolve_failed"));
    assert_non_null(strstr(hangs, "event=resolved host=slow addresses=1 left_out=0\n"));
    assert_int_equal(a.resolver.failures, 0);
    assert_int_equal(a.changes, 1);
    asker_close(&a, t);
}

static void a_look_up_that_hangs_and_fails_is_asked_again(void **state)
{
    struct net_test *t = *state;
    struct asker a;
    asker_open_slow(&a, t, "hangs");
    sem_post(&gate);
    RUN_UNTIL(t, !a.resolver.busy);
    assert_int_equal(a.resolver.failures, 2);
    a.resolver.host = "many";
    ask_again(&a, t);
    assert_int_equal(a.resolver.failures, 0);
    asker_close(&a, t);
}

static void a_look_up_may_be_closed_before_it_is_slow(void **state)
{
    struct net_test *t = *state;
    struct asker a;
    naddresses = 1;
    asker_open(&a, t, "many");
    RUN_UNTIL(t, a.changes);
    a.resolver.host = "hangs";
    loop_turn(&t->loop);
    loop_deadline(&t->loop, &a.resolver.due, 0);
    RUN_UNTIL(t, a.resolver.busy);
    sem_post(&gate);
    asker_close(&a, t);
    assert_int_equal(t->loop.wheel.count, 0);
}

static void a_look_up_that_hangs_may_be_closed(void **state)
{
    struct net_test *t = *state;
    struct asker a;
    asker_open_slow(&a, t, "hangs");
    sem_post(&gate);
    asker_close(&a, t);
    assert_int_equal(t->loop.wheel.count, 0);
}

#define NAMES_TEST(name) cmocka_unit_test_setup_teardown(name, net_test_setup, net_test_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        NAMES_TEST(names_that_hang_hold_up_no_other),
        NAMES_TEST(look_ups_have_a_bound),
        NAMES_TEST(of_more_addresses_than_fit_always_the_same_are_used),
        NAMES_TEST(without_a_thread_it_is_asked_again),
        NAMES_TEST(a_look_up_that_hangs_is_said_once_and_so_is_its_end),
        NAMES_TEST(a_look_up_that_hangs_and_fails_is_asked_again),
        NAMES_TEST(a_look_up_that_hangs_may_be_closed),
        NAMES_TEST(a_look_up_may_be_closed_before_it_is_slow),
    };
    if (sem_init(&gate, 0, 0) != 0) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
