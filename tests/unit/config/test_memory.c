/* Memory that runs out at every single allocation: ERR_NOMEM, nothing leaked, nothing half-built.
 *
 * The modules that allocate are compiled into this test with an allocator that fails on demand. Replacing it
 * at link time instead would collide with the sanitizers' own. */
#include "support/failing.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#undef strdup
#undef strndup
#define malloc(n)       failing_malloc(n)
#define calloc(n, size) failing_calloc((n), (size))
#define strndup(s, n)   failing_strndup((s), (n))
#define strdup(s)       failing_strdup(s)
#include "config/document.c"
#include "config/load.c"
#include "config/report.c"
#include "config/value.c"
#undef malloc
#undef calloc

#include <cmocka.h>

static const char text[] = "listeners: [{address: \"127.0.0.1:8080\"}]\n"
                           "environments: {production: {hosts: [a, b, c], upstream: \"unix:backend.sock\"}}\n"
                           "identity: {remove: [x-a, x-b]}\n"
                           "store: {file: partners.ndjson}\n"
                           "logs: {access: access.log, level: debug}\n";

/* Loads with allocation number `n` failing; true when there was no such allocation. */
static bool load_with_failure(const char *path, long n)
{
    struct config *c = NULL;
    FILE *nowhere = fopen("/dev/null", "w");
    assert_non_null(nowhere);
    failing_begin(n, false);
    enum err e = path ? config_load(path, &c, nowhere)
                      : config_load_text("/etc/g.yaml", span_of(text, sizeof text - 1), &c, nowhere);
    bool is_through = !failing_end();
    fclose(nowhere);
    assert_int_equal(e, is_through ? ERR_OK : ERR_NOMEM);
    if (!is_through) assert_null(c);
    config_unref(c);
    return is_through;
}

static void test_every_allocation_fails_once(void **state)
{
    (void)state;
    long n = 0;
    while (!load_with_failure(NULL, n))
        n++;
    assert_true(n > 30); /* nodes and strings were among them */
}

static void test_every_allocation_of_a_file_fails_once(void **state)
{
    (void)state;
    long n = 0;
    while (!load_with_failure(GW_SOURCE_DIR "/conf/gateway.yaml", n))
        n++;
    assert_true(n > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_allocation_fails_once),
        cmocka_unit_test(test_every_allocation_of_a_file_fails_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
