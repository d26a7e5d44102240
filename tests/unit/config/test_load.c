/* What a good file becomes: defaults, every section, paths, the environment. */
#include "helper_config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static void test_defaults(void **state)
{
    (void)state;
    struct config *c = load_good(CONFIG_REQUIRED);
    assert_string_equal(c->path, "/etc/proofgw/gateway.yaml");
    assert_in_range(c->workers, 1, CONFIG_WORKERS_MAX);
    assert_int_equal(c->nlisteners, 1);
    assert_int_equal(c->listeners[0].backlog, 4096);
    assert_true(c->environments[ENV_PRODUCTION].present);
    assert_false(c->environments[ENV_SANDBOX].present);
    assert_false(c->identity.pass_authorization);
    assert_int_equal(c->fields.alias, ALIAS_DROP);
    assert_int_equal(c->limits.head_bytes, 32768);
    assert_int_equal(c->limits.header_count, 100);
    assert_int_equal(c->limits.buffer_bytes, 262144);
    assert_int_equal(c->timeouts.request_head_ms, 10000);
    assert_int_equal(c->timeouts.request_body_rate, 500);
    assert_int_equal(c->timeouts.tunnel_idle_ms, 3600000);
    assert_int_equal(c->store.kind, STORE_FILE);
    assert_string_equal(c->logs.access, "stdout");
    assert_string_equal(c->logs.operations, "stderr");
    assert_string_equal(c->logs.level, "info");
    assert_int_equal(c->admin.address.kind, ENDPOINT_IP);
    assert_int_equal(c->admin.address.port, 9901);
    config_unref(c);
}

static void test_values_replace_defaults(void **state)
{
    (void)state;
    struct config *c =
        load_good(CONFIG_REQUIRED "workers: 3\n"
                                  "identity: {pass_authorization: true, remove: [X-Debug]}\n"
                                  "fields: {alias: reject, alias_allowed: [X_Legacy_Id, x.y]}\n"
                                  "limits: {head: 4KiB, header_count: \"50\", connections_per_source: 0}\n"
                                  "timeouts: {linger: 0s, request_body_rate: 2KiB}\n"
                                  "logs: {level: debug}\n"
                                  "admin: {address: off}\n");
    assert_int_equal(c->workers, 3);
    assert_true(c->identity.pass_authorization);
    assert_int_equal(c->identity.nremove, 1);
    assert_string_equal(c->identity.remove[0], "x-debug");
    assert_int_equal(c->fields.alias, ALIAS_REJECT);
    assert_int_equal(c->fields.nalias_allowed, 2);
    assert_true(span_eq(c->fields.alias_allowed_spans[0], SPAN("x_legacy_id")));
    assert_true(span_eq(c->fields.alias_allowed_spans[1], SPAN("x.y")));
    assert_int_equal(c->limits.head_bytes, 4096);
    assert_int_equal(c->limits.header_count, 50);
    assert_int_equal(c->limits.connections_per_source, 0);
    assert_int_equal(c->timeouts.linger_ms, 0);
    assert_int_equal(c->timeouts.request_body_rate, 2048);
    assert_string_equal(c->logs.level, "debug");
    assert_int_equal(c->admin.address.kind, ENDPOINT_NONE);
    config_unref(c);
}

static void test_listeners_keep_their_order(void **state)
{
    (void)state;
    struct config *c = load_good("listeners:\n"
                                 "  - {address: \"127.0.0.1:1\", backlog: 16}\n"
                                 "  - address: \"[::1]:2\"\n"
                                 "  - address: \"unix:/run/gw.sock\"\n"
                                 "environments: {sandbox: {hosts: [a], upstream: \"b:1\"}}\n"
                                 "store: {file: /p}\n");
    assert_int_equal(c->nlisteners, 3);
    assert_int_equal(c->listeners[0].backlog, 16);
    assert_int_equal(c->listeners[1].backlog, 4096);
    assert_int_equal(c->listeners[1].address.port, 2);
    assert_int_equal(c->listeners[2].address.kind, ENDPOINT_UNIX);
    assert_false(c->environments[ENV_PRODUCTION].present);
    assert_int_equal(c->environments[ENV_SANDBOX].upstream.kind, ENDPOINT_NAME);
    config_unref(c);
}

