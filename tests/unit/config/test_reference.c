/* docs/CONFIG.md and the files in conf/ are in step with the schema table. */
#include "helper_config.h"
#include "support/folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static void assert_in_step(void (*print)(FILE *out), const char *path, const char *command)
{
    char *printed = NULL;
    size_t n = 0;
    FILE *out = open_memstream(&printed, &n);
    assert_non_null(out);
    print(out);
    fclose(out);
    char *stored = source_text(path);
    if (strcmp(printed, stored) != 0) fail_msg("%s is out of step: write it with %s", path, command);
    free(stored);
    free(printed);
}

static void test_markdown(void **state)
{
    (void)state;
    assert_in_step(config_reference_markdown, "docs/CONFIG.md", "proofgw config-reference");
}

static void test_yaml(void **state)
{
    (void)state;
    assert_in_step(config_reference_yaml, "conf/gateway.yaml", "proofgw config-reference --yaml");
}

/* Every key of conf/gateway.yaml has its default: with and without it, the configuration is the same. */
static void test_gateway_yaml_loads_and_changes_nothing(void **state)
{
    (void)state;
    char *text = source_text("conf/gateway.yaml");
    struct config *full = load_good(text), *bare = load_good(CONFIG_REQUIRED);
    assert_memory_equal(&full->limits, &bare->limits, sizeof full->limits);
    assert_memory_equal(&full->timeouts, &bare->timeouts, sizeof full->timeouts);
    assert_string_equal(full->logs.access, bare->logs.access);
    assert_string_equal(full->admin.address.text, bare->admin.address.text);
    assert_int_equal(full->workers, bare->workers);
    assert_int_equal(full->fields.alias, bare->fields.alias);
    config_unref(full);
    config_unref(bare);
    free(text);
}

static void test_quickstart_yaml_loads(void **state)
{
    (void)state;
    static const char *const names[] = {"PROOFGW_PORT", "PROOFGW_BACKEND_PORT", "PROOFGW_PARTNERS",
                                        "PROOFGW_ADMIN_PORT"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unsetenv(names[i]);
    char *text = source_text("conf/quickstart.yaml");
    struct config *c = load_good(text);
    enum environment env;
    assert_string_equal(c->listeners[0].address.text, "127.0.0.1:8080");
    assert_true(config_find_host(c, SPAN("localhost"), &env) && env == ENV_PRODUCTION);
    assert_true(config_find_host(c, SPAN("sandbox.localhost"), &env) && env == ENV_SANDBOX);
    config_unref(c);
    setenv("PROOFGW_PORT", "18080", 1);
    setenv("PROOFGW_PARTNERS", "/tmp/p.ndjson", 1);
    c = load_good(text);
    assert_int_equal(c->listeners[0].address.port, 18080);
    assert_string_equal(c->store.file, "/tmp/p.ndjson");
    config_unref(c);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_markdown),
        cmocka_unit_test(test_yaml),
        cmocka_unit_test(test_gateway_yaml_loads_and_changes_nothing),
        cmocka_unit_test(test_quickstart_yaml_loads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
