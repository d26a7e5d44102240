#include "policy/token.h"

#include "http/chars.h"

#include <openssl/evp.h>

#include <stdlib.h>

struct token_hasher {
    EVP_MD *sha256;
    EVP_MD_CTX *base; /* initialised once; copying it is cheaper than initialising again */
    EVP_MD_CTX *work;
};

/* RFC 6750 section 2.1: b64token = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"=" */
static const struct char_set token_chars = {{['+'] = 1, ['/'] = 1, CHARS_UNRESERVED}};

/* RFC 9110 section 5.6.2: tchar, what the name of a scheme is made of. */
static const struct char_set scheme_chars = {{['.'] = 1, ['_'] = 1, CHARS_PLAIN_TOKEN}};

static bool is_b64token(struct span s)
{
    size_t i = 0;
    while (i < s.n && char_in(&token_chars, s.p[i]))
        i++;
    if (i == 0) return false;
    while (i < s.n && s.p[i] == '=')
        i++;
    return i == s.n;
}

enum token_syntax token_parse_authorization(struct span value, struct span *token)
{
    static const struct span scheme = {"Bearer", 6};

    if (value.n < scheme.n || !span_ieq(span_of(value.p, scheme.n), scheme)) return TOKEN_OTHER_SCHEME;
    struct span rest = span_of(value.p + scheme.n, value.n - scheme.n);
    if (rest.n > 0 && char_in(&scheme_chars, rest.p[0]))
        return TOKEN_OTHER_SCHEME; /* a longer name, "Bearers" */

    size_t spaces = 0;
    while (spaces < rest.n && rest.p[spaces] == ' ')
        spaces++;
    if (spaces == 0) return TOKEN_MALFORMED;
    rest = span_of(rest.p + spaces, rest.n - spaces);

    if (rest.n < TOKEN_BYTES_MIN || rest.n > TOKEN_BYTES_MAX || !is_b64token(rest)) return TOKEN_MALFORMED;
    *token = rest;
    return TOKEN_OK;
}

struct token_hasher *token_hasher_create(void)
{
    struct token_hasher *h = calloc(1, sizeof(*h));
    if (!h) return NULL;
    h->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    h->base = EVP_MD_CTX_new();
    h->work = EVP_MD_CTX_new();
    if (!h->sha256 || !h->base || !h->work || EVP_DigestInit_ex2(h->base, h->sha256, NULL) != 1) {
        token_hasher_destroy(h);
        return NULL;
    }
    return h;
}

void token_hasher_destroy(struct token_hasher *h)
{
    if (!h) return;
    EVP_MD_CTX_free(h->work);
    EVP_MD_CTX_free(h->base);
    EVP_MD_free(h->sha256);
    free(h);
}

enum err token_digest(struct token_hasher *h, struct span token, uint8_t out[static TOKEN_DIGEST_BYTES])
{
    if (EVP_MD_CTX_copy_ex(h->work, h->base) != 1 || EVP_DigestUpdate(h->work, token.p, token.n) != 1 ||
        EVP_DigestFinal_ex(h->work, out, NULL) != 1)
        return ERR_NOMEM;
    return ERR_OK;
}
