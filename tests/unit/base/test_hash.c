/* FNV-1a against the vectors that its authors publish. */
#include "base/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static void gives_the_published_values(void **state)
{
    (void)state;
    assert_true(hash_fnv1a(HASH_FNV1A_BASIS, SPAN("")) == UINT64_C(0xcbf29ce484222325));
    assert_true(hash_fnv1a(HASH_FNV1A_BASIS, SPAN("a")) == UINT64_C(0xaf63dc4c8601ec8c));
    assert_true(hash_fnv1a(HASH_FNV1A_BASIS, SPAN("foobar")) == UINT64_C(0x85944171f73967e8));
}

static void goes_on_where_it_stopped(void **state)
{
    (void)state;
    uint64_t foo = hash_fnv1a(HASH_FNV1A_BASIS, SPAN("foo"));
    assert_true(hash_fnv1a(foo, SPAN("bar")) == hash_fnv1a(HASH_FNV1A_BASIS, SPAN("foobar")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_the_published_values),
        cmocka_unit_test(goes_on_where_it_stopped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
