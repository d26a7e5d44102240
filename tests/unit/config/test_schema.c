/* The table itself: complete rows, and what the loader relies on. */
#include "config/schema.h"

#include "config/config.h"
#include "config/value.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static bool is_number(const struct schema_key *key)
{
    return key->type == SCHEMA_COUNT || key->type == SCHEMA_SIZE || key->type == SCHEMA_DURATION;
}

static void test_every_row_is_complete(void **state)
{
    (void)state;
    for (unsigned i = 0; i < schema_nkeys; i++) {
        const struct schema_key *key = &schema_keys[i];
        size_t n = strlen(key->help);
        assert_true(n > 8 && key->help[n - 1] == '.');
        if (key->type != SCHEMA_SECTION) assert_true(key->size > 0);
        if (!schema_is_container(key) || key->required) assert_non_null(key->value);
        if (key->type == SCHEMA_ENUM || key->type == SCHEMA_WORD) assert_non_null(key->words);
        assert_true(key->offset + key->size <= sizeof(struct config));
    }
}

static void test_ranges_fit_their_fields(void **state)
{
    (void)state;
    for (unsigned i = 0; i < schema_nkeys; i++) {
        const struct schema_key *key = &schema_keys[i];
        if (!is_number(key)) continue;
        assert_true(key->min < key->max);
        assert_true(key->size == sizeof(uint64_t) || key->size == sizeof(uint32_t));
        if (key->size == sizeof(uint32_t)) assert_true(key->max <= INT32_MAX);
    }
}

static void test_defaults_are_valid_values(void **state)
{
    (void)state;
    struct config *c = calloc(1, sizeof *c);
    assert_non_null(c);
    for (unsigned i = 0; i < schema_nkeys; i++) {
        const struct schema_key *key = &schema_keys[i];
        struct errmsg why;
        memset(c, 0, sizeof *c); /* offsets of list entries begin at 0 again */
        if (schema_is_container(key) || schema_is_text_list(key)) continue;
        if (value_store(key, span_str(key->value), SPAN("/folder"), c, &why))
            fail_msg("%s: \"%s\": %s", key->path, key->value, why.text);
        value_release(key, c);
    }
    free(c);
}

static void test_paths_are_unique_and_found(void **state)
{
    (void)state;
    for (unsigned i = 0; i < schema_nkeys; i++)
        for (unsigned j = i + 1; j < schema_nkeys; j++)
            assert_string_not_equal(schema_keys[i].path, schema_keys[j].path);
    const struct schema_key *limits = schema_find(NULL, SPAN("limits"));
    assert_non_null(limits);
    assert_string_equal(schema_find(limits, SPAN("head"))->path, "limits.head");
    const struct schema_key *listeners = schema_find(NULL, SPAN("listeners"));
    assert_string_equal(schema_find(listeners, SPAN("address"))->path, "listeners[].address");
    assert_null(schema_find(NULL, SPAN("head")));
    assert_null(schema_find(NULL, SPAN("limits.head")));
    assert_null(schema_find(limits, SPAN("keep_alive")));
    assert_null(schema_find(limits, SPAN("")));
}

/* Counts the keys that can be reached by walking; every row must be. */
static unsigned walk(const struct schema_key *section)
{
    unsigned n = 0, direct = 0;
    for (const struct schema_key *key = NULL; (key = schema_next(section, key)) != NULL; direct++)
        n += 1 + (schema_is_container(key) ? walk(key) : 0);
    assert_true(direct <= 32); /* SECTION_KEYS_MAX of load.c */
    return n;
}

static void test_every_row_can_be_reached(void **state)
{
    (void)state;
    assert_int_equal(walk(NULL), schema_nkeys);
}

static void test_what_is_expected_fits_a_message(void **state)
{
    (void)state;
    for (unsigned i = 0; i < schema_nkeys; i++) {
        char text[320];
        value_expected(&schema_keys[i], text, sizeof text);
        assert_in_range(strlen(text), 4, 200);
    }
}

/* docs/CONFIG.md prints keys below the heading that came last. */
static void test_keys_follow_the_heading_they_belong_to(void **state)
{
    (void)state;
    const struct schema_key *heading = NULL;
    for (unsigned i = 0; i < schema_nkeys; i++) {
        const struct schema_key *key = &schema_keys[i];
        if (schema_is_container(key)) {
            heading = key;
        } else if (schema_find(heading, span_str(schema_name(key))) != key) {
            fail_msg("%s is printed below %s", key->path, heading ? heading->path : "the top level");
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_row_is_complete),
        cmocka_unit_test(test_ranges_fit_their_fields),
        cmocka_unit_test(test_defaults_are_valid_values),
        cmocka_unit_test(test_paths_are_unique_and_found),
        cmocka_unit_test(test_every_row_can_be_reached),
        cmocka_unit_test(test_what_is_expected_fits_a_message),
        cmocka_unit_test(test_keys_follow_the_heading_they_belong_to),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
