/* decide.h - the one place where a request is let in or refused.
 *
 * Order (contract): route, partner data present, token (and the client certificate, where the partner has one
 * as a second factor), address. A caller without a valid token learns nothing about allowlists; unknown,
 * expired, replaced and disabled look the same outside and differ in the reason, which goes to log and
 * metrics only.
 *
 * Thread: [reader inside a turn]; pure but for the policy that it reads.
 */
#ifndef POLICY_DECIDE_H
#define POLICY_DECIDE_H

#include "policy/policy.h"
#include "policy/token.h"

/* symbol, label (log `deny=`, metric `reason=`) */
/* clang-format off */
#define DENY_MAP(XX)                                                                                        \
    XX(NONE, "none")                          /* let in */                                                  \
    XX(NO_ROUTE, "no_route")                  /* 404: the path is not ours */                               \
    XX(NO_HOST, "no_host")                    /* 404: the host belongs to no environment */                 \
    XX(OTHER_CERTIFICATE, "other_certificate") /* 404: the host has another certificate than the connection's */\
    XX(NO_POLICY, "no_policy")                /* 503: no partner data yet */                                \
    XX(TOKEN_MISSING, "token_missing")        /* 401 missing_token: no Authorization field */               \
    XX(TOKEN_REPEATED, "token_repeated")      /* 401 missing_token: more than one */                        \
    XX(TOKEN_SCHEME, "token_scheme")          /* 401 missing_token: another scheme */                       \
    XX(TOKEN_MALFORMED, "token_malformed")    /* 401 invalid_token: not a b64token */                       \
    XX(TOKEN_UNKNOWN, "token_unknown")        /* 401 invalid_token */                                       \
    XX(TOKEN_EXPIRED, "token_expired")        /* 401 invalid_token: previous token after its grace period */\
    XX(PARTNER_DISABLED, "partner_disabled")  /* 401 invalid_token */                                       \
    XX(CLIENT_CERTIFICATE, "client_certificate") /* 401 invalid_token: none of the partner's was shown */   \
    XX(ADDRESS, "address")                    /* 403: not on the partner's list of this environment */      \
    XX(RATE, "rate")                          /* 429: over the partner's pace */                            \
    XX(CONCURRENCY, "concurrency")            /* 429: it has too many requests under way */                 \
    XX(TUNNELS, "tunnels")                    /* 429: and too many tunnels */                               \
    XX(FAULT, "fault")                        /* 500: the digest could not be computed */

enum deny {
#define XX(id, text) DENY_##id,
    DENY_MAP(XX)
#undef XX
    DENY_COUNT
};
/* clang-format on */

/* The label. Never NULL. */
const char *deny_text(enum deny d);

enum verdict {
    VERDICT_ALLOW = 0,
    VERDICT_NOT_FOUND,        /* 404 */
    VERDICT_UNAVAILABLE,      /* 503 */
    VERDICT_MISSING_TOKEN,    /* 401 missing_token */
    VERDICT_INVALID_TOKEN,    /* 401 invalid_token */
    VERDICT_FORBIDDEN_ORIGIN, /* 403 */
    VERDICT_RATE_LIMITED,     /* 429: never by decide(); proxy/partner_limits.h comes after it */
    VERDICT_FAULT,            /* 500 */
};

/* What the contract answers for this reason. */
enum verdict deny_verdict(enum deny d);

struct decide_query {
    bool has_route;            /* the path is one of ours */
    bool has_environment;      /* the host is one of ours */
    bool is_misdirected;       /* but not one for this connection: its TLS certificate is another host's */
    enum environment env;      /* with has_environment */
    uint32_t nauthorization;   /* number of Authorization fields */
    struct span authorization; /* the value when there is exactly one */
    const uint8_t *digest; /* the token, where only that is known: authorization does not count; or NULL */
    const uint8_t *certificate; /* SHA-256 of the client's, which was verified; NULL = none was shown */
    const struct addr *source;  /* who is calling */
    uint64_t wall_ms;           /* now */
};

struct decision {
    enum deny deny;          /* DENY_NONE: let in */
    enum token_slot slot;    /* when the token was found: of the partner's view, current before previous */
    uint32_t partner;        /* index when the token was found (also for 403, expired and disabled), else
                                PARTNER_INDEX_NONE */
    uint64_t generation;     /* of the policy; read before the look-ups */
    uint64_t valid_until_ms; /* wall clock: the verdict holds before this instant (previous token); else
                                UINT64_MAX */
    uint8_t digest[TOKEN_DIGEST_BYTES]; /* of the token, when there was a well-formed one: what decide_again()
                                           wants */
};

/* Goes through the checks in the order of the contract and stops at the first that fails. A token that
 * changes hands or slots during the look-up is found with its old or its new owner. `h` may be NULL when
 * there is no Authorization field to be looked at. */
void decide(const struct policy *p, struct token_hasher *h, const struct decide_query *q,
            struct decision *out);

/* The same for something that was let in before and is still open: its token is known by `q->digest`, its
 * route and its host are not asked about again. */
void decide_again(const struct policy *p, const struct decide_query *q, struct decision *out);

#endif
