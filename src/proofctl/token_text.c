#include "proofctl/token_text.h"

#include "base/fd.h"
#include "base/outbuf.h"
#include "base/random.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

static const char base62[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

enum {
    BASE = 62,
    BYTE_LIMIT = 4 * BASE, /* a random byte from here on is drawn again: the rest below divides evenly */
    PREFIX_WRONG_MAX = 2,  /* characters of the prefix that may be wrong in what is still meant to be ours */
};

/* CRC-32 of IEEE 802.3, as in zlib and gzip. */
static uint32_t crc32_of(const char *p, size_t n)
{
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < n; i++) {
        crc ^= (uint8_t)p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? UINT32_C(0xedb88320) : 0);
    }
    return ~crc;
}

/* Most significant digit first. */
static void write_check(const char *token, char out[static TOKEN_TEXT_CHECK_CHARS])
{
    uint32_t crc = crc32_of(token, TOKEN_TEXT_CHARS - TOKEN_TEXT_CHECK_CHARS);
    for (int i = TOKEN_TEXT_CHECK_CHARS - 1; i >= 0; i--, crc /= BASE)
        out[i] = base62[crc % BASE];
}

enum err token_text_make(char out[static TOKEN_TEXT_CHARS + 1])
{
    uint8_t pool[2 * TOKEN_TEXT_RANDOM_CHARS];
    size_t n = TOKEN_TEXT_PREFIX_CHARS;
    enum err e = ERR_OK;
    memcpy(out, TOKEN_TEXT_PREFIX, TOKEN_TEXT_PREFIX_CHARS);
    while (!e && n < TOKEN_TEXT_CHARS - TOKEN_TEXT_CHECK_CHARS) {
        e = random_bytes(pool, sizeof pool);
        for (size_t i = 0; !e && i < sizeof pool && n < TOKEN_TEXT_CHARS - TOKEN_TEXT_CHECK_CHARS; i++)
            if (pool[i] < BYTE_LIMIT) out[n++] = base62[pool[i] % BASE];
    }
    OPENSSL_cleanse(pool, sizeof pool);
    if (e) return e;
    write_check(out, out + n);
    out[TOKEN_TEXT_CHARS] = '\0';
    return ERR_OK;
}

ssize_t token_text_read(int fd, char *out, size_t cap)
{
    size_t n = 0;
    ssize_t got = 0;
    while (n < cap && (got = fd_read_all(fd, out + n, 1)) == 1 && out[n] != '\n')
        n++;
    while (n > 0 && out[n - 1] == '\r')
        n--;
    return got < 0 ? -1 : (ssize_t)n;
}

static bool is_base62(struct span s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] == '\0' || !strchr(base62, s.p[i])) return false;
    return true;
}

/* The right length and a prefix that is ours but for a typing error. */
static bool is_nearly_ours(struct span token)
{
    unsigned wrong = 0;
    if (token.n != TOKEN_TEXT_CHARS) return false;
    for (size_t i = 0; i < TOKEN_TEXT_PREFIX_CHARS; i++)
        wrong += token.p[i] != TOKEN_TEXT_PREFIX[i];
    return wrong <= PREFIX_WRONG_MAX;
}

enum token_shape token_text_shape(struct span token)
{
    if (!span_starts(token, SPAN(TOKEN_TEXT_PREFIX)))
        return is_nearly_ours(token) ? TOKEN_SHAPE_TYPO : TOKEN_SHAPE_OTHER;
    struct span rest = {token.p + TOKEN_TEXT_PREFIX_CHARS, token.n - TOKEN_TEXT_PREFIX_CHARS};
    if (token.n != TOKEN_TEXT_CHARS || !is_base62(rest)) return TOKEN_SHAPE_TYPO;
    char check[TOKEN_TEXT_CHECK_CHARS];
    write_check(token.p, check);
    bool is_right = memcmp(check, token.p + TOKEN_TEXT_CHARS - sizeof check, sizeof check) == 0;
    return is_right ? TOKEN_SHAPE_PROOF : TOKEN_SHAPE_TYPO;
}

enum err token_text_digest(struct span token, uint8_t out[static TOKEN_DIGEST_BYTES])
{
    return EVP_Digest(token.p, token.n, out, NULL, EVP_sha256(), NULL) == 1 ? ERR_OK : ERR_NOMEM;
}

enum err token_text_revoked_digest(const char *partner_id, uint8_t out[static TOKEN_DIGEST_BYTES])
{
    char text[64 + PARTNER_ID_MAX];
    struct outbuf o = outbuf_of(text, sizeof text);
    outbuf_str(&o, "revoked token of ");
    outbuf_str(&o, partner_id);
    BUG_IF(o.overflow, "a partner id is longer than a partner id may be");
    return token_text_digest(span_of(o.p, o.n), out);
}

void token_text_hex(const uint8_t digest[static TOKEN_DIGEST_BYTES],
                    char out[static 2 * TOKEN_DIGEST_BYTES + 1])
{
    ascii_hex_write(out, digest, TOKEN_DIGEST_BYTES);
    out[2 * TOKEN_DIGEST_BYTES] = '\0';
}
