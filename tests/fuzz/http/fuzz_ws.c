/* The follower of WebSocket frames: however the bytes are cut it counts the same, and it agrees with a naive
 * walk over the whole stream.
 *
 * Input: direction, seed for the cuts (a byte each), then the stream. */
#include "http/ws.h"

struct counted {
    uint64_t messages;
    bool close_seen, lost, at_boundary;
};

/* The same answers by looking at the whole stream at once. */
static struct counted walk(const uint8_t *p, size_t n, bool masked)
{
    struct counted c = {0};
    size_t at = 0;
    while (n - at >= 2) {
        unsigned opcode = p[at] & 15, length7 = p[at + 1] & 127;
        bool fin = p[at] & 128, has_mask = p[at + 1] & 128;
        if (has_mask != masked || (opcode >= 8 && (!fin || length7 > 125))) {
            c.lost = true;
            return c;
        }
        size_t nlength = length7 == 126   ? 2
                         : length7 == 127 ? 8
                                          : 0,
               nheader = 2 + nlength + (masked ? 4 : 0);
        if (n - at < nheader) return c;
        uint64_t length = nlength ? 0 : length7;
        for (size_t i = 0; i < nlength; i++)
            length = length << 8 | p[at + 2 + i];
        if ((nlength == 2 && length < 126) || (nlength == 8 && (length < 65536 || length >> 63))) {
            c.lost = true;
            return c;
        }
        if (n - at - nheader < length) return c;
        at += nheader + (size_t)length;
        c.close_seen |= opcode == 8;
        c.messages += fin && opcode < 3;
    }
    c.at_boundary = at == n;
    return c;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) return 0;
    bool masked = data[0] & 1;
    unsigned seed = data[1] + 1U;
    const uint8_t *p = data + 2;
    size_t n = size - 2;
    struct ws_follower whole, cut;
    ws_follower_init(&whole, masked);
    ws_follow(&whole, (const char *)p, n);
    ws_follower_init(&cut, masked);
    for (size_t at = 0; at < n;) {
        seed = seed * 1103515245 + 12345;
        size_t piece = 1 + (seed >> 16) % 7;
        if (piece > n - at) piece = n - at;
        ws_follow(&cut, (const char *)p + at, piece);
        at += piece;
    }
    struct counted c = walk(p, n, masked);
    BUG_IF(whole.messages != c.messages || cut.messages != c.messages, "messages");
    BUG_IF(whole.close_seen != c.close_seen || cut.close_seen != c.close_seen, "close");
    BUG_IF(whole.lost != c.lost || cut.lost != c.lost, "lost");
    BUG_IF(ws_at_boundary(&whole) != c.at_boundary || ws_at_boundary(&cut) != c.at_boundary, "boundary");
    return 0;
}
