/* token.h - bearer tokens: grammar and digest.
 *
 * A token is never stored, logged or compared in clear: SHA-256 with a pre-fetched digest and reused
 * contexts (63 ns; SHA256() would fetch the algorithm each time, 267 ns).
 *
 *   if (token_parse_authorization(value, &token) == TOKEN_OK && !token_digest(hasher, token, digest)) look up
 *
 * Thread: token_parse_authorization [any, pure]; a struct token_hasher belongs to one thread.
 */
#ifndef POLICY_TOKEN_H
#define POLICY_TOKEN_H

#include "base/err.h"
#include "base/span.h"
#include "policy/key_table.h"
#include "policy/partner.h"

#include <string.h>

enum { TOKEN_BYTES_MIN = 16, TOKEN_BYTES_MAX = 512 };

enum { TOKEN_KEY_BYTES = sizeof(struct key128) }; /* of a digest */

enum token_syntax {
    TOKEN_OK = 0,
    TOKEN_OTHER_SCHEME, /* empty value, or a scheme that is not Bearer: there is no token */
    TOKEN_MALFORMED,    /* Bearer, but what follows is not one b64token of acceptable length */
};

/* Splits "Bearer SP+ b64token" (scheme in any case). `value`: a field value without surrounding white space.
 * `*token` points into `value`; written only for TOKEN_OK.
 * Spec: RFC 6750 section 2.1, RFC 9110 sections 11.1 and 11.4. */
enum token_syntax token_parse_authorization(struct span value, struct span *token);

struct token_hasher;

/* NULL when libcrypto has no SHA-256 or memory is out. */
struct token_hasher *token_hasher_create(void);
void token_hasher_destroy(struct token_hasher *h);

/* Errors: ERR_NOMEM (libcrypto failed). */
enum err token_digest(struct token_hasher *h, struct span token, uint8_t out[static TOKEN_DIGEST_BYTES]);

/* Where a token is in the table of tokens (digest -> partner): the start of its digest.
 *
 * Two digests with the same key are the same to the table (2^-107 for a guess against two million tokens).
 * The compare of all 256 bits, in constant time, is done by decide() against the partner's view; so is the
 * question which of the partner's two tokens it is, which lets a token rotate without a change of the table.
 */
static inline struct key128 token_key(const uint8_t digest[static TOKEN_DIGEST_BYTES])
{
    struct key128 k;
    memcpy(&k, digest, TOKEN_KEY_BYTES);
    return k;
}

#endif
