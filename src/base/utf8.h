/* utf8.h - the one decoder of UTF-8: logs, configuration files and partner records agree on what is valid.
 *
 * Thread: [any, pure].
 */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Decodes the character at p[0..n), n > 0. Returns its length in bytes; 0 when it is malformed (overlong,
 * surrogate, above U+10FFFF, cut off), `*code` is then unchanged. Spec: RFC 3629 section 4. */
size_t utf8_decode(const char *p, size_t n, uint32_t *code);

#endif
