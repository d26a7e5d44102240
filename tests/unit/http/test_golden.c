/* The golden files tests/http/<theme>.md: each case is fed whole, byte by byte, and cut in two at every
 * place; the trace must be the one in the file each time. */
#include "helper_golden.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>

enum { TRACE_BYTES_MAX = 64 * 1024 };

/* Feeds one piece from memory of exactly its size. */
static void feed_exact(struct tracer *t, const char *p, size_t n)
{
    char *copy = malloc(n ? n : 1);
    assert_non_null(copy);
    memcpy(copy, p, n);
    tracer_feed(t, copy, n);
    free(copy);
}

/* Feeds the case in pieces of `piece` bytes, or in two pieces cut at `cut`. */
static void expect_trace(const struct golden_case *c, size_t piece, size_t cut)
{
    static char text[TRACE_BYTES_MAX];
    struct trace_options options = c->options;
    options.head.alias_allowed = c->alias_allowed;
    struct tracer t;
    tracer_init(&t, &options, text, sizeof text - 1);
    if (piece) {
        for (size_t at = 0; at < c->nbytes; at += piece)
            feed_exact(&t, c->bytes + at, c->nbytes - at < piece ? c->nbytes - at : piece);
    } else {
        feed_exact(&t, c->bytes, cut);
        feed_exact(&t, c->bytes + cut, c->nbytes - cut);
    }
    tracer_finish(&t);
    assert_false(t.out.overflow);
    text[t.out.n] = '\0';
    if (strcmp(text, c->trace) != 0) fail_msg("piece %zu cut %zu; this was traced:\n%s", piece, cut, text);
}

static void test_case(void **state)
{
    const struct golden_case *c = *state;
    expect_trace(c, c->nbytes, 0);
    expect_trace(c, 1, 0);
    for (size_t cut = 0; cut <= c->nbytes; cut++)
        expect_trace(c, 0, cut);
}

int main(void)
{
    glob_t files;
    if (glob(GW_SOURCE_DIR "/tests/http/[a-z]*.md", 0, NULL, &files)) return 2;
    struct golden_case *cases = NULL;
    size_t n = 0;
    for (size_t i = 0; i < files.gl_pathc; i++)
        golden_load(files.gl_pathv[i], &cases, &n);
    globfree(&files);

    struct CMUnitTest *tests = calloc(n, sizeof *tests);
    if (!tests) return 2;
    for (size_t i = 0; i < n; i++)
        tests[i] =
            (struct CMUnitTest){.name = cases[i].name, .test_func = test_case, .initial_state = &cases[i]};
    int failed = _cmocka_run_group_tests("goldens", tests, n, NULL, NULL);
    free(tests);
    golden_free(cases, n);
    return failed;
}
