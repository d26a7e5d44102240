/* What differs between two configurations: every kind of value, entries of lists, and what needs a restart.
 */
#include "config/diff.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char base[] =
    "listeners: [{address: \"127.0.0.1:8080\"}, {address: \"127.0.0.1:8081\", shield: true}]\n"
    "environments: {production: {hosts: [a.test], upstream: \"127.0.0.1:9000\"}}\n"
    "store: {file: p.ndjson}\n";

static struct config *load(const char *text)
{
    struct config *c = NULL;
    if (config_load_text("/etc/g.yaml", span_str(text), &c, stderr)) fail_msg("not loaded: %s", text);
    return c;
}

/* The text of the plan from `before` to `after`; `started` NULL = `before`. */
static char *plan(const char *started, const char *before, const char *after,
                  void (*write)(const struct config *, const struct config *, const struct config *, FILE *))
{
    char *text = NULL;
    size_t n;
    FILE *out = open_memstream(&text, &n);
    struct config *s = load(started ? started : before), *a = load(before), *b = load(after);
    assert_non_null(out);
    write(s, a, b, out);
    assert_int_equal(fclose(out), 0);
    config_unref(s);
    config_unref(a);
    config_unref(b);
    return text;
}

static void assert_plan(const char *before, const char *after, const char *expected)
{
    char *text = plan(NULL, before, after, config_plan_text);
    assert_string_equal(text, expected);
    free(text);
}

static char *with(const char *more)
{
    static char text[4096];
    (void)snprintf(text, sizeof text, "%s%s", base, more);
    return text;
}

static void nothing(void **state)
{
    (void)state;
    assert_plan(base, base, "no changes\n");
    assert_plan(base, with("limits: {body: 10240KiB}\n"),
                "no changes\n"); /* the default, written otherwise */
}

static void every_kind_of_value(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"reload_on_change: false\n", "reload_on_change: true -> false\n"},
        {"limits: {header_count: 50}\n", "limits.header_count: 100 -> 50\n"},
        {"limits: {body: 1GiB}\n", "limits.body: 10MiB -> 1GiB\n"},
        {"timeouts: {linger: 30s}\n", "timeouts.linger: 2s -> 30s\n"},
        {"fields: {alias: allow}\n", "fields.alias: drop -> allow\n"},
        {"logs: {level: warn}\n", "logs.level: info -> warn\n"},
        {"logs: {access: /x/a.log}\n", "logs.access: stdout -> /x/a.log\n"},
        {"tls: {ticket_keys_file: k}\n", "tls.ticket_keys_file: none -> /etc/k\n"},
        {"identity: {remove: [x-a, x-b]}\n", "identity.remove: [] -> [x-a, x-b]\n"},
        {"admin: {address: off}\n", "admin.address: 127.0.0.1:9901 -> off (needs a restart)\n"},
        {"tls: {certificates: [{chain_file: /c, key_file: /k}]}\n", "tls.certificates: + /c\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_plan(base, with(cases[i][0]), cases[i][1]);
}

static void environments(void **state)
{
    static const char both[] =
        "listeners: [{address: \"127.0.0.1:8080\"}, {address: \"127.0.0.1:8081\", shield: true}]\n"
        "environments:\n"
        "  production: {hosts: [a.test, b.test], upstream: \"name:9000\"}\n"
        "  sandbox: {hosts: [s.test], upstream: \"unix:/s\"}\n"
        "store: {file: p.ndjson}\n";
    (void)state;
    assert_plan(base, both,
                "environments.production.hosts: [a.test] -> [a.test, b.test]\n"
                "environments.production.upstream: 127.0.0.1:9000 -> name:9000\n"
                "environments.sandbox: absent -> present\n"
                "environments.sandbox.hosts: [] -> [s.test]\n"
                "environments.sandbox.upstream: none -> unix:/s\n");
}

#define REST                                                                                                 \
    "environments: {production: {hosts: [a.test], upstream: \"127.0.0.1:9000\"}}\nstore: {file: p.ndjson}\n"

