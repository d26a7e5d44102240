/* PROXY headers: however the bytes are cut the answer is the same, and it is that of a reader which has the
 * whole input before it.
 *
 * Input: seed for the cuts (a byte), then the stream. */
#include "http/proxy_header.h"

#include <arpa/inet.h>
#include <stdio.h>

struct answer {
    enum proxy_header_result result;
    size_t used;
    bool is_local;
    struct addr source;
};

static struct addr library_parse(const char *text, int family)
{
    uint8_t octets[16];
    if (inet_pton(family, text, octets) != 1) return (struct addr){.family = ADDR_NONE};
    return addr_from_octets(family == AF_INET ? ADDR_V4 : ADDR_V6, octets);
}

/* The line with sscanf(), written again to see that nothing else was in it. */
static struct answer line_read(const char *p, size_t n)
{
    struct answer a = {.result = PROXY_HEADER_REFUSED};
    char line[PROXY_V1_BYTES_MAX + 1], from[64], to[64], again[256], zone;
    unsigned family, sport, dport;
    size_t end = 0;
    while (end < n && p[end] != '\n')
        end++;
    size_t head = n < 6 ? n : 6;
    if (memcmp(p, "PROXY ", head) != 0) return a;
    const char *cr = memchr(p, '\r', n);
    if (cr && cr + 1 < p + n && cr[1] != '\n') return a;
    if (end == n) {
        if (n < PROXY_V1_BYTES_MAX) a = (struct answer){.result = PROXY_HEADER_MORE, .used = n};
        return a;
    }
    if (end + 1 > PROXY_V1_BYTES_MAX || end == 0 || p[end - 1] != '\r') return a;
    memcpy(line, p, end - 1);
    line[end - 1] = '\0';
    struct answer good = {.result = PROXY_HEADER_DONE, .used = end + 1};
    bool has_nul = strlen(line) != end - 1;
    if ((!has_nul && strcmp(line, "PROXY UNKNOWN") == 0) || memcmp(line, "PROXY UNKNOWN ", 14) == 0)
        return good;
    if (has_nul) return a;
    if (sscanf(line, "PROXY TCP%u %63[0-9a-fA-F:.] %63[0-9a-fA-F:.] %u %u%c", &family, from, to, &sport,
               &dport, &zone) != 5)
        return a;
    (void)snprintf(again, sizeof again, "PROXY TCP%u %s %s %u %u", family, from, to, sport, dport);
    if (strcmp(line, again) != 0 || (family != 4 && family != 6) || sport > 65535 || dport > 65535) return a;
    struct addr target = library_parse(to, family == 4 ? AF_INET : AF_INET6);
    good.source = library_parse(from, family == 4 ? AF_INET : AF_INET6);
    return good.source.family && target.family ? good : a;
}

static struct answer block_read(const uint8_t *p, size_t n)
{
    static const char signature[] = "\r\n\r\n\0\r\nQUIT\n";
    struct answer a = {.result = PROXY_HEADER_REFUSED}, more = {.result = PROXY_HEADER_MORE, .used = n};
    if (memcmp(p, signature, n < 12 ? n : 12) != 0) return a;
    if (n < 16) return more;
    size_t length = (size_t)p[14] * 256 + p[15], least = 0;
    if ((p[12] != 0x20 && p[12] != 0x21) || 16 + length > PROXY_V2_BYTES_MAX) return a;
    bool is_local = p[12] == 0x20;
    if (p[13] == 0x11 || p[13] == 0x12) least = 12;
    if (p[13] == 0x21 || p[13] == 0x22) least = 36;
    if (p[13] == 0x31 || p[13] == 0x32) least = 216;
    if (!is_local && ((least == 0 && p[13] != 0) || length < least)) return a;
    if (n < 16 + length) return more;
    a = (struct answer){.result = PROXY_HEADER_DONE, .used = 16 + length, .is_local = is_local};
    if (!is_local && least == 12) a.source = addr_from_octets(ADDR_V4, p + 16);
    if (!is_local && least == 36) a.source = addr_from_octets(ADDR_V6, p + 16);
    return a;
}

/* In pieces that `seed` chooses; 0: in one. Each piece is memory of exactly its size. */
static struct answer feed(const char *p, size_t n, unsigned seed)
{
    struct proxy_header h;
    struct answer a = {.result = PROXY_HEADER_MORE};
    proxy_header_init(&h);
    for (size_t at = 0; at < n && a.result == PROXY_HEADER_MORE;) {
        size_t piece = n - at, used = 0;
        if (seed) {
            seed = seed * 1103515245 + 12345;
            size_t want = 1 + (seed >> 16) % 24;
            if (want < piece) piece = want;
        }
        a.result = proxy_header_feed(&h, p + at, piece, &used);
        if (a.result != PROXY_HEADER_REFUSED) a.used += used;
        at += piece;
    }
    if (a.result == PROXY_HEADER_REFUSED) {
        BUG_IF(h.refusal == PROXY_REFUSAL_NONE, "refused without a reason");
        return (struct answer){.result = a.result};
    }
    a.is_local = h.is_local && a.result == PROXY_HEADER_DONE;
    a.source = h.source;
    return a;
}

static bool same(const struct answer *a, const struct answer *b)
{
    return a->result == b->result && a->used == b->used && a->is_local == b->is_local &&
           addr_eq(&a->source, &b->source);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) return 0;
    const char *p = (const char *)data + 1;
    size_t n = size - 1;
    struct answer whole = feed(p, n, 0), cut = feed(p, n, data[0] + 1U);
    struct answer twin = p[0] == '\r' ? block_read(data + 1, n) : line_read(p, n);
    BUG_IF(!same(&whole, &cut), "the cuts change the answer");
    BUG_IF(!same(&whole, &twin), "a naive reader says something else");
    return 0;
}