static void test_paths_are_relative_to_the_file(void **state)
{
    (void)state;
    struct config *c = load_good("listeners: [{address: \"unix:run/gw.sock\"}]\n"
                                 "environments: {production: {hosts: [a], upstream: \"unix:/abs.sock\"}}\n"
                                 "store: {file: data/p.ndjson}\n"
                                 "logs: {access: access.log, operations: /var/log/ops.log}\n");
    assert_string_equal(c->listeners[0].address.host, "/etc/proofgw/run/gw.sock");
    assert_string_equal(c->listeners[0].address.text, "unix:run/gw.sock");
    assert_string_equal(c->environments[ENV_PRODUCTION].upstream.host, "/abs.sock");
    assert_string_equal(c->store.file, "/etc/proofgw/data/p.ndjson");
    assert_string_equal(c->logs.access, "/etc/proofgw/access.log");
    assert_string_equal(c->logs.operations, "/var/log/ops.log");
    config_unref(c);
}

static void test_folders_of_the_file(void **state)
{
    (void)state;
    static const char *const cases[][2] = {{"gateway.yaml", "partners.ndjson"},
                                           {"/gateway.yaml", "/./partners.ndjson"},
                                           {"./a/g.yaml", "./a/partners.ndjson"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct config *c = NULL;
        assert_int_equal(config_load_text(cases[i][0], span_str(CONFIG_REQUIRED), &c, stderr), ERR_OK);
        assert_string_equal(c->store.file, cases[i][1]);
        config_unref(c);
    }
}

static void test_relative_socket_path_is_bounded(void **state)
{
    (void)state;
    char path[160] = "/";
    memset(path + 1, 'd', 100);
    memcpy(path + 101, "/g.yaml", 8);
    const char *text = "listeners: [{address: \"unix:socket\"}]\n"
                       "environments: {production: {hosts: [a], upstream: \"b:1\"}}\nstore: {file: p}\n";
    struct config *c = NULL;
    FILE *nowhere = fopen("/dev/null", "w");
    assert_non_null(nowhere);
    assert_int_equal(config_load_text(path, span_str(text), &c, nowhere), ERR_PARSE);
    fclose(nowhere);
}

static void test_environment_variables(void **state)
{
    (void)state;
    setenv("GW_PORT", "8443", 1);
    setenv("GW_HOST", "env.example", 1);
    unsetenv("GW_FILE");
    struct config *c =
        load_good("listeners: [{address: \"127.0.0.1:${GW_PORT}\"}]\n"
                  "environments: {production: {hosts: [\"${GW_HOST}\"], upstream: \"a:${GW_PORT}\"}}\n"
                  "store: {file: \"${GW_FILE:-p}$$.ndjson\"}\n");
    assert_int_equal(c->listeners[0].address.port, 8443);
    assert_string_equal(c->environments[ENV_PRODUCTION].hosts[0], "env.example");
    assert_string_equal(c->store.file, "/etc/proofgw/p$.ndjson");
    config_unref(c);
}

static void test_environment_variables_are_never_structure(void **state)
{
    (void)state;
    setenv("GW_HOST", "a, b]}", 1);
    assert_refused(
        "listeners: [{address: \"127.0.0.1:1\"}]\n"
        "environments: {production: {hosts: [\"${GW_HOST}\"], upstream: \"a:1\"}}\nstore: {file: p}\n",
        "environments.production.hosts[0]: \"a, b]}\" (after substitution)");
}

static void test_hosts_find_their_environment(void **state)
{
    (void)state;
    struct config *c = load_good("listeners: [{address: \"127.0.0.1:1\"}]\n"
                                 "environments:\n"
                                 "  production: {hosts: [API.example.com, \"[::1]\"], upstream: \"a:1\"}\n"
                                 "  sandbox: {hosts: [sandbox.example.com], upstream: \"a:2\"}\n"
                                 "store: {file: p}\n");
    enum environment env = ENV_SANDBOX;
    assert_true(config_find_host(c, SPAN("api.EXAMPLE.com"), &env));
    assert_int_equal(env, ENV_PRODUCTION);
    assert_true(config_find_host(c, SPAN("[::1]"), &env));
    assert_true(config_find_host(c, SPAN("sandbox.example.com"), &env));
    assert_int_equal(env, ENV_SANDBOX);
    assert_false(config_find_host(c, SPAN("example.com"), &env));
    assert_false(config_find_host(c, SPAN("api.example.com."), &env));
    assert_false(config_find_host(c, SPAN(""), &env));
    config_unref(c);
}

static void test_lists_up_to_their_limit(void **state)
{
    (void)state;
    char text[4096];
    struct outbuf o = outbuf_of(text, sizeof text - 1);
    outbuf_str(&o, "listeners:\n");
    for (unsigned i = 0; i < CONFIG_LISTENERS_MAX; i++)
        outbuf_fmt(&o, "  - address: \"127.0.0.1:%u\"\n", 8000 + i);
    outbuf_str(&o, "environments:\n  production:\n    upstream: \"a:1\"\n    hosts:\n");
    for (unsigned i = 0; i < CONFIG_HOSTS_MAX; i++)
        outbuf_fmt(&o, "      - h%u.example\n", i);
    outbuf_str(&o, "store: {file: p}\n");
    text[o.n] = 0;
    struct config *c = load_good(text);
    assert_int_equal(c->nlisteners, CONFIG_LISTENERS_MAX);
    assert_int_equal(c->environments[ENV_PRODUCTION].nhosts, CONFIG_HOSTS_MAX);
    config_unref(c);
}

static void test_byte_order_mark_and_windows_line_ends(void **state)
{
    (void)state;
    config_unref(load_good(
        "\xef\xbb\xbf---\r\nlisteners: [{address: \"127.0.0.1:8080\"}]\r\n"
        "# comment with a tab\there\r\n\r\n"
        "environments: {production: {hosts: [a], upstream: \"b:1\"}}\r\nstore: {file: p}\r\n...\r\n"));
}

static void test_commented_out_sections_are_empty(void **state)
{
    (void)state;
    config_unref(load_good(CONFIG_REQUIRED "limits:\n#  head: 4KiB\ntimeouts:\n\nidentity: {}\n"));
}

/* All workers together reach it, and how many "auto" is depends on the machine. */
static void test_an_address_may_have_more_connections_than_a_worker(void **state)
{
    (void)state;
    config_unref(load_good(CONFIG_REQUIRED
                           "workers: 2\n"
                           "limits: {connections_per_worker: 4, connections_per_source: 8}\n"));
    config_unref(load_good(CONFIG_REQUIRED
                           "workers: auto\n"
                           "limits: {connections_per_worker: 4, connections_per_source: 9}\n"));
}

/* Every limit that a contradiction check compares may be set alone. */
static void test_one_lowered_limit_is_no_contradiction(void **state)
{
    (void)state;
    config_unref(load_good(CONFIG_REQUIRED
                           "limits: {connections_per_worker: 4, upstream_connections: 1, head: 1KiB}\n"));
}

static void test_redis_store(void **state)
{
    (void)state;
    struct config *c = load_good("listeners: [{address: \"127.0.0.1:1\"}]\n"
                                 "environments: {production: {hosts: [a], upstream: \"b:1\"}}\n"
                                 "store:\n  kind: redis\n  snapshot: var/partners.snapshot\n"
                                 "  redis: {address: \"unix:/run/redis.sock\", user: gateway, "
                                 "password_file: secret, max_staleness: 1h}\n");
    const struct config_redis *r = &c->store.redis;
    assert_int_equal(c->store.kind, STORE_REDIS);
    assert_null(c->store.file);
    assert_string_equal(c->store.snapshot, "/etc/proofgw/var/partners.snapshot");
    assert_int_equal(r->address.kind, ENDPOINT_UNIX);
    assert_string_equal(r->user, "gateway");
    assert_string_equal(r->password_file, "/etc/proofgw/secret");
    assert_string_equal(r->tag, "cfg");
    assert_null(r->sentinel_master);
    assert_int_equal(r->connect_timeout_ms, 2000);
    assert_int_equal(r->max_staleness_ms, 3600000);
    assert_int_equal(r->deletion_limit, 20);
    config_unref(c);
}

static void test_sentinels(void **state)
{
    (void)state;
    struct config *c = load_good("listeners: [{address: \"127.0.0.1:1\"}]\n"
                                 "environments: {production: {hosts: [a], upstream: \"b:1\"}}\n"
                                 "store:\n  kind: redis\n  redis:\n    sentinel:\n      master: main\n"
                                 "      addresses:\n        - address: \"10.0.0.1:26379\"\n"
                                 "        - address: \"sentinel.internal:26379\"\n");
    const struct config_redis *r = &c->store.redis;
    assert_int_equal(r->address.kind, ENDPOINT_NONE);
    assert_string_equal(r->sentinel_master, "main");
    assert_int_equal(r->nsentinels, 2);
    assert_string_equal(r->sentinels[1].address.host, "sentinel.internal");
    assert_null(c->store.snapshot);
    config_unref(c);
}

static void test_destroy_nothing(void **state)
{
    (void)state;
    config_unref(NULL);
}

static void load_path(const char *path, enum err expected, const char *text)
{
    char *report;
    struct config *c;
    assert_int_equal(load_reporting(path, NULL, &c, &report), expected);
    if (strstr(report, text) == NULL) fail_msg("\"%s\" is not in: %s", text, report);
    free(report);
    config_unref(c);
}

static void test_files_that_cannot_be_read(void **state)
{
    (void)state;
    load_path("/nonexistent/gateway.yaml", ERR_IO,
              "/nonexistent/gateway.yaml: error: cannot be read: No such file or directory\n");
    load_path("/", ERR_IO, "/: error: cannot be read: Is a directory\n");
}

static void test_files_that_are_too_large(void **state)
{
    (void)state;
    load_path("/dev/zero", ERR_PARSE, "/dev/zero: error: the file is larger than 4 MiB");
}

static void test_a_file_is_read_whole(void **state)
{
    (void)state;
    char path[] = "/tmp/proofgw_test_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, CONFIG_REQUIRED, strlen(CONFIG_REQUIRED)), strlen(CONFIG_REQUIRED));
    close(fd);
    char *report;
    struct config *c;
    assert_int_equal(load_reporting(path, NULL, &c, &report), ERR_OK);
    assert_string_equal(report, "");
    free(report);
    config_unref(c);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_values_replace_defaults),
        cmocka_unit_test(test_listeners_keep_their_order),
        cmocka_unit_test(test_paths_are_relative_to_the_file),
        cmocka_unit_test(test_folders_of_the_file),
        cmocka_unit_test(test_relative_socket_path_is_bounded),
        cmocka_unit_test(test_environment_variables),
        cmocka_unit_test(test_environment_variables_are_never_structure),
        cmocka_unit_test(test_hosts_find_their_environment),
        cmocka_unit_test(test_lists_up_to_their_limit),
        cmocka_unit_test(test_byte_order_mark_and_windows_line_ends),
        cmocka_unit_test(test_commented_out_sections_are_empty),
        cmocka_unit_test(test_one_lowered_limit_is_no_contradiction),
        cmocka_unit_test(test_an_address_may_have_more_connections_than_a_worker),
        cmocka_unit_test(test_redis_store),
        cmocka_unit_test(test_sentinels),
        cmocka_unit_test(test_destroy_nothing),
        cmocka_unit_test(test_files_that_cannot_be_read),
        cmocka_unit_test(test_files_that_are_too_large),
        cmocka_unit_test(test_a_file_is_read_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
