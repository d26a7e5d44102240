/* Metrics: sums over threads, the exposition text, and what promtool says of it. */
#include "base/metrics.h"

#include "support/folder.h"
#include "support/skip.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char text[METRICS_TEXT_MAX + 1];

static const char *const denies[] = {"none", "no_route", "token_missing"};
static const char *const bad_requests[] = {"none", "syntax"};
static const char *const whos[] = {"client", "backend"};
static const char *const phases[] = {"head", "body", "done"};
static const char *const limits[] = {"connections"};
static const char *const closes[] = {"client", "idle"};

#define VALUES(array)                                                                                        \
    {                                                                                                        \
        (array), sizeof(array) / sizeof *(array)                                                             \
    }

static const struct metrics_labels labels = {
    .deny = VALUES(denies),
    .bad_request = VALUES(bad_requests),
    .end_who = VALUES(whos),
    .end_phase = VALUES(phases),
    .limit = VALUES(limits),
    .tunnel_close = VALUES(closes),
};

static int labels_set(void **state)
{
    (void)state;
    metrics_init(&labels);
    return 0;
}

static int blocks_free(void **state)
{
    (void)state;
    metrics_deinit();
    return 0;
}

static struct metrics_block *block_make(void)
{
    struct metrics_block *b = metrics_block_create();
    assert_non_null(b);
    assert_int_equal((uintptr_t)b % 64, 0);
    return b;
}

static void scrape(void)
{
    struct outbuf o = outbuf_of(text, sizeof text - 1);
    metrics_write(&o);
    assert_false(o.overflow);
    text[o.n] = '\0';
}

/* The page has this whole line. */
static bool has_line(const char *line)
{
    size_t n = strlen(line);
    for (const char *at = text; (at = strstr(at, line)); at++)
        if ((at == text || at[-1] == '\n') && at[n] == '\n') return true;
    return false;
}

static void shows(const char *line)
{
    scrape();
    if (!has_line(line)) fail_msg("no line: %s", line);
}

static void blocks_are_summed(void **state)
{
    (void)state;
    struct metrics_block *a = block_make(), *b = block_make();
    metrics_add(a, METRIC_CONNECTIONS_ACCEPTED, 0, 2);
    metrics_add(a, METRIC_CONNECTIONS_ACCEPTED, 0, 3);
    metrics_add(b, METRIC_CONNECTIONS_ACCEPTED, 0, 40);
    shows("proofgw_connections_accepted_total 45");
    shows("# TYPE proofgw_connections_accepted_total counter");
}

static void families_without_counts_are_zero(void **state)
{
    (void)state;
    shows("proofgw_connections_accepted_total 0");
    shows("proofgw_upstream_connects_total{env=\"sandbox\"} 0");
    shows("proofgw_auth_denied_total{reason=\"token_missing\",env=\"production\"} 0");
    shows("proofgw_ends_total{who=\"backend\",phase=\"done\"} 0");
}

static void series_that_may_never_happen_are_hidden_while_zero(void **state)
{
    (void)state;
    struct metrics_block *b = block_make();
    scrape();
    assert_null(strstr(text, "\"none\""));
    assert_null(strstr(text, "proofgw_http_requests_total{"));
    metrics_add2(b, METRIC_AUTH_DENIED, 1, METRICS_ENV_NONE, 1);
    shows("proofgw_auth_denied_total{reason=\"no_route\",env=\"none\"} 1");
}

static void two_labels_have_their_own_cells(void **state)
{
    (void)state;
    struct metrics_block *b = block_make();
    for (unsigned who = 0; who < 2; who++)
        for (unsigned phase = 0; phase < 3; phase++)
            metrics_add2(b, METRIC_ENDS, who, phase, 10 * who + phase);
    shows("proofgw_ends_total{who=\"client\",phase=\"body\"} 1");
    shows("proofgw_ends_total{who=\"backend\",phase=\"head\"} 10");
    shows("proofgw_ends_total{who=\"backend\",phase=\"done\"} 12");
}

