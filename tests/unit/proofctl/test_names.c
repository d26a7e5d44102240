/* Lists of names: sorted, each once, whatever comes in. */
#include "proofctl/names.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

static void names_are_sorted_and_kept_once(void **state)
{
    (void)state;
    struct names n = {0};
    static const char *const in[] = {"b", "a", "", "b", "ab", "a"}, *const out[] = {"", "a", "ab", "b"};
    for (size_t i = 0; i < sizeof in / sizeof *in; i++)
        assert_int_equal(names_add(&n, span_str(in[i])), ERR_OK);
    assert_int_equal(names_add(&n, SPAN("x\0y")), ERR_OK);
    assert_int_equal(names_sort(&n), ERR_OK);
    assert_int_equal(n.n, 4);
    for (size_t i = 0; i < n.n; i++)
        assert_string_equal(n.list[i], out[i]);
    names_deinit(&n);
    assert_int_equal(n.n, 0);
}

static void an_empty_list_can_be_sorted(void **state)
{
    (void)state;
    struct names n = {0};
    assert_int_equal(names_sort(&n), ERR_OK);
    assert_int_equal(n.n, 0);
    names_deinit(&n);
}

static void many_names_keep_their_places_while_the_memory_grows(void **state)
{
    (void)state;
    enum { MANY = 20000 };
    struct names n = {0};
    char name[16];
    for (int i = MANY; i > 0; i--) {
        (void)snprintf(name, sizeof name, "p%06d", i);
        assert_int_equal(names_add(&n, span_str(name)), ERR_OK);
    }
    assert_int_equal(names_sort(&n), ERR_OK);
    assert_int_equal(n.n, MANY);
    assert_string_equal(n.list[0], "p000001");
    assert_string_equal(n.list[MANY - 1], "p020000");
    names_deinit(&n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_sorted_and_kept_once),
        cmocka_unit_test(an_empty_list_can_be_sorted),
        cmocka_unit_test(many_names_keep_their_places_while_the_memory_grows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
