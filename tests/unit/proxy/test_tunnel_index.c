/* Tunnels by partner against a naive twin, and what a callback may do to the link it is given. */
#include "policy/policy.h"
#include "proxy/tunnel_index.h"
#include "support/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { LINKS = 2000, PARTNERS = 300 };

struct twin {
    struct list_link link; /* first */
    uint32_t partner;
    bool linked;
    unsigned met;
};

static struct tunnel_index tunnels;
static struct twin twins[LINKS];

static void reset(void)
{
    memset(twins, 0, sizeof twins);
    tunnel_index_init(&tunnels);
}

static void add(unsigned i, uint32_t partner)
{
    twins[i].partner = partner;
    twins[i].linked = true;
    tunnel_index_add(&tunnels, &twins[i].link, partner);
}

static void take(unsigned i)
{
    twins[i].linked = false;
    list_remove(&twins[i].link);
}

static void meet(struct list_link *link)
{
    struct twin *t = (struct twin *)link;
    assert_true(t->linked);
    t->met++;
}

/* Everybody of `partner` once; others at most once, because buckets are shared. */
static void check_partner(uint32_t partner)
{
    for (unsigned i = 0; i < LINKS; i++)
        twins[i].met = 0;
    tunnel_index_each(&tunnels, partner, meet);
    for (unsigned i = 0; i < LINKS; i++) {
        bool is_wanted = twins[i].linked && (twins[i].partner == partner || partner == PARTNER_INDEX_NONE);
        assert_in_range(twins[i].met, is_wanted, twins[i].linked);
    }
}

static void agrees_with_a_naive_twin(void **state)
{
    (void)state;
    uint64_t seed = 0x9e3779b97f4a7c15u;
    reset();
    for (unsigned round = 0; round < 20000; round++) {
        uint64_t r = random_next(&seed);
        unsigned i = (unsigned)(r % LINKS);
        if (twins[i].linked)
            take(i);
        else
            add(i, (uint32_t)(r >> 32) % PARTNERS);
        if (round % 500 == 0) check_partner((uint32_t)(r >> 20) % PARTNERS);
        if (round % 1000 == 0) check_partner(PARTNER_INDEX_NONE);
    }
}

static void removing_twice_is_harmless(void **state)
{
    (void)state;
    reset();
    list_remove(&twins[0].link);
    add(0, 7);
    take(0);
    take(0);
    check_partner(7);
}

static void drop_itself(struct list_link *link)
{
    struct twin *t = (struct twin *)link;
    meet(link);
    take((unsigned)(t - twins));
    memset(link, 0xa5, sizeof *link); /* its tunnel is freed */
}

static void a_callback_may_free_what_it_is_given(void **state)
{
    (void)state;
    reset();
    for (unsigned i = 0; i < 10; i++)
        add(i, 7);
    tunnel_index_each(&tunnels, 7, drop_itself);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(twins[i].met, 1);
    check_partner(7); /* nobody is left */
}

static void move_to_the_same_partner(struct list_link *link)
{
    struct twin *t = (struct twin *)link;
    meet(link);
    take((unsigned)(t - twins));
    add((unsigned)(t - twins), 7);
}

static void a_link_that_is_added_again_is_not_met_twice(void **state)
{
    (void)state;
    reset();
    for (unsigned i = 0; i < 10; i++)
        add(i, 7);
    tunnel_index_each(&tunnels, 7, move_to_the_same_partner);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(twins[i].met, 1);
    check_partner(7);
}

static void move_to_another_partner(struct list_link *link)
{
    struct twin *t = (struct twin *)link;
    take((unsigned)(t - twins));
    add((unsigned)(t - twins), 8);
}

static void a_link_may_change_its_partner_during_the_walk(void **state)
{
    (void)state;
    reset();
    for (unsigned i = 0; i < 10; i++)
        add(i, 7);
    tunnel_index_each(&tunnels, 7, move_to_another_partner);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(twins[i].partner, 8);
    check_partner(8);
    check_partner(7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_a_naive_twin),
        cmocka_unit_test(removing_twice_is_harmless),
        cmocka_unit_test(a_callback_may_free_what_it_is_given),
        cmocka_unit_test(a_link_that_is_added_again_is_not_met_twice),
        cmocka_unit_test(a_link_may_change_its_partner_during_the_walk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