static void requests_have_four_labels(void **state)
{
    (void)state;
    struct metrics_block *b = block_make();
    metrics_count_request(b, 0, 1, 1, 200);
    metrics_count_request(b, 0, 1, 1, 200);
    metrics_count_request(b, 1, 2, 7, 101);
    metrics_count_request(b, METRICS_ENV_NONE, 0, 0, 400);
    metrics_count_request(b, 0, 1, 3, 505);
    shows("proofgw_http_requests_total{env=\"production\",route=\"widget\",method=\"GET\",code=\"200\"} 2");
    shows("proofgw_http_requests_total{env=\"sandbox\",route=\"ws\",method=\"OPTIONS\",code=\"101\"} 1");
    shows("proofgw_http_requests_total{env=\"none\",route=\"none\",method=\"none\",code=\"400\"} 1");
    shows("proofgw_http_requests_total{env=\"production\",route=\"widget\",method=\"POST\",code=\"505\"} 1");
}

static void rare_statuses_share_other(void **state)
{
    (void)state;
    static const unsigned rare[] = {0, 199, 299, 418, 599, 600, 999, UINT32_MAX};
    struct metrics_block *b = block_make();
    for (size_t i = 0; i < sizeof rare / sizeof *rare; i++)
        metrics_count_request(b, 0, 1, 1, rare[i]);
    shows("proofgw_http_requests_total{env=\"production\",route=\"widget\",method=\"GET\",code=\"other\"} 8");
    for (unsigned status = 100; status < 600; status++)
        assert_in_range(metrics_code(status), 0, LABEL_CODE_MAX - 1);
}

static void gauges_go_up_and_down_across_blocks(void **state)
{
    (void)state;
    struct metrics_block *a = block_make(), *b = block_make();
    metrics_gauge_set(a, METRIC_CONNECTIONS_OPEN, 0, 5);
    metrics_gauge_set(b, METRIC_CONNECTIONS_OPEN, 0, -2);
    shows("proofgw_connections_open 3");
    shows("# TYPE proofgw_connections_open gauge");
    metrics_gauge_set(b, METRIC_CONNECTIONS_OPEN, 0, -6);
    shows("proofgw_connections_open -1");
    metrics_gauge_set(a, METRIC_TUNNELS_OPEN, 1, 7);
    metrics_gauge_set(a, METRIC_TUNNELS_OPEN, 1, 6);
    shows("proofgw_tunnels_open{env=\"sandbox\"} 6");
}

static void histogram_is_cumulative(void **state)
{
    (void)state;
    struct metrics_block *a = block_make(), *b = block_make();
    metrics_observe(a, METRIC_HTTP_REQUEST_DURATION, 1, 0);
    metrics_observe(a, METRIC_HTTP_REQUEST_DURATION, 1, 500); /* a bound belongs to its bucket */
    metrics_observe(b, METRIC_HTTP_REQUEST_DURATION, 1, 501);
    metrics_observe(b, METRIC_HTTP_REQUEST_DURATION, 1, 60000001);
    shows("proofgw_http_request_duration_seconds_bucket{route=\"widget\",le=\"0.0005\"} 2");
    shows("proofgw_http_request_duration_seconds_bucket{route=\"widget\",le=\"0.001\"} 3");
    shows("proofgw_http_request_duration_seconds_bucket{route=\"widget\",le=\"60\"} 3");
    shows("proofgw_http_request_duration_seconds_bucket{route=\"widget\",le=\"+Inf\"} 4");
    shows("proofgw_http_request_duration_seconds_sum{route=\"widget\"} 60.001002");
    shows("proofgw_http_request_duration_seconds_count{route=\"widget\"} 4");
    shows("proofgw_http_request_duration_seconds_count{route=\"ws\"} 0");
    shows("# TYPE proofgw_http_request_duration_seconds histogram");
}

static void families_of_other_modules(void **state)
{
    (void)state;
    static const struct metric_label quoted[] = {{"version", "0.1\"\\\n"}, {"commit", "abc"}};
    struct outbuf o = outbuf_of(text, sizeof text - 1);
    metrics_family(&o, "proofgw_build_info", METRIC_GAUGE, "Back\\slash and\nnewline \"quoted\".");
    metrics_sample(&o, "proofgw_build_info", quoted, 2, 1);
    metrics_sample(&o, "plain", NULL, 0, 18446744073709551615u);
    metrics_sample_milli(&o, "process_start_time_seconds", NULL, 0, 1795267503123);
    assert_false(o.overflow);
    text[o.n] = '\0';
    assert_string_equal(text, "# HELP proofgw_build_info Back\\\\slash and\\nnewline \"quoted\".\n"
                              "# TYPE proofgw_build_info gauge\n"
                              "proofgw_build_info{version=\"0.1\\\"\\\\\\n\",commit=\"abc\"} 1\n"
                              "plain 18446744073709551615\n"
                              "process_start_time_seconds 1795267503.123\n");
}

