/* The text of a UUID, both ways. */
#include "base/uuid.h"

#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const char text[] = "00112233-4455-6677-8899-aabbccddeeff";
static const uint8_t bytes[UUID_BYTES] = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
                                          0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};

static void is_written_with_its_dashes(void **state)
{
    (void)state;
    char out[UUID_LEN + 1];
    out[UUID_LEN] = '!';
    uuid_format(bytes, out);
    assert_memory_equal(out, text, UUID_LEN);
    assert_int_equal(out[UUID_LEN], '!');
}

static void every_byte_comes_back(void **state)
{
    (void)state;
    for (unsigned v = 0; v <= UINT8_MAX; v++) {
        for (size_t i = 0; i < UUID_BYTES; i++) {
            uint8_t in[UUID_BYTES] = {0x12, 0x34}, back[UUID_BYTES];
            char out[UUID_LEN];
            in[i] = (uint8_t)v;
            uuid_format(in, out);
            assert_true(uuid_parse(out, back));
            assert_memory_equal(back, in, UUID_BYTES);
            for (size_t c = 0; c < UUID_LEN; c++)
                out[c] = (char)toupper((unsigned char)out[c]);
            assert_true(uuid_parse(out, back));
            assert_memory_equal(back, in, UUID_BYTES);
        }
    }
}

static void any_other_character_is_refused(void **state)
{
    (void)state;
    uint8_t out[UUID_BYTES];
    assert_true(uuid_parse(text, out));
    for (size_t i = 0; i < UUID_LEN; i++) {
        bool is_dash = text[i] == '-';
        for (unsigned c = 0; c <= UINT8_MAX; c++) {
            char changed[UUID_LEN];
            memcpy(changed, text, UUID_LEN);
            changed[i] = (char)c;
            bool is_digit = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
            assert_int_equal(uuid_parse(changed, out), is_dash ? c == '-' : is_digit);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_written_with_its_dashes),
        cmocka_unit_test(every_byte_comes_back),
        cmocka_unit_test(any_other_character_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
