/* cidr_set and cidr_tree when memory is out: every operation is repeated with one allocation more granted
 * each time. Until it succeeds it must report ERR_NOMEM and leave what was there unchanged. The sources are
 * compiled into this file, with an allocator that fails on command. */
#include "helper_tree.h"
#include "helper_twin.h"
#include "policy/cidr_set.h"
#include "support/failing.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define malloc        failing_malloc
#define calloc        failing_calloc
#define realloc       failing_realloc
#define aligned_alloc failing_aligned_alloc

#include "policy/cidr_hash6.c"
#include "policy/cidr_part6.c"
#include "policy/cidr_set.c"
#include "policy/cidr_sort.c"
#include "policy/cidr_stree.c"
#include "policy/cidr_tree.c"
#include "policy/cidr_tree4.c"
#include "policy/cidr_tree6.c"
#include "policy/epoch.c"
#include "policy/key_table.c"

#undef malloc
#undef calloc
#undef realloc
#undef aligned_alloc

enum { GRANTS_MAX = 100000 };

struct fixture {
    struct open_tree own;
    struct prefixes live; /* what is in the tree */
};

static void close_tree(struct fixture *f)
{
    tree_close(&f->own);
    prefixes_free(&f->live);
}

static void check(const struct fixture *f, const struct prefixes *pool)
{
    struct prefixes_random r = {1};
    struct twin twin;
    twin_init(&twin, f->live.v, f->live.n);
    twin_compare(&twin, pool, &r, tree_has, f->own.tree);
    twin_free(&twin);
}

/* Repeats a change until it succeeds; checks the tree before and after. Returns how often it failed. */
static unsigned change_until_done(struct fixture *f, const struct prefixes *pool, const struct cidr *c,
                                  bool is_add)
{
    for (unsigned granted = 0; granted < GRANTS_MAX; granted++) {
        failing_begin(granted, true);
        const enum err e = is_add ? cidr_tree_add(f->own.tree, c) : cidr_tree_remove(f->own.tree, c);
        const bool is_refused = failing_end();
        if (e) {
            assert_int_equal(e, ERR_NOMEM);
            assert_true(is_refused);
            check(f, pool);
            continue;
        }
        if (is_add) prefixes_push(&f->live, *c);
        for (uint32_t i = 0; !is_add; i++) {
            if (cidr_compare(&f->live.v[i], c) != 0) continue;
            f->live.v[i] = f->live.v[--f->live.n];
            break;
        }
        check(f, pool);
        return granted;
    }
    fail_msg("never succeeded");
    return 0;
}

static void a_change_happens_whole_or_not_at_all(void **state)
{
    (void)state;
    struct fixture f = {.own = tree_open()};
    struct prefixes pool = {0}, changes = {0};
    struct prefixes_random r = {2};
    prefixes_partner(&pool, &r, ADDR_V4, 300);
    prefixes_partner(&pool, &r, ADDR_V6, 300);
    prefixes_cloud(&pool, &r, ADDR_V6, 600);
    prefixes_text(&changes, "192.0.2.0/24");
    prefixes_text(&changes, "16.0.0.0/4"); /* many slots that have chunks of their own */
    prefixes_text(&changes, "2001:db8::/32");
    prefixes_text(&changes, "2000::/4"); /* many chunks */
    for (uint32_t i = 0; i < 4; i++)
        prefixes_push(&pool, changes.v[i]);
    assert_int_equal(
        cidr_tree_build(f.own.tree, prefixes_next_of, &(struct prefixes_feed){pool.v, pool.n - 4}), ERR_OK);
    for (uint32_t i = 0; i < pool.n - 4; i++)
        prefixes_push(&f.live, pool.v[i]);
    unsigned nfailed[4];
    for (uint32_t i = 0; i < changes.n; i++)
        nfailed[i] = change_until_done(&f, &pool, &changes.v[i], true);
    for (uint32_t i = 0; i < changes.n; i++)
        nfailed[i] += change_until_done(&f, &pool, &changes.v[i], false);
    for (uint32_t i = 0; i < changes.n; i++)
        assert_true(nfailed[i] >
                    1); /* an add that covers whole chunks may need no memory; its removal does */
    prefixes_free(&changes);
    prefixes_free(&pool);
    close_tree(&f);
}

