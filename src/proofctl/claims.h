/* claims.h - tokens that changes bring from elsewhere, and who else has them.
 *
 * A token belongs to one partner: gateways refuse a record with the token of another one. Tokens that
 * proofctl issues are random and nobody's; those of an imported file may be anybody's. A record that is
 * itself among the changes is no rival: it has the tokens of its change, and those of one call differ. But a
 * gateway on Redis sees one change after the other, so it must have given a token up before another gets it.
 *
 * Thread: [any].
 */
#ifndef PROOFCTL_CLAIMS_H
#define PROOFCTL_CLAIMS_H

#include "proofctl/backend.h"

struct claim {
    uint8_t digest[TOKEN_DIGEST_BYTES];
    const char *id; /* borrowed from the change that brings it */
    size_t place;   /* of that change */
};

struct claimant {
    const char *id; /* borrowed */
    size_t place;
};

/* Starts zeroed. */
struct claims {
    struct claim *list; /* owned; in the order of digests */
    size_t n;
    struct claimant *changes; /* owned; all of them, in the order of ids */
    size_t nchanges;
};

/* Collects the tokens of the changes that have foreign ones; c->n is 0 when none has. The changes must
 * outlive it. Owns: the caller, until claims_deinit(), whatever is returned. Errors: ERR_NOMEM. */
enum err claims_make(const struct backend_change *changes, size_t n, struct claims *c);
void claims_deinit(struct claims *c);

/* A record `id` has, or gets, this token: when a change of another record claims it, says so in `faults` and
 * returns true. */
bool claims_dispute(const struct claims *c, const char *id, const uint8_t digest[static TOKEN_DIGEST_BYTES],
                    struct record_messages *faults);

/* Looks through all records for those that have a claimed token and are not replaced, with Redis: not before
 * the token is claimed; b->faults names them. One that is not valid counts with the tokens that it names;
 * what gateways may still have of it besides, nothing in Redis says. Errors: ERR_RANGE (there are some),
 * those of ops->list() but ERR_PARSE and ERR_NOT_FOUND. */
enum err claims_check(struct backend *b, const struct claims *c);

/* All three: what claims_check() says of these changes. Further errors: ERR_NOMEM. */
enum err claims_try(struct backend *b, const struct backend_change *changes, size_t n);

#endif
