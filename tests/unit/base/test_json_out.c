/* The JSON writer: commas, keys, escapes, overflow. */
#include "base/json_out.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>

enum { ROOM = 512 };

struct page {
    char mem[ROOM];
    struct outbuf o;
    struct json_out j;
};

static struct json_out *begin(struct page *p)
{
    p->o = outbuf_of(p->mem, sizeof p->mem);
    p->j = json_out_of(&p->o);
    return &p->j;
}

static void holds(const struct page *p, const char *text)
{
    assert_false(p->o.overflow);
    assert_int_equal(p->o.n, strlen(text));
    assert_memory_equal(p->o.p, text, p->o.n);
}

static void values_of_every_kind(void **state)
{
    (void)state;
    struct page p;
    struct json_out *j = begin(&p);
    json_out_object(j, NULL);
    json_out_text(j, "text", "a");
    json_out_text(j, "no_text", NULL);
    json_out_span(j, "span", SPAN("b"));
    json_out_time(j, "time", 1);
    json_out_u64(j, "zero", 0);
    json_out_u64(j, "most", UINT64_MAX);
    json_out_bool(j, "yes", true);
    json_out_bool(j, "no", false);
    json_out_null(j, "null");
    json_out_end_object(j);
    holds(&p,
          "{\"text\":\"a\",\"no_text\":null,\"span\":\"b\",\"time\":\"1970-01-01T00:00:00.001Z\",\"zero\":0,"
          "\"most\":18446744073709551615,\"yes\":true,\"no\":false,\"null\":null}");
    json_t *read = json_loadb(p.o.p, p.o.n, JSON_DECODE_INT_AS_REAL, NULL);
    assert_non_null(read);
    json_decref(read);
}

static void commas_are_between_values_only(void **state)
{
    (void)state;
    struct page p;
    struct json_out *j = begin(&p);
    json_out_array(j, NULL);
    json_out_object(j, NULL);
    json_out_end_object(j);
    json_out_object(j, NULL);
    json_out_array(j, "empty");
    json_out_end_array(j);
    json_out_array(j, "list");
    json_out_u64(j, NULL, 1);
    json_out_null(j, NULL);
    json_out_array(j, NULL);
    json_out_end_array(j);
    json_out_text(j, NULL, "c");
    json_out_end_array(j);
    json_out_bool(j, "last", true);
    json_out_end_object(j);
    json_out_end_array(j);
    holds(&p, "[{},{\"empty\":[],\"list\":[1,null,[],\"c\"],\"last\":true}]");
}

static void strings_are_escaped(void **state)
{
    (void)state;
    struct page p;
    struct json_out *j = begin(&p);
    json_out_array(j, NULL);
    json_out_text(j, NULL, "a\"b\\\n\x01");
    json_out_span(j, NULL, span_of("\0\xff", 2));
    json_out_span(j, NULL, span_of(NULL, 0));
    json_out_end_array(j);
    holds(&p, "[\"a\\\"b\\\\\\n\\u0001\",\"\\u0000\\u00ff\",\"\"]");
}

/* As a survey does it: each worker writes values without brackets, or none. */
static void what_others_wrote_is_joined(void **state)
{
    (void)state;
    struct page p, part;
    json_out_u64(begin(&part), NULL, 1);
    json_out_u64(&part.j, NULL, 2);
    holds(&part, "1,2");
    const struct span some = span_of(part.o.p, part.o.n), none = span_of(NULL, 0);
    struct json_out *j = begin(&p);
    json_out_object(j, NULL);
    json_out_array(j, "list");
    json_out_raw(j, none);
    json_out_raw(j, some);
    json_out_raw(j, none);
    json_out_raw(j, some);
    json_out_end_array(j);
    json_out_raw(j, SPAN("\"a\":1,\"b\":2"));
    json_out_raw(j, none);
    json_out_null(j, "c");
    json_out_end_object(j);
    holds(&p, "{\"list\":[1,2,1,2],\"a\":1,\"b\":2,\"c\":null}");
}

static void what_does_not_fit_is_remembered(void **state)
{
    (void)state;
    static const char whole[] = "{\"a\":[1,\"b\"],\"c\":true}";
    for (size_t room = 0; room < sizeof whole; room++) {
        char mem[sizeof whole];
        struct outbuf o = outbuf_of(mem, room);
        struct json_out j = json_out_of(&o);
        json_out_object(&j, NULL);
        json_out_array(&j, "a");
        json_out_u64(&j, NULL, 1);
        json_out_text(&j, NULL, "b");
        json_out_end_array(&j);
        json_out_bool(&j, "c", true);
        json_out_end_object(&j);
        assert_true(o.overflow == (room < sizeof whole - 1));
        assert_memory_equal(mem, whole, o.n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_of_every_kind),
        cmocka_unit_test(commas_are_between_values_only),
        cmocka_unit_test(strings_are_escaped),
        cmocka_unit_test(what_others_wrote_is_joined),
        cmocka_unit_test(what_does_not_fit_is_remembered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
