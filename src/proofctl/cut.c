#include "proofctl/cut.h"

#include "proofctl/token_text.h"

#include <stdlib.h>

static enum err is_token_live(const struct partner *p, enum token_slot slot, uint64_t now_ms, bool *out)
{
    uint8_t revoked[TOKEN_DIGEST_BYTES];
    enum err e = token_text_revoked_digest(p->id, revoked);
    if (e) return e;
    *out = p->has_token[slot] && (slot == SLOT_CURRENT || p->previous_expires_ms > now_ms) &&
           memcmp(p->digest[slot], revoked, sizeof revoked) != 0;
    return ERR_OK;
}

/* Does the token `digest` work for `p` now? In either slot: rotation moves it from one to the other. */
static bool has_live_digest(const struct partner *p, const uint8_t digest[static TOKEN_DIGEST_BYTES],
                            uint64_t now_ms)
{
    if (memcmp(p->digest[SLOT_CURRENT], digest, TOKEN_DIGEST_BYTES) == 0) return true;
    return p->has_token[SLOT_PREVIOUS] && p->previous_expires_ms > now_ms &&
           memcmp(p->digest[SLOT_PREVIOUS], digest, TOKEN_DIGEST_BYTES) == 0;
}

static struct cidr *sorted(const struct cidr *list, uint32_t n)
{
    struct cidr *copy = malloc((n ? n : 1) * sizeof *copy);
    if (!copy) return NULL;
    if (n) memcpy(copy, list, n * sizeof *copy);
    qsort(copy, n, sizeof *copy, cidr_compare);
    return copy;
}

/* The number of different prefixes of `before` that `after` does not have. */
static enum err count_lost(const struct partner *before, const struct partner *after, enum environment env,
                           uint32_t *lost)
{
    uint32_t n = before->ncidrs[env], m = after->ncidrs[env];
    struct cidr *was = sorted(before->cidrs[env], n), *is = sorted(after->cidrs[env], m);
    for (uint32_t i = 0, j = 0; was && is && i < n; i++) {
        if (i > 0 && cidr_compare(&was[i - 1], &was[i]) == 0) continue;
        while (j < m && cidr_compare(&is[j], &was[i]) < 0)
            j++;
        *lost += j == m || cidr_compare(&is[j], &was[i]) != 0;
    }
    enum err e = was && is ? ERR_OK : ERR_NOMEM;
    free(was);
    free(is);
    return e;
}

static bool has_certificate(const struct partner *p, const uint8_t *digest)
{
    for (uint8_t i = 0; i < p->ncertificates; i++)
        if (memcmp(p->certificates[i], digest, CERTIFICATE_DIGEST_BYTES) == 0) return true;
    return p->ncertificates == 0;
}

/* True when a client that has no certificate, or one that was accepted before, is not let in any more. */
static bool narrows_certificates(const struct partner *before, const struct partner *after)
{
    if (before->ncertificates == 0) return after->ncertificates > 0;
    for (uint8_t i = 0; i < before->ncertificates; i++)
        if (!has_certificate(after, before->certificates[i])) return true;
    return false;
}

enum err cut_compute(const struct partner *before, const struct partner *after, uint64_t now_ms,
                     struct cut *out)
{
    struct cut c = {.is_removed = !after, .is_disabled = after && before->enabled && !after->enabled};
    bool is_compared = after && before->enabled && after->enabled;
    enum err e = ERR_OK;
    c.certificate = is_compared && narrows_certificates(before, after);
    for (enum token_slot slot = SLOT_CURRENT; is_compared && !e && slot <= SLOT_PREVIOUS; slot++) {
        bool is_live = false;
        e = is_token_live(before, slot, now_ms, &is_live);
        c.token[slot] = is_live && !has_live_digest(after, before->digest[slot], now_ms);
    }
    for (enum environment env = ENV_PRODUCTION; is_compared && !e && env < ENV_COUNT; env++)
        e = count_lost(before, after, env, &c.prefixes[env]);
    if (!e) *out = c;
    return e;
}

bool cut_is_any(const struct cut *c)
{
    return c->is_removed || c->is_disabled || c->token[SLOT_CURRENT] || c->token[SLOT_PREVIOUS] ||
           c->certificate || c->prefixes[ENV_PRODUCTION] || c->prefixes[ENV_SANDBOX];
}

void cut_describe(const struct cut *c, struct outbuf *o)
{
    const char *comma = "";
    if (c->is_removed) outbuf_str(o, "it is removed for good and its tokens stop working");
    if (c->is_disabled) outbuf_str(o, "it is disabled and its tokens stop working");
    for (enum token_slot slot = SLOT_CURRENT; slot <= SLOT_PREVIOUS; slot++) {
        if (!c->token[slot]) continue;
        outbuf_fmt(o, "%sits %s token stops working", comma, token_slot_name(slot));
        comma = ", ";
    }
    if (c->certificate) {
        outbuf_fmt(o, "%sits token alone, or another client certificate, is not enough any more", comma);
        comma = ", ";
    }
    for (enum environment env = ENV_PRODUCTION; env < ENV_COUNT; env++) {
        if (!c->prefixes[env]) continue;
        outbuf_fmt(o, "%s%u %s leave%s its %s list", comma, c->prefixes[env],
                   c->prefixes[env] == 1 ? "prefix" : "prefixes", c->prefixes[env] == 1 ? "s" : "",
                   environment_name(env));
        comma = ", ";
    }
}
