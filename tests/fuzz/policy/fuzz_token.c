/* Any bytes as the value of an Authorization field: what is accepted is exactly one b64token at the value's
 * end, and decide() refuses whatever is not the one token that it knows. */
#include "policy/decide.h"

#include <stdlib.h>
#include <string.h>

#define KNOWN "the-one-known-token-01"

static struct policy *policy;
static struct token_hasher *hasher;

static void set_up(void)
{
    policy = policy_create();
    hasher = token_hasher_create();
    if (!policy || !hasher) abort();
    struct partner r = {.id = "acme", .enabled = true};
    struct cidr home = {.net = {.family = ADDR_V4, .v4 = 0x0a000000}, .len = 8};
    r.cidrs[ENV_PRODUCTION] = &home;
    r.ncidrs[ENV_PRODUCTION] = 1;
    r.has_token[SLOT_CURRENT] = true;
    if (token_digest(hasher, SPAN(KNOWN), r.digest[SLOT_CURRENT])) abort();
    bool changed;
    policy_sync_begin(policy);
    if (policy_apply(policy, &r, &changed) || policy_sync_end(policy, NULL)) abort();
}

/* RFC 6750 section 2.1 written a second time, in another way. */
static bool is_b64token(struct span s)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/";
    while (s.n > 0 && s.p[s.n - 1] == '=')
        s.n--;
    for (size_t i = 0; i < s.n; i++)
        if (!memchr(alphabet, s.p[i], sizeof(alphabet) - 1)) return false;
    return s.n > 0;
}

static void check_parse(struct span value)
{
    struct span token;
    switch (token_parse_authorization(value, &token)) {
    case TOKEN_OTHER_SCHEME: return;
    case TOKEN_MALFORMED:
        if (value.n < 6 || !span_ieq(span_of(value.p, 6), SPAN("bearer"))) abort();
        return;
    case TOKEN_OK: break;
    }
    if (token.n < TOKEN_BYTES_MIN || token.n > TOKEN_BYTES_MAX || !is_b64token(token)) abort();
    if (token.p + token.n != value.p + value.n) abort();
    struct span head = span_of(value.p, value.n - token.n);
    if (head.n < 7 || !span_ieq(span_of(head.p, 6), SPAN("bearer"))) abort();
    for (size_t i = 6; i < head.n; i++)
        if (head.p[i] != ' ') abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    if (!policy) set_up();
    struct span value = span_of((const char *)bytes, n);
    check_parse(value);

    struct addr source = {.family = ADDR_V4, .v4 = 0x0a010203};
    struct decide_query q = {.has_route = true,
                             .has_environment = true,
                             .nauthorization = 1,
                             .authorization = value,
                             .source = &source};
    struct decision d;
    decide(policy, hasher, &q, &d);
    bool ends_in_known =
        n >= sizeof(KNOWN) - 1 && memcmp(bytes + n - (sizeof(KNOWN) - 1), KNOWN, sizeof(KNOWN) - 1) == 0;
    if (d.deny == DENY_NONE && !ends_in_known) abort();
    return 0;
}
