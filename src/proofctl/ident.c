#include "proofctl/ident.h"

#include "base/random.h"

enum { SLUG_CHARS_MAX = 40, TAIL_CHARS = 4 };

/* 32 characters, so that a byte's low five bits choose one evenly; without 0 o 1 l. */
static const char tail_chars[] = "23456789abcdefghijkmnpqrstuvwxyz";

/* Bytes outside ASCII count as gaps: an id goes into header fields, paths and labels. */
static size_t write_slug(struct span company, char *out)
{
    size_t n = 0;
    bool is_gap = false;
    for (size_t i = 0; i < company.n && n < SLUG_CHARS_MAX; i++) {
        char c = ascii_lower(company.p[i]);
        if ((c < 'a' || c > 'z') && (c < '0' || c > '9')) {
            is_gap = n > 0;
            continue;
        }
        if (is_gap && n < SLUG_CHARS_MAX - 1) out[n++] = '-';
        is_gap = false;
        out[n++] = c;
    }
    return n;
}

enum err ident_partner_id(struct span company, char out[static PARTNER_ID_MAX + 1])
{
    static const struct span fallback = {"partner", 7};
    uint8_t random[TAIL_CHARS];
    enum err e = random_bytes(random, sizeof random);
    if (e) return e;
    size_t n = write_slug(company, out);
    if (n == 0) {
        memcpy(out, fallback.p, fallback.n);
        n = fallback.n;
    }
    out[n++] = '-';
    for (size_t i = 0; i < sizeof random; i++)
        out[n++] = tail_chars[random[i] & 31];
    out[n] = '\0';
    return ERR_OK;
}

enum err ident_uuid4(char out[static IDENT_UUID_CHARS + 1])
{
    uint8_t b[UUID_BYTES];
    enum err e = random_bytes(b, sizeof b);
    if (e) return e;
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40); /* version 4 */
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80); /* variant 10 */
    uuid_format(b, out);
    out[UUID_LEN] = '\0';
    return ERR_OK;
}
