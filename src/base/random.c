#include "base/random.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <sys/types.h>

enum { TAKE_MAX = 64 };

enum err random_bytes(void *out, size_t n)
{
    unsigned char *at = out;
    while (n) {
        ssize_t got = getrandom(at, n, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return ERR_IO;
        at += got;
        n -= (size_t)got;
    }
    return ERR_OK;
}

void random_source_init(struct random_source *r)
{
    r->left = 0;
}

void random_take(struct random_source *r, void *out, size_t n)
{
    BUG_IF(n > TAKE_MAX, "more random bytes asked for than one call may take");
    if (r->left < n) {
        /* getrandom(2) fails only for bad arguments once the kernel's pool is seeded, and start-up has
         * already drawn from it. */
        BUG_IF(random_bytes(r->pool, sizeof r->pool), "the kernel gave no random bytes");
        r->left = sizeof r->pool;
    }
    memcpy(out, r->pool + sizeof r->pool - r->left, n);
    r->left -= n;
}

void uuid7_write(struct random_source *r, uint64_t wall_ms, char out[static UUID_LEN])
{
    uint8_t b[UUID_BYTES];
    random_take(r, b + 6, sizeof b - 6);
    for (int i = 0; i < 6; i++)
        b[i] = (uint8_t)(wall_ms >> (40 - 8 * i));
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x70); /* version 7 */
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80); /* variant 10 */
    uuid_format(b, out);
}
