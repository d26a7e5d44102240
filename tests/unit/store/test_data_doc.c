/* docs/DATA.md gives operators the scripts themselves: they must be those that the gateway was tested with.
 */
#include "store/redis_schema.h"

#include "support/folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void the_page_holds_both_scripts(void **state)
{
    (void)state;
    char *page = source_text("docs/DATA.md");
    assert_non_null(strstr(page, redis_script_init));
    assert_non_null(strstr(page, redis_script_write));
    free(page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_page_holds_both_scripts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
