/* random.h - random bytes and request identifiers.
 * Thread: [any]; struct random_source belongs to one thread. */
#ifndef BASE_RANDOM_H
#define BASE_RANDOM_H

#include "base/err.h"
#include "base/uuid.h"

#include <stddef.h>
#include <stdint.h>

/* Kernel randomness, read in blocks so that an identifier costs no system call. Not for keys or tokens. */
struct random_source {
    uint8_t pool[4096];
    size_t left; /* unused bytes at the end of pool */
};

/* Fills `out` from getrandom(2). For secrets. Errors: ERR_IO. */
enum err random_bytes(void *out, size_t n);

/* Makes it empty: the first random_take() fills it. */
void random_source_init(struct random_source *r);

/* Takes `n` <= 64 bytes from the pool, refilling it when it has fewer. BUG when the kernel gives none:
 * start-up has drawn from it before (random_bytes()). */
void random_take(struct random_source *r, void *out, size_t n);

/* Writes a version 7 UUID (RFC 9562 section 5.7), lower case, UUID_LEN bytes, no NUL. */
void uuid7_write(struct random_source *r, uint64_t wall_ms, char out[static UUID_LEN]);

#endif
