/* The exchange arena: alignment, bounds, and where the blocks go. */
#include "base/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void allocations_are_aligned_and_apart(void **state)
{
    (void)state;
    struct arena_pool pool;
    struct arena a;
    arena_pool_init(&pool, 4);
    arena_init(&a, &pool, 1 << 20);
    char *last = NULL;
    for (size_t n = 0; n < 300; n++) {
        char *p = arena_alloc(&a, n);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 8, 0);
        assert_ptr_not_equal(p, last);
        memset(p, 0xaa, n);
        last = p;
    }
    arena_reset(&a);
    arena_pool_deinit(&pool);
}

static void copies_end_with_nul(void **state)
{
    (void)state;
    struct arena_pool pool;
    struct arena a;
    arena_pool_init(&pool, 4);
    arena_init(&a, &pool, 1 << 20);
    assert_string_equal(arena_dup(&a, "abcdef", 3), "abc");
    assert_string_equal(arena_dup(&a, NULL, 0), "");
    assert_null(arena_dup(&a, "x", SIZE_MAX));
    arena_reset(&a);
    arena_pool_deinit(&pool);
}

static void blocks_are_used_again(void **state)
{
    (void)state;
    struct arena_pool pool;
    struct arena a;
    arena_pool_init(&pool, 4);
    arena_init(&a, &pool, 1 << 20);
    void *first = arena_alloc(&a, 100);
    assert_non_null(first);
    assert_int_equal(a.total, ARENA_BLOCK_BYTES);
    arena_reset(&a);
    assert_int_equal(a.total, 0);
    assert_int_equal(pool.nfree, 1);

    struct arena b;
    arena_init(&b, &pool, 1 << 20);
    assert_ptr_equal(arena_alloc(&b, 100), first);
    assert_int_equal(pool.nfree, 0);
    arena_reset(&b);
    arena_pool_deinit(&pool);
    assert_null(pool.free);
}

static void pool_keeps_no_more_than_its_maximum(void **state)
{
    (void)state;
    struct arena_pool pool;
    struct arena a;
    arena_pool_init(&pool, 2);
    arena_init(&a, &pool, 1 << 20);
    for (int i = 0; i < 5; i++)
        assert_non_null(arena_alloc(&a, 4000));
    arena_reset(&a);
    assert_int_equal(pool.nfree, 2);
    arena_pool_deinit(&pool);
}

static void large_allocation_has_its_own_block(void **state)
{
    (void)state;
    struct arena_pool pool;
    struct arena a;
    arena_pool_init(&pool, 4);
    arena_init(&a, &pool, 1 << 20);
    char *small = arena_alloc(&a, 8);
    char *large = arena_alloc(&a, 100000);
    char *next = arena_alloc(&a, 8);
    assert_non_null(large);
    memset(large, 1, 100000);
    assert_ptr_equal(next, small + 8); /* the pooled block goes on being filled */
    arena_reset(&a);
    assert_int_equal(pool.nfree, 1); /* the large one went back to malloc */
    arena_pool_deinit(&pool);
}

static void bound_counts_whole_blocks(void **state)
{
    (void)state;
    struct arena_pool pool;
    struct arena a;
    arena_pool_init(&pool, 4);
    arena_init(&a, &pool, 2 * ARENA_BLOCK_BYTES);
    assert_non_null(arena_alloc(&a, 4000));
    assert_non_null(arena_alloc(&a, 4000));
    assert_null(arena_alloc(&a, 4000));
    assert_non_null(arena_alloc(&a, 8)); /* room is left in the second block */
    arena_reset(&a);
    assert_non_null(arena_alloc(&a, 4000)); /* usable again */
    arena_reset(&a);
    arena_pool_deinit(&pool);
}

static void bound_holds_for_large_allocations(void **state)
{
    (void)state;
    struct arena_pool pool;
    struct arena a;
    arena_pool_init(&pool, 4);
    arena_init(&a, &pool, 10000);
    assert_null(arena_alloc(&a, 10000)); /* the header does not fit */
    assert_null(arena_alloc(&a, SIZE_MAX));
    assert_null(arena_alloc(&a, SIZE_MAX - 8));
    assert_int_equal(a.total, 0);
    assert_non_null(arena_alloc(&a, 9000));
    assert_null(arena_alloc(&a, 8)); /* no room for another block */
    arena_reset(&a);
    arena_init(&a, &pool, 0);
    assert_null(arena_alloc(&a, 1));
    assert_null(arena_alloc(&a, 5000));
    arena_pool_deinit(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocations_are_aligned_and_apart),
        cmocka_unit_test(copies_end_with_nul),
        cmocka_unit_test(blocks_are_used_again),
        cmocka_unit_test(pool_keeps_no_more_than_its_maximum),
        cmocka_unit_test(large_allocation_has_its_own_block),
        cmocka_unit_test(bound_counts_whole_blocks),
        cmocka_unit_test(bound_holds_for_large_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
