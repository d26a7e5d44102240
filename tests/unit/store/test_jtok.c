#include "store/jtok.h"

#include <jansson.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define MUTATIONS 40000

/* The kinds of all tokens of `text`, a letter each; '!' for JTOK_BAD. */
static const char *trace(const char *text)
{
    static char out[256];
    static const char letters[] = "!${}[]ksntf0";
    struct jtok r;
    size_t n = 0;
    enum jtok_kind kind;
    jtok_init(&r, span_str(text));
    do {
        kind = jtok_next(&r);
        out[n++] = letters[kind];
    } while (kind != JTOK_BAD && kind != JTOK_END && n < sizeof out - 1);
    out[n] = '\0';
    return out;
}

static void every_kind_of_token_is_told_apart(void **state)
{
    (void)state;
    assert_string_equal(
        trace("{\"a\":[1,-2.5e+3,\"x\"],\"b\":{},\"c\":true,\"d\":false,\"e\":null,\"f\":[]}"),
        "{k[nns]k{}ktkfk0k[]}$");
    assert_string_equal(trace(" \t\r\n\"alone\" "), "s$");
    assert_string_equal(trace("0"), "n$");
    assert_string_equal(trace("[[[]],[]]"), "[[[]][]]$");
}

/* What is refused, where (byte offset), and how the acceptable neighbour looks. */
static const struct refusal {
    const char *bad;
    size_t at;
    const char *good;
} refusals[] = {
    {"", 0, "1"},
    {"{\"a\":1,}", 7, "{\"a\":1}"},
    {"[1,]", 3, "[1]"},
    {"[1 2]", 3, "[1,2]"},
    {"{\"a\" 1}", 5, "{\"a\":1}"},
    {"{a:1}", 1, "{\"a\":1}"},
    {"{'a':1}", 1, "{\"a\":1}"},
    {"{\"a\":1]", 6, "{\"a\":1}"},
    {"[1}", 2, "[1]"},
    {"{\"a\":1", 6, "{\"a\":1}"},
    {"{} {}", 3, "{} "},
    {"tru", 0, "true"},
    {"True", 0, "true"},
    {"[01]", 1, "[10]"},
    {"[1.]", 1, "[1.0]"},
    {"[.5]", 1, "[0.5]"},
    {"[+1]", 1, "[1]"},
    {"[-]", 1, "[-1]"},
    {"[1e]", 1, "[1e1]"},
    {"[NaN]", 1, "[0]"},
    {"\"open", 0, "\"open\""},
    {"\"tab\there\"", 4, "\"tab\\there\""},
    {"\"\\x41\"", 1, "\"\\u0041\""},
    {"\"\\u004\"", 1, "\"\\u0041\""},
    {"\"\\u0000\"", 1, "\"\\u0001\""},
    {"\"\\ud800\"", 1, "\"\\ud800\\udc00\""},
    {"\"\\ud800\\u0041\"", 1, "\"\\ud800\\udfff\""},
    {"\"\\udc00\"", 1, "\"\\ue000\""},
    {"\"\x80\"", 1, "\"\xc2\x80\""},
    {"\"\xc1\xbf\"", 1, "\"\xc2\x80\""},
    {"\"\xe0\x9f\xbf\"", 1, "\"\xe0\xa0\x80\""},
    {"\"\xed\xa0\x80\"", 1, "\"\xed\x9f\xbf\""},
    {"\"\xf0\x8f\xbf\xbf\"", 1, "\"\xf0\x90\x80\x80\""},
    {"\"\xf4\x90\x80\x80\"", 1, "\"\xf4\x8f\xbf\xbf\""},
    {"\"\xc3\"", 1, "\"\xc3\xa4\""},
    {"\xef\xbb\xbf{}", 0, "{}"},
    {"// comment\n{}", 0, "{}"},
};

static void malformed_text_is_refused_where_it_is_malformed(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        struct jtok r;
        jtok_init(&r, span_str(refusals[i].bad));
        enum jtok_kind kind;
        while ((kind = jtok_next(&r)) != JTOK_BAD)
            assert_int_not_equal(kind, JTOK_END);
        assert_int_equal(r.at - r.begin, refusals[i].at);
        assert_non_null(r.problem);
    }
}

static void the_neighbour_of_malformed_text_is_accepted(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++)
        assert_non_null(strchr(trace(refusals[i].good), '$'));
}

static void a_bad_text_stays_bad(void **state)
{
    struct jtok r;
    (void)state;
    jtok_init(&r, SPAN("[1 2]"));
    while (jtok_next(&r) != JTOK_BAD) {
    }
    const char *at = r.at;
    assert_int_equal(jtok_next(&r), JTOK_BAD);
    assert_ptr_equal(r.at, at);
    assert_int_equal(jtok_skip(&r), ERR_PARSE);
}