static void entries_of_lists(void **state)
{
    (void)state;
    assert_plan(base, "listeners: [{address: \"127.0.0.1:8081\", backlog: 9}, {address: \"[::1]:1\"}]\n" REST,
                "listeners: - 127.0.0.1:8080\n"
                "listeners[127.0.0.1:8081].backlog: 4096 -> 9\n"
                "listeners[127.0.0.1:8081].shield: true -> false\n"
                "listeners: + [::1]:1\n");
    assert_plan(
        base,
        "listeners: [{address: \"127.0.0.1:8081\", shield: true}, {address: \"127.0.0.1:8080\"}]\n" REST,
        "listeners: another order -> this order\n");
}

static void listeners_are_kept(void **state)
{
    struct config *a = load(
        "listeners: [{address: \"127.0.0.1:0\"}, {address: \"127.0.0.1:0\"}, {address: \"*:80\"}]\n" REST);
    struct config *b =
        load("listeners: [{address: \"*:80\"}, {address: \"127.0.0.1:0\"}, {address: \"0.0.0.0:81\"},"
             " {address: \"127.0.0.1:0\"}, {address: \"127.0.0.1:0\"}]\n" REST);
    static const int kept[] = {2, 0, -1, 1, -1}; /* those with the same address in their order */
    (void)state;
    for (uint32_t i = 0; i < 5; i++)
        assert_int_equal(config_kept_listener(a, b, i), kept[i]);
    config_unref(a);
    config_unref(b);
}

/* Those keys are compared with what the process began with, the others with what is in force. */
static void restart_keys(void **state)
{
    char started[4096], running[4096];
    (void)state;
    (void)snprintf(started, sizeof started, "%s", with("workers: 2\nlimits: {body: 1}\n"));
    (void)snprintf(running, sizeof running, "%s", with("workers: 3\nlimits: {body: 2}\n"));
    char *text = plan(started, running, with("workers: 3\nlimits: {body: 2}\n"), config_plan_text);
    assert_string_equal(text, "workers: 2 -> 3 (needs a restart)\n");
    free(text);
    text = plan(started, running, with("workers: 2\nlimits: {body: 1}\n"), config_plan_text);
    assert_string_equal(text, "limits.body: 2 -> 1\n");
    free(text);
}

static void json(void **state)
{
    (void)state;
    char *text =
        plan(NULL, base, "listeners: [{address: \"127.0.0.1:8080\"}]\nworkers: 200\n" REST, config_plan_json);
    assert_non_null(strstr(
        text, "{\"key\":\"listeners\",\"before\":\"127.0.0.1:8081\",\"after\":null,\"change\":\"live\"}]"));
    assert_non_null(strstr(text, "[{\"key\":\"workers\",\"before\":"));
    assert_non_null(strstr(text, "\"after\":\"200\",\"change\":\"restart\"},"));
    free(text);
    text = plan(NULL, base, base, config_plan_json);
    assert_string_equal(text, "[]");
    free(text);
}

/* A list of names may be far longer than its text here. */
static void long_values_are_cut(void **state)
{
    char *text = NULL;
    size_t n;
    FILE *out = open_memstream(&text, &n);
    (void)state;
    assert_non_null(out);
    fprintf(out, "%sidentity: {remove: [", base);
    for (unsigned i = 0; i < 60; i++)
        fprintf(out, "%sx-%020u", i ? ", " : "", i);
    fprintf(out, "]}\n");
    assert_int_equal(fclose(out), 0);
    char *p = plan(NULL, base, text, config_plan_text);
    size_t length = strlen(p);
    assert_true(length < CONFIG_CHANGE_TEXT_MAX + 64);
    assert_string_equal(p + length - 4, "...\n");
    free(p);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing),
        cmocka_unit_test(every_kind_of_value),
        cmocka_unit_test(environments),
        cmocka_unit_test(entries_of_lists),
        cmocka_unit_test(listeners_are_kept),
        cmocka_unit_test(restart_keys),
        cmocka_unit_test(json),
        cmocka_unit_test(long_values_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
