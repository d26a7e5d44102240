/* Tokens: shape, randomness, and that typing errors show. */
#include "proofctl/token_text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char alphabet[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

enum { SAMPLES = 20 };

static struct span made(char out[static TOKEN_TEXT_CHARS + 1])
{
    assert_int_equal(token_text_make(out), ERR_OK);
    return span_of(out, TOKEN_TEXT_CHARS);
}

static void token_has_its_shape(void **state)
{
    (void)state;
    char token[TOKEN_TEXT_CHARS + 1];
    memset(token, '!', sizeof token);
    (void)made(token);
    assert_int_equal(strlen(token), 60);
    assert_memory_equal(token, "proof_live_", 11);
    assert_int_equal(strspn(token + 11, alphabet), 49);
    assert_int_equal(token_text_shape(span_str(token)), TOKEN_SHAPE_PROOF);
}

/* The check characters are the CRC-32 that everybody else computes: of this text by zlib, in base 62. */
static void check_characters_are_a_known_crc32(void **state)
{
    (void)state;
    static const char token[] = "proof_live_"
                                "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg"
                                "3Rx0VP";
    assert_int_equal(sizeof token - 1, TOKEN_TEXT_CHARS);
    assert_int_equal(token_text_shape(SPAN(token)), TOKEN_SHAPE_PROOF);
}

/* 10,000 tokens have 430,000 random characters, 6,935 of each; 7 standard deviations are 578. A byte taken
 * modulo 62 without rejection would make eight characters come 8,398 times and the others 6,719 times. */
static void random_characters_are_uniform(void **state)
{
    (void)state;
    unsigned count[256] = {0};
    char token[TOKEN_TEXT_CHARS + 1];
    for (int i = 0; i < 10000; i++) {
        (void)made(token);
        for (int k = 0; k < TOKEN_TEXT_RANDOM_CHARS; k++)
            count[(unsigned char)token[TOKEN_TEXT_PREFIX_CHARS + k]]++;
    }
    for (const char *c = alphabet; *c; c++)
        assert_in_range(count[(unsigned char)*c], 6935 - 578, 6935 + 578);
}

/* Every position is drawn for itself: over 1,000 tokens no position misses more than a few of the 62
 * characters. */
static void every_position_is_random(void **state)
{
    (void)state;
    static bool seen[TOKEN_TEXT_RANDOM_CHARS][256];
    char token[TOKEN_TEXT_CHARS + 1];
    for (int i = 0; i < 1000; i++) {
        (void)made(token);
        for (int k = 0; k < TOKEN_TEXT_RANDOM_CHARS; k++)
            seen[k][(unsigned char)token[TOKEN_TEXT_PREFIX_CHARS + k]] = true;
    }
    for (int k = 0; k < TOKEN_TEXT_RANDOM_CHARS; k++) {
        int n = 0;
        for (int c = 0; c < 256; c++)
            n += seen[k][c];
        assert_in_range(n, 60, 62); /* the chance that three or more are missing is below 1e-16 */
    }
}

static void every_wrong_character_shows(void **state)
{
    (void)state;
    char token[TOKEN_TEXT_CHARS + 1];
    for (int i = 0; i < SAMPLES; i++) {
        struct span span = made(token);
        for (size_t at = 0; at < span.n; at++) {
            char right = token[at];
            for (const char *c = alphabet; *c; c++) {
                if (*c == right) continue;
                token[at] = *c;
                assert_int_equal(token_text_shape(span), TOKEN_SHAPE_TYPO);
            }
            token[at] = right;
        }
        assert_int_equal(token_text_shape(span), TOKEN_SHAPE_PROOF);
    }
}

static void every_swap_of_neighbours_shows(void **state)
{
    (void)state;
    char token[TOKEN_TEXT_CHARS + 1];
    for (int i = 0; i < SAMPLES; i++) {
        struct span span = made(token);
        for (size_t at = 0; at + 1 < span.n; at++) {
            char first = token[at], second = token[at + 1];
            if (first == second) continue;
            token[at] = second;
            token[at + 1] = first;
            assert_int_equal(token_text_shape(span), TOKEN_SHAPE_TYPO);
            token[at] = first;
            token[at + 1] = second;
        }
    }
}