static void nesting_has_a_limit(void **state)
{
    char text[JTOK_DEPTH_MAX + 2];
    struct jtok r;
    (void)state;
    memset(text, '[', sizeof text);
    jtok_init(&r, span_of(text, sizeof text));
    for (int i = 0; i < JTOK_DEPTH_MAX; i++)
        assert_int_equal(jtok_next(&r), JTOK_ARRAY_BEGIN);
    assert_int_equal(jtok_next(&r), JTOK_BAD);
    assert_int_equal(r.at - r.begin, JTOK_DEPTH_MAX);
}

static void a_value_can_be_skipped(void **state)
{
    struct jtok r;
    (void)state;
    jtok_init(&r, SPAN("{\"a\":{\"b\":[1,{}]},\"c\":2}"));
    assert_int_equal(jtok_next(&r), JTOK_OBJECT_BEGIN);
    assert_int_equal(jtok_next(&r), JTOK_KEY);
    assert_int_equal(jtok_next(&r), JTOK_OBJECT_BEGIN);
    assert_int_equal(jtok_skip(&r), ERR_OK);
    assert_int_equal(jtok_next(&r), JTOK_KEY);
    assert_true(span_eq(r.text, SPAN("c")));
}

static void escapes_become_utf8(void **state)
{
    static const char expected[] = "\"\\/\b\f\n\r\tA\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80";
    char out[64];
    size_t n = 0;
    struct jtok r;
    (void)state;
    jtok_init(&r, SPAN("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\u00E4\\u20ac\\uD83D\\uDE00\""));
    assert_int_equal(jtok_next(&r), JTOK_STRING);
    assert_true(r.escaped);
    assert_int_equal(jtok_unescape(r.text, out, sizeof out, &n), ERR_OK);
    assert_int_equal(n, sizeof expected - 1);
    assert_memory_equal(out, expected, n);
}

static void every_byte_is_seen_at_every_place_of_a_string(void **state)
{
    enum { CHARS = 20 };
    (void)state;
    for (size_t at = 0; at < CHARS; at++) {
        for (unsigned byte = 0; byte <= UINT8_MAX; byte++) {
            char text[CHARS + 2];
            struct jtok r;
            memset(text, 'x', sizeof text);
            text[0] = text[CHARS + 1] = '"';
            text[1 + at] = (char)byte;
            jtok_init(&r, span_of(text, sizeof text));
            bool is_good = byte >= ' ' && byte < 0x80 && byte != '\\';
            assert_int_equal(jtok_next(&r), is_good ? JTOK_STRING : JTOK_BAD);
            if (is_good) {
                assert_int_equal(r.text.n, byte == '"' ? at : CHARS);
            } else {
                bool hides_the_end = byte == '\\' && at == CHARS - 1;
                assert_int_equal(r.at - text, hides_the_end ? 0 : 1 + at);
            }
        }
    }
}

static void unescaping_stops_at_the_end_of_its_room(void **state)
{
    char out[3];
    size_t n = 0;
    (void)state;
    assert_int_equal(jtok_unescape(SPAN("a\\u20ac"), out, sizeof out, &n), ERR_LIMIT);
    assert_int_equal(jtok_unescape(SPAN("\\u20ac"), out, sizeof out, &n), ERR_OK);
    assert_int_equal(n, 3);
}

static void columns_count_characters(void **state)
{
    struct jtok r;
    (void)state;
    jtok_init(&r, SPAN("[\"\xc3\xa4\xe2\x82\xac\",x]"));
    while (jtok_next(&r) != JTOK_BAD) {
    }
    assert_int_equal(jtok_column(&r, r.at), 7);
}

/* --- the twin: what jansson makes of the same text -------------------------------------------------- */

static json_t *string_value(const struct jtok *r)
{
    char out[512];
    size_t n = 0;
    assert_int_equal(jtok_unescape(r->text, out, sizeof out, &n), ERR_OK);
    return json_stringn(out, n);
}

static json_t *scalar_value(const struct jtok *r, enum jtok_kind kind)
{
    if (kind == JTOK_STRING) return string_value(r);
    if (kind == JTOK_NUMBER) return json_loadb(r->text.p, r->text.n, JSON_DECODE_ANY, NULL);
    if (kind == JTOK_NULL) return json_null();
    return json_boolean(kind == JTOK_TRUE);
}

