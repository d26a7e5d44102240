/* redis_tokens.h - the tokens of all records, by the million, to find those that two records share: gateways
 * refuse one of the two, and which one depends on what they read first.
 *
 * Thread: [any, pure].
 */
#ifndef PROOFCTL_REDIS_TOKENS_H
#define PROOFCTL_REDIS_TOKENS_H

#include "policy/partner.h"

#include <hiredis/hiredis.h>

struct redis_token {
    uint8_t digest[TOKEN_DIGEST_BYTES];
    size_t owner;     /* number of the record, the caller's */
    uint64_t version; /* of the record, when it was taken */
};

/* Starts zeroed. */
struct redis_tokens {
    struct redis_token *list; /* owned */
    size_t n, cap;
};

/* Takes the tokens of a valid record, which HGETALL has answered. Errors: ERR_NOMEM. */
enum err redis_tokens_take(struct redis_tokens *t, const redisReply *hash, size_t owner, uint64_t version);

/* Hands out every token that an earlier record (`first`) has as well; anything but ERR_OK ends it. */
typedef enum err redis_shared_fn(void *arg, const struct redis_token *first, const struct redis_token *again);
enum err redis_tokens_shared(struct redis_tokens *t, redis_shared_fn *fn, void *arg);

void redis_tokens_deinit(struct redis_tokens *t);

#endif
