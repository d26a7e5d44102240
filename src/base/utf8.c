#include "base/utf8.h"

#include <stdbool.h>

size_t utf8_decode(const char *p, size_t n, uint32_t *code)
{
    static const uint32_t smallest[5] = {0, 0, 0x80, 0x800, 0x10000};
    unsigned char first = (unsigned char)p[0];
    size_t length = first < 0x80         ? 1
                    : first >> 5 == 0x06 ? 2
                    : first >> 4 == 0x0e ? 3
                    : first >> 3 == 0x1e ? 4
                                         : 0;
    if (length == 0 || length > n) return 0;
    uint32_t value = length == 1 ? first : first & (0x7fU >> length);
    for (size_t i = 1; i < length; i++) {
        unsigned char next = (unsigned char)p[i];
        if (next >> 6 != 0x02) return 0;
        value = value << 6 | (next & 0x3fU);
    }
    bool is_surrogate = value >= 0xd800 && value <= 0xdfff;
    if (value < smallest[length] || value > 0x10ffff || is_surrogate) return 0;
    *code = value;
    return length;
}
