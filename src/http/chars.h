/* chars.h - sets of characters, as the grammars of RFC 9110 and RFC 3986 define them.
 *
 * Private to this floor. A set is one bit for each byte value, so that a look-up is a shift: names and
 * targets are judged byte by byte on the hot path. Bytes from 0x80 are in none of them.
 */
#ifndef HTTP_CHARS_H
#define HTTP_CHARS_H

#include <stdbool.h>
#include <stdint.h>

struct char_set {
    uint64_t words[4];
};

static inline bool char_in(const struct char_set *set, char c)
{
    return set->words[(unsigned char)c >> 6] >> ((unsigned char)c & 63) & 1;
}

/* One character of the word that holds it: words[0] has 0x00-0x3f, words[1] 0x40-0x7f. */
#define CHAR_BIT_OF(c) ((uint64_t)1 << ((c)&63))
#define CHARS_DIGIT    UINT64_C(0x03ff000000000000) /* of words[0] */
#define CHARS_ALPHA    UINT64_C(0x07fffffe07fffffe) /* of words[1] */

#endif
