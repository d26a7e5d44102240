/* token_text.h - the tokens that Proof issues: how they are made, and how a typing error shows without asking
 * anybody.
 *
 *   proof_live_ 9hK2...43 characters... 0aZ3kQ
 *   `- prefix   `- base 62, random      `- CRC-32 of everything before it, base 62, 6 digits
 *
 * Each random character is drawn by itself out of 62 (rejection sampling, no bias): 43 of them are 256 bits.
 * A CRC-32 finds every wrong character and every swap of neighbours before it. The prefix lets secret
 * scanners and people recognise a token.
 *
 * Thread: [any]; pure but for the random bytes and for token_text_read(), which blocks.
 */
#ifndef PROOFCTL_TOKEN_TEXT_H
#define PROOFCTL_TOKEN_TEXT_H

#include "base/err.h"
#include "base/span.h"
#include "policy/partner.h"

#include <sys/types.h>

#define TOKEN_TEXT_PREFIX "proof_live_"

enum {
    TOKEN_TEXT_PREFIX_CHARS = sizeof TOKEN_TEXT_PREFIX - 1,
    TOKEN_TEXT_RANDOM_CHARS = 43,
    TOKEN_TEXT_CHECK_CHARS = 6,
    TOKEN_TEXT_CHARS = TOKEN_TEXT_PREFIX_CHARS + TOKEN_TEXT_RANDOM_CHARS + TOKEN_TEXT_CHECK_CHARS,
    TOKEN_FINGERPRINT_CHARS = 8,
};

/* Writes a new token and a NUL. The caller wipes it. Errors: ERR_IO (no randomness). */
enum err token_text_make(char out[static TOKEN_TEXT_CHARS + 1]);

/* Reads a line, or the first `cap` bytes of it, and nothing behind it; returns its length without the end.
 * Not by stdio, whose buffer would keep a copy. The caller wipes it. -1: errno. */
ssize_t token_text_read(int fd, char *out, size_t cap);

enum token_shape {
    TOKEN_SHAPE_PROOF = 0, /* ours, and its check characters are right */
    TOKEN_SHAPE_TYPO,      /* meant to be ours, but with a mistake in it */
    TOKEN_SHAPE_OTHER,     /* issued by something else: cannot be checked */
};

/* Judged offline, by its form and its checksum. */
enum token_shape token_text_shape(struct span token);

/* SHA-256, as the records hold it. Errors: ERR_NOMEM (libcrypto failed). */
enum err token_text_digest(struct span token, uint8_t out[static TOKEN_DIGEST_BYTES]);

/* What stands in the record of a partner without a current token: a record must have a digest, and no token
 * has this one, because what it is the digest of has spaces in it and a token cannot (RFC 6750 section 2.1).
 * It differs from partner to partner, since two records must not share a digest. Errors: ERR_NOMEM. */
enum err token_text_revoked_digest(const char *partner_id, uint8_t out[static TOKEN_DIGEST_BYTES]);

/* 64 lower-case hexadecimal digits and a NUL. */
void token_text_hex(const uint8_t digest[static TOKEN_DIGEST_BYTES],
                    char out[static 2 * TOKEN_DIGEST_BYTES + 1]);

#endif
