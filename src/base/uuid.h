/* uuid.h - the text of a UUID (RFC 9562 section 4).
 * Thread: [any, pure]. */
#ifndef BASE_UUID_H
#define BASE_UUID_H

#include <stdbool.h>
#include <stdint.h>

enum { UUID_BYTES = 16, UUID_LEN = 36 };

/* Writes UUID_LEN lower-case characters, no NUL. */
void uuid_format(const uint8_t bytes[static UUID_BYTES], char out[static UUID_LEN]);

/* Reads UUID_LEN characters, digits of either case. False, and `out` undefined, when they are not a UUID. */
bool uuid_parse(const char text[static UUID_LEN], uint8_t out[static UUID_BYTES]);

#endif