static void every_cell_has_its_own_series(void **state)
{
    (void)state;
    unsigned next = 0;
    for (enum metric m = 0; m < METRIC_COUNT; m++) {
        assert_int_equal(metric_shapes[m].at, next);
        next += metric_shapes[m].cells;
    }
    assert_int_equal(next, METRICS_CELLS);
}

static void largest_page_fits(void **state)
{
    (void)state;
    static const char *const longest = "a_reason_with_a_long_name";
    const char *values[64];
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        values[i] = longest;
    struct metrics_labels full = {
        .deny = {values, LABEL_DENY_MAX},
        .bad_request = {values, LABEL_BAD_REQUEST_MAX},
        .end_who = {values, LABEL_END_WHO_MAX},
        .end_phase = {values, LABEL_END_PHASE_MAX},
        .limit = {values, LABEL_LIMIT_MAX},
        .tunnel_close = {values, LABEL_TUNNEL_CLOSE_MAX},
    };
    metrics_init(&full);
    struct metrics_block *b = block_make();
    for (unsigned i = 0; i < METRICS_CELLS; i++)
        atomic_store(&b->cells[i], UINT64_MAX / 100);
    scrape();
    metrics_init(&labels);
}

static void too_small_a_page_overflows(void **state)
{
    (void)state;
    char small[100];
    struct outbuf o = outbuf_of(small, sizeof small);
    metrics_write(&o);
    assert_true(o.overflow);
}

static void promtool_accepts_the_page(void **state)
{
    char folder[FOLDER_PATH_MAX], command[2 * FOLDER_PATH_MAX];
    if (system("command -v promtool >/dev/null 2>&1") != 0) SKIP("there is no promtool here");
    histogram_is_cumulative(state);
    requests_have_four_labels(state);
    scrape();
    folder_make(folder);
    folder_write_text(folder, "page.txt", text);
    (void)snprintf(command, sizeof command, "promtool check metrics < '%s/page.txt' 1>&2", folder);
    int status = system(command);
    folder_remove(folder);
    assert_int_equal(status, 0);
}

static void reference_names_every_family(void **state)
{
    (void)state;
    struct outbuf o = outbuf_of(text, sizeof text - 1);
    metrics_reference(&o);
    assert_false(o.overflow);
    text[o.n] = '\0';
    assert_true(has_line("| `proofgw_auth_denied_total` | counter | `reason`, `env` | "
                         "Requests refused by the policy, by the true reason. |"));
    assert_true(has_line("| `who` | `proofgw_ends_total` | `client`, `backend` |"));
#define XX(id, name, kind, l1, l2, l3, l4, help) assert_non_null(strstr(text, "| `proofgw_" name "` |"));
    METRIC_MAP(XX)
#undef XX
}

enum { THREAD_ADDS = 300000 };

static void *adder_run(void *arg)
{
    for (int i = 0; i < THREAD_ADDS; i++)
        metrics_add(arg, METRIC_CLIENT_BYTES_SENT, 0, 1);
    return NULL;
}

static void scrape_while_threads_count(void **state)
{
    (void)state;
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, adder_run, block_make()), 0);
    for (int i = 0; i < 20; i++)
        scrape();
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    shows("proofgw_client_bytes_sent_total 600000");
}

#define METRICS_TEST(f) cmocka_unit_test_teardown(f, blocks_free)

int main(void)
{
    const struct CMUnitTest tests[] = {
        METRICS_TEST(blocks_are_summed),
        METRICS_TEST(families_without_counts_are_zero),
        METRICS_TEST(series_that_may_never_happen_are_hidden_while_zero),
        METRICS_TEST(two_labels_have_their_own_cells),
        METRICS_TEST(requests_have_four_labels),
        METRICS_TEST(rare_statuses_share_other),
        METRICS_TEST(gauges_go_up_and_down_across_blocks),
        METRICS_TEST(histogram_is_cumulative),
        METRICS_TEST(families_of_other_modules),
        METRICS_TEST(every_cell_has_its_own_series),
        METRICS_TEST(largest_page_fits),
        METRICS_TEST(too_small_a_page_overflows),
        METRICS_TEST(promtool_accepts_the_page),
        METRICS_TEST(reference_names_every_family),
        METRICS_TEST(scrape_while_threads_count),
    };
    return cmocka_run_group_tests(tests, labels_set, NULL);
}
