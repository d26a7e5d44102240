/* Bearer tokens: what is one, what is none, what is malformed; and the digest. */
#include "policy/token.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#define TOKEN16 "abcdefgh01234567"

static enum token_syntax parse(const char *value)
{
    struct span token;
    return token_parse_authorization(span_str(value), &token);
}

static void test_the_token_is_what_follows_the_scheme(void **state)
{
    (void)state;
    static const char *const values[] = {"Bearer " TOKEN16, "bearer " TOKEN16, "BEARER " TOKEN16,
                                         "bEaReR " TOKEN16, "Bearer   " TOKEN16};
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        struct span token = {0};
        assert_int_equal(token_parse_authorization(span_str(values[i]), &token), TOKEN_OK);
        assert_true(span_eq(token, SPAN(TOKEN16)));
        assert_ptr_equal(token.p + token.n, values[i] + strlen(values[i]));
    }
}

/* RFC 6750 section 2.1 has this example (padded to our minimum it stays one). */
static void test_the_example_of_the_rfc(void **state)
{
    (void)state;
    assert_int_equal(parse("Bearer mF_9.B5f-4.1JqM0"), TOKEN_OK);
}

static void test_other_schemes_carry_no_token(void **state)
{
    (void)state;
    static const char *const values[] = {"",
                                         "B",
                                         "Beare",
                                         "Basic " TOKEN16,
                                         "Bearers " TOKEN16,
                                         "Bearer2 " TOKEN16,
                                         "Bearer-x " TOKEN16,
                                         "Bearer." TOKEN16,
                                         "BearerAbcdefgh01234567",
                                         TOKEN16,
                                         " Bearer " TOKEN16,
                                         "Digest username=\"x\""};
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
        assert_int_equal(parse(values[i]), TOKEN_OTHER_SCHEME);
}

static void test_malformed_after_the_scheme(void **state)
{
    (void)state;
    static const char *const values[] = {"Bearer",
                                         "bearer",
                                         "Bearer ",
                                         "Bearer    ",
                                         "Bearer\t" TOKEN16,
                                         "Bearer \t" TOKEN16,
                                         "Bearer," TOKEN16,
                                         "Bearer=" TOKEN16,
                                         "Bearer\"" TOKEN16,
                                         "Bearer " TOKEN16 " ",
                                         "Bearer " TOKEN16 "\t",
                                         "Bearer " TOKEN16 " " TOKEN16,
                                         "Bearer " TOKEN16 ", Bearer " TOKEN16,
                                         "Bearer \"" TOKEN16 "\"",
                                         "Bearer realm=\"aaaaaaaaaa\"",
                                         "Bearer " TOKEN16 "=a",
                                         "Bearer =" TOKEN16,
                                         "Bearer ================"};
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
        assert_int_equal(parse(values[i]), TOKEN_MALFORMED);
}

static void test_padding_is_allowed_at_the_end(void **state)
{
    (void)state;
    assert_int_equal(parse("Bearer " TOKEN16 "="), TOKEN_OK);
    assert_int_equal(parse("Bearer " TOKEN16 "=="), TOKEN_OK);
    assert_int_equal(parse("Bearer a==============="), TOKEN_OK);
}

/* Every byte value in the middle of a token: in the grammar or refused. */
static void test_each_byte(void **state)
{
    (void)state;
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/";
    for (int byte = 0; byte < 256; byte++) {
        char value[] = "Bearer abcdefgh?01234567";
        *strchr(value, '?') = (char)byte;
        struct span token;
        bool want = byte != 0 && strchr(allowed, byte) != NULL;
        assert_int_equal(token_parse_authorization(span_of(value, sizeof(value) - 1), &token),
                         want ? TOKEN_OK : TOKEN_MALFORMED);
    }
}

static void test_length_limits(void **state)
{
    (void)state;
    char value[7 + TOKEN_BYTES_MAX + 1];
    memset(value, 'a', sizeof(value));
    memcpy(value, "Bearer ", 7);
    struct span token;
    assert_int_equal(token_parse_authorization(span_of(value, 7 + TOKEN_BYTES_MIN - 1), &token),
                     TOKEN_MALFORMED);
    assert_int_equal(token_parse_authorization(span_of(value, 7 + TOKEN_BYTES_MIN), &token), TOKEN_OK);
    assert_int_equal(token_parse_authorization(span_of(value, 7 + TOKEN_BYTES_MAX), &token), TOKEN_OK);
    assert_int_equal(token.n, TOKEN_BYTES_MAX);
    assert_int_equal(token_parse_authorization(span_of(value, 7 + TOKEN_BYTES_MAX + 1), &token),
                     TOKEN_MALFORMED);
}

/* Every start of a good value is something definite, and reads nothing behind its end (ASan). */
static void test_each_prefix(void **state)
{
    (void)state;
    static const char value[] = "Bearer " TOKEN16;
    for (size_t n = 0; n < sizeof(value); n++) {
        char copy[sizeof(value)];
        memcpy(copy, value, n);
        struct span token;
        enum token_syntax want = n < 6 ? TOKEN_OTHER_SCHEME : n < 23 ? TOKEN_MALFORMED : TOKEN_OK;
        assert_int_equal(token_parse_authorization(span_of(copy, n), &token), want);
    }
}

/* FIPS 180-4's examples, one block and two, and the hasher used again in between. */
static void test_digests_of_the_standard(void **state)
{
    (void)state;
    static const struct {
        const char *token, *hex;
    } cases[] = {
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    };
    struct token_hasher *h = token_hasher_create();
    assert_non_null(h);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t digest[TOKEN_DIGEST_BYTES];
        char hex[2 * TOKEN_DIGEST_BYTES + 1];
        assert_int_equal(token_digest(h, span_str(cases[i].token), digest), ERR_OK);
        for (size_t b = 0; b < sizeof(digest); b++)
            assert_int_equal(snprintf(hex + 2 * b, 3, "%02x", digest[b]), 2);
        assert_string_equal(hex, cases[i].hex);
    }
    token_hasher_destroy(h);
}

static void test_a_key_is_the_first_half_of_a_digest(void **state)
{
    (void)state;
    uint8_t digest[TOKEN_DIGEST_BYTES] = {0};
    for (size_t i = 0; i < sizeof(digest); i++) {
        const struct key128 before = token_key(digest);
        digest[i] ^= 1;
        const struct key128 after = token_key(digest);
        assert_int_equal(memcmp(&before, &after, sizeof(before)) != 0, i < TOKEN_KEY_BYTES);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_token_is_what_follows_the_scheme),
        cmocka_unit_test(test_the_example_of_the_rfc),
        cmocka_unit_test(test_other_schemes_carry_no_token),
        cmocka_unit_test(test_malformed_after_the_scheme),
        cmocka_unit_test(test_padding_is_allowed_at_the_end),
        cmocka_unit_test(test_each_byte),
        cmocka_unit_test(test_length_limits),
        cmocka_unit_test(test_each_prefix),
        cmocka_unit_test(test_digests_of_the_standard),
        cmocka_unit_test(test_a_key_is_the_first_half_of_a_digest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
