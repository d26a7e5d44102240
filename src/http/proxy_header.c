#include "http/proxy_header.h"

enum {
    V1_PREFIX_BYTES = 6,
    V2_SIGNATURE_BYTES = 12,
    V2_FIXED_BYTES = 16, /* signature, version and command, family, length */
    V2_INET_BYTES = 12,  /* two addresses, two ports */
    V2_INET6_BYTES = 36,
    V2_UNIX_BYTES = 216, /* two paths */
    V1_WORDS = 5,        /* family, two addresses, two ports */
};

static const uint8_t v1_prefix[V1_PREFIX_BYTES] = {'P', 'R', 'O', 'X', 'Y', ' '};
static const uint8_t v2_signature[V2_SIGNATURE_BYTES] = {'\r', '\n', '\r', '\n', 0,   '\r',
                                                         '\n', 'Q',  'U',  'I',  'T', '\n'};

#define XX(id, text) text,
const char *const proxy_refusal_names[PROXY_REFUSAL_COUNT] = {PROXY_REFUSAL_MAP(XX)};
#undef XX

void proxy_header_init(struct proxy_header *h)
{
    *h = (struct proxy_header){.source = {.family = ADDR_NONE}};
}

/* `result` when nothing is wrong. */
static enum proxy_header_result judged(struct proxy_header *h, enum proxy_refusal refusal,
                                       enum proxy_header_result result)
{
    h->refusal = refusal;
    return refusal ? PROXY_HEADER_REFUSED : result;
}

/* --- version 1 ------------------------------------------------------------------------------------- */

/* Cuts the line at each single space. False when there are fewer or more words than wanted. */
static bool words_cut(struct span line, struct span words[static V1_WORDS])
{
    for (unsigned i = 0; i < V1_WORDS; i++) {
        const char *space = memchr(line.p, ' ', line.n);
        bool is_last = i == V1_WORDS - 1;
        if (is_last != !space) return false;
        words[i] = span_of(line.p, space ? (size_t)(space - line.p) : line.n);
        if (space) line = span_of(space + 1, line.n - words[i].n - 1);
    }
    return true;
}

/* The specification wants plain groups for TCP6, but senders write what inet_ntop(3) gives them, which has a
 * dotted tail for mapped addresses. */
static bool v1_address(struct span text, bool is_v6, struct addr *out)
{
    bool has_colon = memchr(text.p, ':', text.n) != NULL;
    return has_colon == is_v6 && addr_parse(text, out) == ERR_OK;
}

/* What is between "PROXY " and CRLF. */
static enum proxy_refusal v1_parse(struct span line, struct addr *source)
{
    static const struct span unknown = {"UNKNOWN", sizeof "UNKNOWN" - 1};
    struct span words[V1_WORDS];
    struct addr from, to;
    /* "the receiver must ignore anything presented before the CRLF" */
    if (span_starts(line, unknown) && (line.n == unknown.n || line.p[unknown.n] == ' '))
        return PROXY_REFUSAL_NONE;
    if (!words_cut(line, words)) return PROXY_REFUSAL_LINE;
    bool is_v6 = span_eq(words[0], SPAN("TCP6"));
    if (!is_v6 && !span_eq(words[0], SPAN("TCP4"))) return PROXY_REFUSAL_LINE;
    if (!v1_address(words[1], is_v6, &from) || !v1_address(words[2], is_v6, &to)) return PROXY_REFUSAL_LINE;
    if (!addr_port_is_valid(words[3]) || !addr_port_is_valid(words[4])) return PROXY_REFUSAL_LINE;
    *source = from;
    return PROXY_REFUSAL_NONE;
}

/* After each byte of a line. */
static enum proxy_header_result v1_step(struct proxy_header *h)
{
    uint8_t last = h->bytes[h->n - 1];
    if (h->n <= V1_PREFIX_BYTES)
        return judged(h, last == v1_prefix[h->n - 1] ? PROXY_REFUSAL_NONE : PROXY_REFUSAL_SIGNATURE,
                      PROXY_HEADER_MORE);
    bool after_cr = h->bytes[h->n - 2] == '\r';
    if (after_cr != (last == '\n')) return judged(h, PROXY_REFUSAL_LINE, PROXY_HEADER_MORE);
    if (last == '\n') {
        struct span line =
            span_of((const char *)h->bytes + V1_PREFIX_BYTES, h->n - V1_PREFIX_BYTES - strlen("\r\n"));
        return judged(h, v1_parse(line, &h->source), PROXY_HEADER_DONE);
    }
    return judged(h, h->n < PROXY_V1_BYTES_MAX ? PROXY_REFUSAL_NONE : PROXY_REFUSAL_LINE_LENGTH,
                  PROXY_HEADER_MORE);
}

