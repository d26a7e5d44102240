/* The ring of refused requests. */
#include "proxy/denials.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void texts_that_fit_are_kept_whole(void **state)
{
    (void)state;
    char kept[DENIAL_PATH_MAX];
    struct span path = SPAN("/widget/a%20b");
    assert_int_equal(denial_keep(kept, sizeof kept, path), path.n);
    assert_memory_equal(kept, path.p, path.n);
    assert_int_equal(denial_keep(kept, sizeof kept, span_of(NULL, 0)), 0);
}

static void texts_that_do_not_fit_are_cut(void **state)
{
    (void)state;
    char kept[3];
    assert_int_equal(denial_keep(kept, sizeof kept, SPAN("abcd")), sizeof kept);
    assert_memory_equal(kept, "abc", sizeof kept);
}

static void the_newest_is_found_and_the_oldest_overwritten(void **state)
{
    (void)state;
    static struct denials d;
    char id[UUID_LEN];
    for (unsigned i = 0; i < DENIALS_MAX + 1; i++) {
        struct denial *x = denials_next(&d);
        memset(x->request_id, 'a', UUID_LEN);
        memcpy(x->request_id, &i, sizeof i);
        x->partner = i;
    }
    memset(id, 'a', sizeof id);
    for (unsigned i = 0; i < DENIALS_MAX + 1; i++) {
        memcpy(id, &i, sizeof i);
        const struct denial *found = denials_find(&d, span_of(id, UUID_LEN));
        assert_int_equal(found != NULL, i > 0);
        if (found) assert_int_equal(found->partner, i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_that_fit_are_kept_whole),
        cmocka_unit_test(texts_that_do_not_fit_are_cut),
        cmocka_unit_test(the_newest_is_found_and_the_oldest_overwritten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