/* One after the other, so that blocks and tables grow, chunks change their form, parts are split and joined.
 */
static void growth_and_shrinking_survive_every_failure(void **state)
{
    (void)state;
    struct fixture f = {.own = tree_open()};
    struct prefixes pool = {0};
    for (uint32_t i = 0; i < 150; i++) {
        prefixes_v4(&pool, UINT32_C(0x0a0a0000) + 2 * i, 32);
        prefixes_v6(&pool, UINT64_C(0x20010db800000000) + i / 2, 4 * i, 127);
        prefixes_v6(&pool, UINT64_C(0x20010db800000000) + i / 2, 2 * i, 128);
    }
    for (uint32_t i = 0; i < pool.n; i++)
        (void)change_until_done(&f, &pool, &pool.v[i], true);
    for (uint32_t i = 0; i < pool.n; i++)
        (void)change_until_done(&f, &pool, &pool.v[(i * 7) % pool.n], false);
    assert_int_equal(f.live.n, 0);
    prefixes_free(&pool);
    close_tree(&f);
}

static void a_failed_load_leaves_the_tree_empty(void **state)
{
    (void)state;
    struct fixture f = {.own = tree_open()};
    struct prefixes pool = {0};
    struct prefixes_random r = {3};
    prefixes_partner(&pool, &r, ADDR_V4, 100);
    prefixes_partner(&pool, &r, ADDR_V6, 300);
    prefixes_cloud(&pool, &r, ADDR_V6, 200);
    prefixes_text(&pool, "16.0.0.0/4");
    enum err e = ERR_NOMEM;
    for (unsigned granted = 0; e && granted < GRANTS_MAX; granted++) {
        failing_begin(granted, true);
        e = cidr_tree_build(f.own.tree, prefixes_next_of, &(struct prefixes_feed){pool.v, pool.n});
        (void)failing_end();
        if (e) assert_int_equal(e, ERR_NOMEM);
        if (e && granted % 8 == 0) check(&f, &pool);
    }
    for (uint32_t i = 0; i < pool.n; i++)
        prefixes_push(&f.live, pool.v[i]);
    check(&f, &pool);
    prefixes_free(&pool);
    close_tree(&f);
}

static void a_tree_is_created_whole_or_not_at_all(void **state)
{
    (void)state;
    struct epochs *epochs = epochs_create();
    struct cidr_tree *t = NULL;
    unsigned granted = 0;
    for (; !t && granted < GRANTS_MAX; granted++) {
        failing_begin(granted, true);
        t = cidr_tree_create(epochs);
        assert_true(failing_end() == !t);
    }
    assert_true(granted > 3);
    cidr_tree_destroy(t);
    epochs_destroy(epochs);
}

static void a_set_is_built_whole_or_not_at_all(void **state)
{
    (void)state;
    struct prefixes pool = {0};
    struct prefixes_random r = {4};
    static const uint32_t sizes[] = {0, 4, 40};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        pool.n = 0;
        prefixes_partner(&pool, &r, ADDR_V4, sizes[i]);
        prefixes_partner(&pool, &r, ADDR_V6, sizes[i]);
        _Alignas(CIDR_SET_ALIGNMENT) unsigned char room[CIDR_SET_SMALL_BYTES_MAX];
        struct cidr_set *s = NULL;
        unsigned granted = 0;
        enum err e = ERR_NOMEM;
        for (; e && granted < GRANTS_MAX; granted++) {
            failing_begin(granted, true);
            e = cidr_set_build(pool.v, pool.n, room, &s);
            assert_true(failing_end() == (e == ERR_NOMEM));
            assert_true((s != NULL) == (e == ERR_OK));
        }
        assert_int_equal(granted, sizes[i] < 10 ? 1 : 5);
        cidr_set_destroy(s);
    }
    prefixes_free(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_change_happens_whole_or_not_at_all),
        cmocka_unit_test(growth_and_shrinking_survive_every_failure),
        cmocka_unit_test(a_failed_load_leaves_the_tree_empty),
        cmocka_unit_test(a_tree_is_created_whole_or_not_at_all),
        cmocka_unit_test(a_set_is_built_whole_or_not_at_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
