/* chars.h - sets of characters, as the grammars of RFC 9110 and RFC 3986 define them.
 *
 * A set is a table with an entry for each byte value: names, targets and tokens are judged byte by byte on
 * the hot path. Bytes from 0x80 are in none of them.
 *
 * Example:  static const struct char_set octal = {{['0'] = 1, 1, 1, 1, 1, 1, 1, 1}};
 *
 * Thread: [any, pure].
 */
#ifndef HTTP_CHARS_H
#define HTTP_CHARS_H

#include <limits.h>
#include <stdbool.h>

struct char_set {
    bool has[UCHAR_MAX + 1];
};

static inline bool char_in(const struct char_set *set, char c)
{
    return set->has[(unsigned char)c];
}

/* For initialisers: what has no index follows the entry before it. */
#define CHARS_10    1, 1, 1, 1, 1, 1, 1, 1, 1, 1
#define CHARS_26    CHARS_10, CHARS_10, 1, 1, 1, 1, 1, 1
#define CHARS_DIGIT ['0'] = CHARS_10
#define CHARS_ALPHA ['A'] = CHARS_26, ['a'] = CHARS_26

/* RFC 3986 section 2.3. */
#define CHARS_UNRESERVED ['-'] = 1, ['.'] = 1, ['_'] = 1, ['~'] = 1, CHARS_DIGIT, CHARS_ALPHA

/* RFC 9110 section 5.6.2: tchar, without '.' and '_', which some readers of names fold to '-'. */
#define CHARS_PLAIN_TOKEN                                                                                    \
    ['!'] = 1, ['#'] = 1, ['$'] = 1, ['%'] = 1, ['&'] = 1, ['\''] = 1, ['*'] = 1, ['+'] = 1, ['-'] = 1,      \
    ['^'] = 1, ['`'] = 1, ['|'] = 1, ['~'] = 1, CHARS_DIGIT, CHARS_ALPHA

#endif
