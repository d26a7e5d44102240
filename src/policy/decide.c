#include "policy/decide.h"

#include "policy/key_table.h"

#include <openssl/crypto.h>

/* How often a token may change hands under one look-up before it counts as unknown. */
enum { FIND_ATTEMPTS_MAX = 4 };

const char *deny_text(enum deny d)
{
    static const char *const text[] = {
#define XX(id, label) [DENY_##id] = label,
        DENY_MAP(XX)
#undef XX
    };
    BUG_IF((unsigned)d >= DENY_COUNT, "not a deny reason");
    return text[d];
}

enum verdict deny_verdict(enum deny d)
{
    switch (d) {
    case DENY_NONE: return VERDICT_ALLOW;
    case DENY_NO_ROUTE:
    case DENY_NO_HOST:
    case DENY_OTHER_CERTIFICATE: return VERDICT_NOT_FOUND;
    case DENY_NO_POLICY: return VERDICT_UNAVAILABLE;
    case DENY_TOKEN_MISSING:
    case DENY_TOKEN_REPEATED:
    case DENY_TOKEN_SCHEME: return VERDICT_MISSING_TOKEN;
    case DENY_TOKEN_MALFORMED:
    case DENY_TOKEN_UNKNOWN:
    case DENY_TOKEN_EXPIRED:
    case DENY_PARTNER_DISABLED:
    case DENY_CLIENT_CERTIFICATE: return VERDICT_INVALID_TOKEN;
    case DENY_ADDRESS: return VERDICT_FORBIDDEN_ORIGIN;
    case DENY_RATE:
    case DENY_CONCURRENCY:
    case DENY_TUNNELS: return VERDICT_RATE_LIMITED;
    case DENY_FAULT: return VERDICT_FAULT;
    case DENY_COUNT: break;
    }
    BUG_IF(true, "not a deny reason");
}

/* The slot of the view that holds this very digest. Constant time: nothing is learned about the rest of a
 * digest whose start was guessed. */
static bool slot_of(const struct partner_view *v, const uint8_t *digest, enum token_slot *slot)
{
    for (enum token_slot s = SLOT_CURRENT; s <= SLOT_PREVIOUS; s++) {
        const uint8_t *have = partner_view_digest(v, s);
        if (!have || CRYPTO_memcmp(have, digest, TOKEN_DIGEST_BYTES) != 0) continue;
        *slot = s;
        return true;
    }
    return false;
}

/* The view that has this token now, or NULL. Table and view are read one after the other: when the view says
 * that the token is not its own, the token may have gone to another partner between the two, so the table is
 * asked again. */
static const struct partner_view *find_owner(const struct policy *p, const uint8_t *digest, uint32_t *partner,
                                             enum token_slot *slot)
{
    uint32_t before = PARTNER_INDEX_NONE;
    for (int i = 0; i < FIND_ATTEMPTS_MAX; i++) {
        uint32_t index;
        if (!key_table_find(policy_tokens(p), token_key(digest), &index) || index == before) return NULL;
        const struct partner_view *v = policy_view(p, index);
        if (v && slot_of(v, digest, slot)) {
            *partner = index;
            return v;
        }
        before = index;
    }
    return NULL;
}

static enum deny decide_token(struct token_hasher *h, const struct decide_query *q, uint8_t *digest)
{
    if (q->digest) {
        memcpy(digest, q->digest, TOKEN_DIGEST_BYTES);
        return DENY_NONE;
    }
    if (q->nauthorization == 0) return DENY_TOKEN_MISSING;
    if (q->nauthorization > 1) return DENY_TOKEN_REPEATED;
    struct span token;
    switch (token_parse_authorization(q->authorization, &token)) {
    case TOKEN_OTHER_SCHEME: return DENY_TOKEN_SCHEME;
    case TOKEN_MALFORMED: return DENY_TOKEN_MALFORMED;
    case TOKEN_OK: break;
    }
    return token_digest(h, token, digest) ? DENY_FAULT : DENY_NONE;
}

/* The token is known: out->digest. */
static enum deny decide_partner(const struct policy *p, const struct decide_query *q, struct decision *out)
{
    const struct partner_view *v = find_owner(p, out->digest, &out->partner, &out->slot);
    if (!v) return DENY_TOKEN_UNKNOWN;
    if (!v->enabled) return DENY_PARTNER_DISABLED;
    if (out->slot == SLOT_PREVIOUS) {
        uint64_t expires_ms = partner_view_previous_expires_ms(v);
        if (q->wall_ms >= expires_ms) return DENY_TOKEN_EXPIRED;
        out->valid_until_ms = expires_ms;
    }
    if (!partner_view_takes_certificate(v, q->certificate)) return DENY_CLIENT_CERTIFICATE;
    return partner_view_allows(v, q->env, q->source) ? DENY_NONE : DENY_ADDRESS;
}

/* The generation comes first: whatever changes from here on makes it an old one. */
static struct decision begin(const struct policy *p)
{
    return (struct decision){
        .partner = PARTNER_INDEX_NONE, .generation = policy_generation(p), .valid_until_ms = UINT64_MAX};
}

void decide(const struct policy *p, struct token_hasher *h, const struct decide_query *q,
            struct decision *out)
{
    *out = begin(p);
    if (!q->has_route) {
        out->deny = DENY_NO_ROUTE;
    } else if (!q->has_environment) {
        out->deny = DENY_NO_HOST;
    } else if (q->is_misdirected) {
        out->deny = DENY_OTHER_CERTIFICATE;
    } else if (!policy_is_ready(p)) {
        out->deny = DENY_NO_POLICY;
    } else {
        out->deny = decide_token(h, q, out->digest);
        if (!out->deny) out->deny = decide_partner(p, q, out);
    }
}

void decide_again(const struct policy *p, const struct decide_query *q, struct decision *out)
{
    *out = begin(p);
    memcpy(out->digest, q->digest, TOKEN_DIGEST_BYTES);
    out->deny = decide_partner(p, q, out);
}
