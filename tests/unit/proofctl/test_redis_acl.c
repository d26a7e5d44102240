/* The lines with the rights; what they allow is tried on a real server in tests/e2e/test_proofctl_redis.py.
 */
#include "proofctl/redis_acl.h"

#include "support/folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { LINE_MAX_BYTES = 1024 };

static const char *line_of(enum acl_role role, const char *hash)
{
    static char line[LINE_MAX_BYTES];
    struct outbuf o = outbuf_of(line, sizeof line - 1);
    acl_line(role, acl_role_name(role), hash, "cfg", &o);
    assert_false(o.overflow);
    line[o.n] = '\0';
    return line;
}

static void every_line_starts_from_nothing(void **state)
{
    (void)state;
    for (enum acl_role role = 0; role < ACL_ROLES; role++) {
        const char *line = line_of(role, NULL);
        assert_non_null(strstr(line, " resetkeys "));
        assert_non_null(strstr(line, " resetchannels "));
        assert_null(strstr(line, "nopass"));
        assert_null(strpbrk(line, ">#"));
        if (role == ACL_DEFAULT || role == ACL_ADMIN) continue;
        assert_non_null(strstr(line, " -@all "));
        assert_non_null(strstr(line_of(role, "abc"), " on #abc resetkeys"));
    }
}

static void nobody_is_the_default_user_but_redis_itself(void **state)
{
    (void)state;
    assert_string_equal(line_of(ACL_DEFAULT, NULL),
                        "user default off resetkeys ~* resetchannels &* +@all resetpass");
    assert_false(acl_role_has_password(ACL_DEFAULT));
    assert_true(acl_role_has_password(ACL_ADMIN));
}

static void a_gateway_writes_its_own_report_only(void **state)
{
    (void)state;
    const char *line = line_of(ACL_GATEWAY, NULL), *write = strstr(line, "%W~");
    assert_non_null(write);
    assert_int_equal(strncmp(write, "%W~gw:{cfg}:g:* ", 16), 0);
    assert_null(strstr(write + 1, "%W~"));
    assert_null(strstr(line, "%RW~"));
    assert_null(strstr(line, " ~"));
}

static void the_page_holds_the_lines(void **state)
{
    (void)state;
    char *page = source_text("docs/DATA.md");
    for (enum acl_role role = 0; role < ACL_ROLES; role++)
        assert_non_null(strstr(page, line_of(role, NULL)));
    free(page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_line_starts_from_nothing),
        cmocka_unit_test(nobody_is_the_default_user_but_redis_itself),
        cmocka_unit_test(a_gateway_writes_its_own_report_only),
        cmocka_unit_test(the_page_holds_the_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
