/* Packed records from a hostile file: whatever the bytes are, nothing outside them is read, and what is
 * accepted can be packed and unpacked again. */
#include "store/packed.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span rest = {(const char *)data, size};
    struct packed r;
    while (packed_look(rest, &r, NULL) == ERR_OK) {
        struct partner p, again;
        struct bytes room = {0}, room_again = {0};
        if (packed_partner(&r, &room, &p) == ERR_OK) {
            struct bytes b = {0};
            struct packed copy;
            bool ok = packed_add(&b, &p, r.version, r.flags & PACKED_REFUSED) == ERR_OK &&
                      packed_look(span_of(b.p, b.n), &copy, NULL) == ERR_OK &&
                      packed_partner(&copy, &room_again, &again) == ERR_OK && b.n == r.bytes;
            if (!ok) abort();
            bytes_deinit(&b);
        }
        bytes_deinit(&room_again);
        bytes_deinit(&room);
        rest = span_of(rest.p + r.bytes, rest.n - r.bytes);
    }
    return 0;
}