/* Builds jansson's tree from our tokens; NULL when we refuse the text. */
static json_t *tree_of(struct span text)
{
    json_t *open[JTOK_DEPTH_MAX + 1] = {NULL}, *root = NULL;
    char key[JTOK_DEPTH_MAX + 1][512];
    uint32_t depth = 0;
    enum jtok_kind kind;
    struct jtok r;
    jtok_init(&r, text);
    while ((kind = jtok_next(&r)) != JTOK_END) {
        if (kind == JTOK_BAD) {
            json_decref(root);
            return NULL;
        }
        if (kind == JTOK_KEY) {
            size_t n = 0;
            assert_int_equal(jtok_unescape(r.text, key[depth], sizeof key[depth] - 1, &n), ERR_OK);
            key[depth][n] = '\0';
            continue;
        }
        if (kind == JTOK_OBJECT_END || kind == JTOK_ARRAY_END) {
            depth--;
            continue;
        }
        bool is_container = kind == JTOK_OBJECT_BEGIN || kind == JTOK_ARRAY_BEGIN;
        json_t *value = kind == JTOK_OBJECT_BEGIN  ? json_object()
                        : kind == JTOK_ARRAY_BEGIN ? json_array()
                                                   : scalar_value(&r, kind);
        if (!root) {
            root = value;
        } else if (json_is_object(open[depth])) {
            json_object_set_new(open[depth], key[depth], value);
        } else {
            json_array_append_new(open[depth], value);
        }
        if (is_container) open[++depth] = value;
        assert_int_equal(depth, r.depth);
    }
    return root;
}

static uint32_t random_next(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*seed >> 33);
}

/* Inserts, removes or replaces a byte, preferably by one that means something. */
static size_t mutate(char *text, size_t n, uint64_t *seed)
{
    static const char meaningful[] = "{}[]:,\"\\u0dD8cC19e+-. \ttrufalsn\x80\xc3\xa4\xed\xf0";
    size_t at = random_next(seed) % n;
    char c = meaningful[random_next(seed) % (sizeof meaningful - 1)];
    switch (random_next(seed) % 3) {
    case 0:
        memmove(text + at + 1, text + at, n - at);
        text[at] = c;
        return n + 1;
    case 1: memmove(text + at, text + at + 1, n - at - 1); return n - 1;
    default: text[at] = c; return n;
    }
}

static void the_twin_accepts_and_refuses_the_same(void **state)
{
    static const char *const seeds[] = {
        "{\"a\":[1,-2.5e+3,\"x\\u00e4\\ud83d\\ude00\"],\"b\":{},\"c\":[true,false,null],\"\xc3\xa4\":"
        "\"\xe2\x82\xac\"}",
        "[\"\\\"\\\\\\/\\b\\f\\n\\r\\t\",[0,10,0.25,1E3,-0],[[]],{\"k\":{\"l\":[{}]}}]",
    };
    uint64_t seed = 20240601;
    unsigned accepted = 0;
    (void)state;
    for (unsigned i = 0; i < MUTATIONS; i++) {
        char text[256];
        size_t n = strlen(seeds[i % 2]);
        memcpy(text, seeds[i % 2], n);
        for (uint32_t left = random_next(&seed) % 4; left > 0; left--)
            n = mutate(text, n, &seed);

        json_error_t error;
        json_t *theirs = json_loadb(text, n, JSON_DECODE_ANY, &error);
        json_t *ours = tree_of(span_of(text, n));
        /* The one difference: numbers that no C type holds are a matter of value, not of grammar. */
        bool is_overflow = !theirs && json_error_code(&error) == json_error_numeric_overflow;
        if (!is_overflow && (!ours != !theirs || (ours && !json_equal(ours, theirs))))
            fail_msg("jansson %s, jtok %s: %.*s", theirs ? "accepts" : "refuses",
                     ours ? "accepts" : "refuses", (int)n, text);
        accepted += ours != NULL;
        json_decref(ours);
        json_decref(theirs);
    }
    assert_in_range(accepted, MUTATIONS / 10, MUTATIONS * 9 / 10); /* both sides were tested */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_token_is_told_apart),
        cmocka_unit_test(malformed_text_is_refused_where_it_is_malformed),
        cmocka_unit_test(the_neighbour_of_malformed_text_is_accepted),
        cmocka_unit_test(a_bad_text_stays_bad),
        cmocka_unit_test(nesting_has_a_limit),
        cmocka_unit_test(a_value_can_be_skipped),
        cmocka_unit_test(escapes_become_utf8),
        cmocka_unit_test(every_byte_is_seen_at_every_place_of_a_string),
        cmocka_unit_test(unescaping_stops_at_the_end_of_its_room),
        cmocka_unit_test(columns_count_characters),
        cmocka_unit_test(the_twin_accepts_and_refuses_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
