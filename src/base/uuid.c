#include "base/uuid.h"

#include <stddef.h>
#include <string.h>

/* Offsets in the text: of the first digit of each byte, and of the dashes. */
static const uint8_t digits_at[UUID_BYTES] = {0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34};
static const uint8_t dashes_at[] = {8, 13, 18, 23};

/* The value of a hexadecimal digit plus 1; 0 for any other character. */
static const uint8_t hex_plus1[UINT8_MAX + 1] = {
    ['0'] = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ['A'] = 11, 12, 13, 14, 15, 16, ['a'] = 11, 12, 13, 14, 15, 16,
};

/* The two digits of every byte value. A table, because two identifiers are written for each request. */
#define ROW(d) d "0" d "1" d "2" d "3" d "4" d "5" d "6" d "7" d "8" d "9" d "a" d "b" d "c" d "d" d "e" d "f"
static const char hex_pairs[] = ROW("0") ROW("1") ROW("2") ROW("3") ROW("4") ROW("5") ROW("6") ROW("7")
    ROW("8") ROW("9") ROW("a") ROW("b") ROW("c") ROW("d") ROW("e") ROW("f");
#undef ROW

static char *digits_write(char *out, const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        memcpy(out + 2 * i, hex_pairs + 2 * (size_t)bytes[i], 2);
    return out + 2 * n;
}

void uuid_format(const uint8_t bytes[static UUID_BYTES], char out[static UUID_LEN])
{
    out = digits_write(out, bytes, 4);
    *out++ = '-';
    out = digits_write(out, bytes + 4, 2);
    *out++ = '-';
    out = digits_write(out, bytes + 6, 2);
    *out++ = '-';
    out = digits_write(out, bytes + 8, 2);
    *out++ = '-';
    (void)digits_write(out, bytes + 10, 6); /* the end */
}

bool uuid_parse(const char text[static UUID_LEN], uint8_t out[static UUID_BYTES])
{
    bool is_good = true;
    for (size_t i = 0; i < sizeof dashes_at; i++)
        is_good = is_good && text[dashes_at[i]] == '-';
    for (size_t i = 0; i < UUID_BYTES; i++) {
        int high = hex_plus1[(uint8_t)text[digits_at[i]]], low = hex_plus1[(uint8_t)text[digits_at[i] + 1]];
        is_good &= (high != 0) & (low != 0);
        out[i] = (uint8_t)((unsigned)(high - 1) << 4 | (unsigned)(low - 1));
    }
    return is_good;
}