static void a_character_too_many_or_too_few_shows(void **state)
{
    (void)state;
    char token[TOKEN_TEXT_CHARS + 2];
    struct span span = made(token);
    for (size_t n = TOKEN_TEXT_PREFIX_CHARS; n < span.n; n++)
        assert_int_equal(token_text_shape(span_of(token, n)), TOKEN_SHAPE_TYPO);
    token[TOKEN_TEXT_CHARS] = '0';
    assert_int_equal(token_text_shape(span_of(token, TOKEN_TEXT_CHARS + 1)), TOKEN_SHAPE_TYPO);
    token[20] = '\0';
    assert_int_equal(token_text_shape(span), TOKEN_SHAPE_TYPO);
}

static void tokens_of_others_are_not_judged(void **state)
{
    (void)state;
    assert_int_equal(token_text_shape(SPAN("")), TOKEN_SHAPE_OTHER);
    assert_int_equal(token_text_shape(SPAN("pt_0123456789abcdef")), TOKEN_SHAPE_OTHER);
    assert_int_equal(token_text_shape(SPAN("123456789012345678901234567890123456789012345678901234567890")),
                     TOKEN_SHAPE_OTHER);
}

static void a_line_is_read_and_nothing_behind_it(void **state)
{
    (void)state;
    static const struct {
        const char *input, *token, *rest;
    } cases[] = {
        {"abc", "abc", ""},
        {"abc\n", "abc", ""},
        {"abc\r\nrest", "abc", "rest"},
        {"\nabc", "", "abc"},
        {"", "", ""},
        {"12345678\nx", "12345678", "\nx"},
        {"123456789", "12345678", "9"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int ends[2];
        char out[8], rest[16];
        size_t n = strlen(cases[i].token);
        assert_int_equal(pipe(ends), 0);
        assert_int_equal(write(ends[1], cases[i].input, strlen(cases[i].input)), strlen(cases[i].input));
        close(ends[1]);
        assert_int_equal(token_text_read(ends[0], out, sizeof out), n);
        assert_memory_equal(out, cases[i].token, n);
        assert_int_equal(read(ends[0], rest, sizeof rest), strlen(cases[i].rest));
        assert_memory_equal(rest, cases[i].rest, strlen(cases[i].rest));
        close(ends[0]);
        if (i == 0) assert_int_equal(token_text_read(ends[0], out, sizeof out), -1); /* it is closed */
    }
}

static void digest_is_sha256(void **state)
{
    (void)state;
    uint8_t digest[TOKEN_DIGEST_BYTES];
    char hex[2 * TOKEN_DIGEST_BYTES + 1];
    assert_int_equal(token_text_digest(SPAN("abc"), digest), ERR_OK); /* FIPS 180-4, appendix B.1 */
    token_text_hex(digest, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

static void revoked_digest_differs_by_partner_and_stays_the_same(void **state)
{
    (void)state;
    uint8_t acme[TOKEN_DIGEST_BYTES], again[TOKEN_DIGEST_BYTES], other[TOKEN_DIGEST_BYTES];
    char longest[PARTNER_ID_MAX + 1];
    memset(longest, 'x', PARTNER_ID_MAX);
    longest[PARTNER_ID_MAX] = '\0';
    assert_int_equal(token_text_revoked_digest("acme", acme), ERR_OK);
    assert_int_equal(token_text_revoked_digest("acme", again), ERR_OK);
    assert_int_equal(token_text_revoked_digest(longest, other), ERR_OK);
    assert_memory_equal(acme, again, sizeof acme);
    assert_memory_not_equal(acme, other, sizeof acme);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(token_has_its_shape),
        cmocka_unit_test(check_characters_are_a_known_crc32),
        cmocka_unit_test(random_characters_are_uniform),
        cmocka_unit_test(every_position_is_random),
        cmocka_unit_test(every_wrong_character_shows),
        cmocka_unit_test(every_swap_of_neighbours_shows),
        cmocka_unit_test(a_character_too_many_or_too_few_shows),
        cmocka_unit_test(tokens_of_others_are_not_judged),
        cmocka_unit_test(a_line_is_read_and_nothing_behind_it),
        cmocka_unit_test(digest_is_sha256),
        cmocka_unit_test(revoked_digest_differs_by_partner_and_stays_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
