/* docs/DATA.md gives operators the scripts themselves: they must be those that the gateway was tested with.
 */
#include "store/redis_schema.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { PAGE_BYTES_MAX = 64 * 1024 };

static void the_page_holds_both_scripts(void **state)
{
    (void)state;
    FILE *file = fopen(GW_SOURCE_DIR "/docs/DATA.md", "r");
    char *page = calloc(1, PAGE_BYTES_MAX);
    assert_non_null(file);
    assert_non_null(page);
    assert_in_range(fread(page, 1, PAGE_BYTES_MAX - 1, file), 1, PAGE_BYTES_MAX - 2);
    (void)fclose(file);
    assert_non_null(strstr(page, redis_script_init));
    assert_non_null(strstr(page, redis_script_write));
    free(page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_page_holds_both_scripts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
