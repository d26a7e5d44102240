/* Reclamation: what is freed when, and never earlier. */
#include "policy/epoch.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

static int freed[1000]; /* in the order of freeing */
static size_t nfreed;

static void note_freed(void *p)
{
    if (nfreed < sizeof(freed) / sizeof(freed[0])) freed[nfreed] = *(int *)p;
    nfreed++;
    free(p);
}

static void retire(struct epochs *e, int number)
{
    int *p = malloc(sizeof(*p));
    assert_non_null(p);
    *p = number;
    assert_int_equal(epochs_retire(e, p, 100, note_freed), ERR_OK);
}

static int set_up(void **state)
{
    nfreed = 0;
    *state = epochs_create();
    return *state ? 0 : -1;
}

static int tear_down(void **state)
{
    epochs_destroy(*state);
    return 0;
}

static struct epoch_reader *reader(struct epochs *e)
{
    struct epoch_reader *r;
    assert_int_equal(epochs_register(e, &r), ERR_OK);
    return r;
}

static void test_nothing_is_freed_before_collect(void **state)
{
    retire(*state, 1);
    assert_int_equal(nfreed, 0);
    assert_int_equal(epochs_collect(*state), 0);
    assert_int_equal(nfreed, 1);
}

static void test_an_online_reader_holds_what_it_may_see(void **state)
{
    struct epoch_reader *r = reader(*state);
    epoch_online(r);
    retire(*state, 1);
    assert_int_equal(epochs_collect(*state), 1);
    assert_int_equal(nfreed, 0);
    epoch_offline(r);
    assert_int_equal(epochs_collect(*state), 0);
    assert_int_equal(nfreed, 1);
}

static void test_the_next_turn_lets_go(void **state)
{
    struct epoch_reader *r = reader(*state);
    epoch_online(r);
    retire(*state, 1);
    epoch_online(r);
    retire(*state, 2);
    assert_int_equal(epochs_collect(*state), 1);
    assert_int_equal(nfreed, 1);
    assert_int_equal(freed[0], 1);
    epoch_offline(r);
}

static void test_the_slowest_reader_counts(void **state)
{
    struct epoch_reader *slow = reader(*state), *fast = reader(*state);
    epoch_online(slow);
    epoch_online(fast);
    retire(*state, 1);
    epoch_online(fast);
    assert_int_equal(epochs_collect(*state), 1);
    epoch_online(slow);
    assert_int_equal(epochs_collect(*state), 0);
    epoch_offline(slow);
    epoch_offline(fast);
}

static void test_a_reader_that_comes_later_holds_nothing(void **state)
{
    struct epoch_reader *r = reader(*state);
    retire(*state, 1);
    epoch_online(r);
    assert_int_equal(epochs_collect(*state), 0);
    epoch_offline(r);
}

static void test_order_is_kept_over_many_blocks(void **state)
{
    struct epoch_reader *r = reader(*state);
    epoch_online(r);
    for (int i = 0; i < 500; i++)
        retire(*state, i);
    epoch_online(r);
    for (int i = 500; i < 900; i++)
        retire(*state, i);
    assert_int_equal(epochs_collect(*state), 400);
    assert_int_equal(nfreed, 500);
    epoch_offline(r);
    assert_int_equal(epochs_collect(*state), 0);
    assert_int_equal(nfreed, 900);
    for (int i = 0; i < 900; i++)
        assert_int_equal(freed[i], i);
}

static void test_limbo_bytes(void **state)
{
    struct epoch_reader *r = reader(*state);
    epoch_online(r);
    retire(*state, 1);
    retire(*state, 2);
    assert_int_equal(epochs_limbo_bytes(*state), 200);
    epoch_offline(r);
    (void)epochs_collect(*state); /* the metric is asked instead */
    assert_int_equal(epochs_limbo_bytes(*state), 0);
}

static void test_stamps(void **state)
{
    struct epoch_reader *r = reader(*state);
    epoch_online(r);
    uint64_t stamp = epochs_stamp(*state);
    assert_false(epochs_passed(*state, stamp));
    epoch_online(r);
    assert_true(epochs_passed(*state, stamp));
    assert_false(epochs_passed(*state, epochs_stamp(*state)));
    epoch_offline(r);
    assert_true(epochs_passed(*state, epochs_stamp(*state)));
}

