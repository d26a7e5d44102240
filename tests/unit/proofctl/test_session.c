/* Who it was: what stands in the audit as `by` and `os_user`. The source is compiled into this file, with a
 * user and an environment that the test chooses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { SOMEBODY = 4242424 }; /* no user has this number */

static uid_t user_now;

static uid_t chosen_user(void)
{
    return user_now;
}

#undef fail /* cmocka's macro */
#define geteuid chosen_user
#include "proofctl/session.c"
#undef geteuid

/* `by`: the value of --by, or NULL. */
static void open_as(struct session *s, uid_t user, const char *sudo_user, const char *by)
{
    static const struct command command = {.words = "test", .needs = NEEDS_NOTHING};
    struct args_option option = {OPT_BY, by};
    const struct args args = {.command = &command, .options = &option, .noptions = by != NULL};
    user_now = user;
    if (sudo_user)
        assert_int_equal(setenv("SUDO_USER", sudo_user, 1), 0);
    else
        assert_int_equal(unsetenv("SUDO_USER"), 0);
    assert_int_equal(session_open(s, &args), CTL_OK);
    session_close(s);
    s->args = NULL; /* it was borrowed */
}

static void root_is_who_called_sudo(void **state)
{
    struct session s;
    (void)state;
    open_as(&s, 0, "carol", NULL);
    assert_string_equal(s.by, "carol");
    assert_string_equal(s.os_user, "root");
}

static void root_without_sudo_is_root(void **state)
{
    struct session s;
    (void)state;
    open_as(&s, 0, NULL, NULL);
    assert_string_equal(s.by, "root");
    open_as(&s, 0, "", NULL);
    assert_string_equal(s.by, "root");
}

/* Anybody can set a variable. */
static void only_root_is_believed(void **state)
{
    struct session s;
    (void)state;
    open_as(&s, SOMEBODY, "carol", NULL);
    assert_string_equal(s.by, "uid 4242424");
    assert_string_equal(s.os_user, "uid 4242424");
}

static void by_comes_first(void **state)
{
    struct session s;
    (void)state;
    open_as(&s, 0, "carol", "dave");
    assert_string_equal(s.by, "dave");
    assert_string_equal(s.os_user, "root");
    open_as(&s, SOMEBODY, NULL, "dave");
    assert_string_equal(s.by, "dave");
    assert_string_equal(s.os_user, "uid 4242424");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(root_is_who_called_sudo),
        cmocka_unit_test(root_without_sudo_is_root),
        cmocka_unit_test(only_root_is_believed),
        cmocka_unit_test(by_comes_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