/* --- version 2 ------------------------------------------------------------------------------------- */

/* Family and transport in one byte, as assigned; the receiver "must drop connections presenting unexpected
 * values". */
static bool v2_family(uint8_t byte, enum addr_family *family, uint32_t *address_bytes)
{
    *family = ADDR_NONE;
    *address_bytes = 0;
    switch (byte) {
    case 0x00: return true; /* UNSPEC */
    case 0x11:
    case 0x12: *family = ADDR_V4, *address_bytes = V2_INET_BYTES; return true;
    case 0x21:
    case 0x22: *family = ADDR_V6, *address_bytes = V2_INET6_BYTES; return true;
    case 0x31:
    case 0x32: *address_bytes = V2_UNIX_BYTES; return true;
    default: return false;
    }
}

/* The sixteen fixed bytes are there. */
static enum proxy_refusal v2_judge(struct proxy_header *h)
{
    enum addr_family family;
    uint32_t address_bytes, length = (uint32_t)h->bytes[14] << 8 | h->bytes[15];
    if (h->bytes[12] >> 4 != 2) return PROXY_REFUSAL_VERSION;
    if ((h->bytes[12] & 15) > 1) return PROXY_REFUSAL_COMMAND;
    h->is_local = (h->bytes[12] & 15) == 0;
    h->total = V2_FIXED_BYTES + length;
    if (h->total > PROXY_V2_BYTES_MAX) return PROXY_REFUSAL_LENGTH;
    if (h->is_local) return PROXY_REFUSAL_NONE; /* "including the family which is ignored" */
    if (!v2_family(h->bytes[13], &family, &address_bytes)) return PROXY_REFUSAL_FAMILY;
    return length < address_bytes ? PROXY_REFUSAL_LENGTH : PROXY_REFUSAL_NONE;
}

static struct addr v2_source(const struct proxy_header *h)
{
    enum addr_family family = ADDR_NONE;
    uint32_t address_bytes;
    if (!h->is_local) (void)v2_family(h->bytes[13], &family, &address_bytes); /* v2_judge() has seen it */
    return addr_from_octets(family, h->bytes + V2_FIXED_BYTES);
}

/* After each byte. */
static enum proxy_header_result v2_step(struct proxy_header *h)
{
    if (h->n <= V2_SIGNATURE_BYTES)
        return judged(
            h, h->bytes[h->n - 1] == v2_signature[h->n - 1] ? PROXY_REFUSAL_NONE : PROXY_REFUSAL_SIGNATURE,
            PROXY_HEADER_MORE);
    if (h->n < V2_FIXED_BYTES) return PROXY_HEADER_MORE;
    if (h->n == V2_FIXED_BYTES) {
        enum proxy_refusal refusal = v2_judge(h);
        if (refusal) return judged(h, refusal, PROXY_HEADER_REFUSED);
    }
    if (h->n < h->total) return PROXY_HEADER_MORE;
    h->source = v2_source(h);
    return PROXY_HEADER_DONE;
}

/* --- both ------------------------------------------------------------------------------------------ */

enum proxy_header_result proxy_header_feed(struct proxy_header *h, const char *p, size_t n, size_t *used)
{
    enum proxy_header_result result = PROXY_HEADER_MORE;
    size_t i = 0;
    while (i < n && result == PROXY_HEADER_MORE) {
        uint8_t byte = (uint8_t)p[i++];
        if (h->n == 0) h->version = byte == v2_signature[0] ? 2 : 1;
        if (h->n < sizeof h->bytes) h->bytes[h->n] = byte;
        h->n++;
        result = h->version == 2 ? v2_step(h) : v1_step(h);
    }
    *used = i;
    return result;
}