static void test_readers_are_limited_and_slots_reused(void **state)
{
    struct epoch_reader *r[EPOCH_READERS_MAX], *more;
    for (int i = 0; i < EPOCH_READERS_MAX; i++)
        r[i] = reader(*state);
    assert_int_equal(epochs_register(*state, &more), ERR_LIMIT);
    epochs_unregister(*state, r[7]);
    assert_int_equal(epochs_register(*state, &more), ERR_OK);
    assert_ptr_equal(more, r[7]);
}

static struct epochs *nested;

static void retire_another(void *p)
{
    retire(nested, *(int *)p + 1);
    note_freed(p);
}

static void test_a_free_function_may_retire(void **state)
{
    nested = *state;
    int *p = malloc(sizeof(*p));
    assert_non_null(p);
    *p = 1;
    assert_int_equal(epochs_retire(*state, p, 1, retire_another), ERR_OK);
    assert_int_equal(epochs_collect(*state), 0);
    assert_int_equal(nfreed, 2);
    assert_int_equal(freed[1], 2);
}

static void test_destroy_frees_limbo(void **state)
{
    (void)state;
    struct epochs *e = epochs_create();
    assert_non_null(e);
    retire(e, 1);
    epochs_destroy(e);
    assert_int_equal(nfreed, 1);
}

/* A writer replaces a box while readers look into it: under ASan and TSan this finds memory that is freed
 * early. */
enum { BOX_ALIVE = 42, READERS = 2, CHANGES = 4000 };

struct shared {
    int *_Atomic box;
    struct epoch_reader *readers[READERS];
    _Atomic unsigned nlooks[READERS], nwrong;
    _Atomic bool is_done;
};

struct reader_arg {
    struct shared *s;
    int number;
};

static void *look(void *arg)
{
    const struct reader_arg *me = arg;
    struct shared *s = me->s;
    unsigned turns = 0;
    while (!atomic_load(&s->is_done)) {
        epoch_online(s->readers[me->number]);
        for (int i = 0; i < 3; i++)
            if (*atomic_load_explicit(&s->box, memory_order_acquire) != BOX_ALIVE) s->nwrong++;
        if (++turns % 4 == 0) epoch_offline(s->readers[me->number]);
        s->nlooks[me->number]++;
    }
    epoch_offline(s->readers[me->number]);
    return NULL;
}

static void spoil(void *p)
{
    *(int *)p = 0;
    free(p);
}

static int *new_box(void)
{
    int *p = malloc(sizeof(*p));
    assert_non_null(p);
    *p = BOX_ALIVE;
    return p;
}

static void test_threads_never_see_freed_memory(void **state)
{
    struct shared s = {.box = NULL};
    struct reader_arg args[READERS];
    pthread_t threads[READERS];
    atomic_store(&s.box, new_box());
    for (int i = 0; i < READERS; i++) {
        s.readers[i] = reader(*state);
        args[i] = (struct reader_arg){&s, i};
        assert_int_equal(pthread_create(&threads[i], NULL, look, &args[i]), 0);
    }
    for (int i = 0; i < READERS; i++)
        while (atomic_load(&s.nlooks[i]) == 0)
            sched_yield();
    for (int i = 0; i < CHANGES; i++) {
        int *old = atomic_exchange_explicit(&s.box, new_box(), memory_order_acq_rel);
        assert_int_equal(epochs_retire(*state, old, sizeof(int), spoil), ERR_OK);
        (void)epochs_collect(*state); /* what is left comes with the next one */
    }
    atomic_store(&s.is_done, true);
    for (int i = 0; i < READERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(s.nwrong, 0);
    assert_int_equal(epochs_collect(*state), 0);
    free(atomic_load(&s.box));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_nothing_is_freed_before_collect),
        TEST(test_an_online_reader_holds_what_it_may_see),
        TEST(test_the_next_turn_lets_go),
        TEST(test_the_slowest_reader_counts),
        TEST(test_a_reader_that_comes_later_holds_nothing),
        TEST(test_order_is_kept_over_many_blocks),
        TEST(test_limbo_bytes),
        TEST(test_stamps),
        TEST(test_readers_are_limited_and_slots_reused),
        TEST(test_a_free_function_may_retire),
        TEST(test_destroy_frees_limbo),
        TEST(test_threads_never_see_freed_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
