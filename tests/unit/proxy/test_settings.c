/* Who holds a generation, and when it goes: counted by threads (TSan) and freed once (ASan). */
#include "proxy/settings.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static struct generation *make(uint64_t number)
{
    static const char text[] = "listeners: [{address: \"127.0.0.1:8080\"}]\n"
                               "environments: {production: {hosts: [a.test], upstream: \"127.0.0.1:9000\"}}\n"
                               "store: {file: p.ndjson}\n"
                               "fields: {alias_allowed: [x_a]}\n"
                               "limits: {body: 7, header_count: 9, target: 100, trailer: 3}\n";
    struct config *c;
    assert_int_equal(config_load_text("g.yaml", span_of(text, sizeof text - 1), &c, stderr), ERR_OK);
    struct generation *g = generation_create(number, c);
    assert_non_null(g);
    assert_ptr_equal(g->config, c);
    assert_int_equal(g->number, number);
    return g;
}

static void settings_follow_from_the_configuration(void **state)
{
    (void)state;
    struct generation *g = make(1);
    struct worker_settings *s = settings_create(g);
    generation_unref(g); /* the settings hold it */
    assert_non_null(s);
    assert_int_equal(s->config->limits.body_bytes, 7);
    assert_int_equal(s->head_limits.fields_max, 9);
    assert_int_equal(s->head_limits.target_bytes_max, 100);
    assert_int_equal(s->head_limits.nalias_allowed, 1);
    assert_int_equal(s->response_head_limits.alias, ALIAS_ALLOW);
    assert_int_equal(s->body_limits.body_bytes_max, 7);
    assert_int_equal(s->body_limits.trailer_bytes_max, 3);
    assert_true(s->response_body_limits.body_bytes_max == UINT64_MAX);
    settings_unref(s);
}

static void the_last_reference_frees(void **state)
{
    (void)state;
    struct generation *g = make(2);
    struct worker_settings *s = settings_create(g);
    assert_ptr_equal(settings_ref(s), s);
    assert_int_equal(atomic_load(&g->refs), 2);
    settings_unref(s);
    assert_int_equal(atomic_load(&g->refs), 2);
    settings_unref(s);
    assert_int_equal(atomic_load(&g->refs), 1);
    assert_ptr_equal(generation_ref(g), g);
    generation_unref(g);
    assert_int_equal(g->number, 2);
    generation_unref(g);
    generation_unref(NULL);
    settings_unref(NULL);
}

enum { THREADS = 4, ROUNDS = 10000 };

static void *hold_and_drop(void *arg)
{
    struct worker_settings *s = arg;
    struct generation *g = s->generation;
    for (int i = 0; i < ROUNDS; i++)
        generation_unref(generation_ref(g));
    settings_unref(s); /* one of these is the last */
    return NULL;
}

static void threads_let_go_at_any_time(void **state)
{
    pthread_t threads[THREADS];
    struct generation *g = make(3);
    (void)state;
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, hold_and_drop, settings_create(g)), 0);
    generation_unref(g);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(settings_follow_from_the_configuration),
        cmocka_unit_test(the_last_reference_frees),
        cmocka_unit_test(threads_let_go_at_any_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
