/* denials.h - the last requests that a worker did not let in, for `proofctl explain --request-id`.
 *
 * A ring of DENIALS_MAX entries, overwritten from the oldest on. It holds what the decision was made from:
 * never a token, only its digest.
 *
 * Thread: [worker].
 */
#ifndef PROXY_DENIALS_H
#define PROXY_DENIALS_H

#include "base/random.h"
#include "policy/decide.h"
#include "proxy/caller.h"

enum { DENIALS_MAX = 256, DENIAL_HOST_MAX = 255, DENIAL_PATH_MAX = 120 };

struct denial {
    uint64_t wall_ms;
    struct caller caller;
    uint32_t partner; /* index then, or PARTNER_INDEX_NONE */
    uint8_t deny;     /* enum deny */
    uint8_t route;    /* enum route: the path may be cut */
    uint8_t nhost, npath;
    bool has_digest, has_certificate;
    uint8_t digest[TOKEN_DIGEST_BYTES];
    uint8_t certificate[CERTIFICATE_DIGEST_BYTES]; /* the client's */
    char request_id[UUID_LEN];
    char host[DENIAL_HOST_MAX]; /* cut when longer */
    char path[DENIAL_PATH_MAX]; /* cut when longer */
};

struct denials {
    uint32_t next; /* counts up; the slot is next % DENIALS_MAX */
    struct denial ring[DENIALS_MAX];
};

/* The next slot, for the caller to fill in whole. */
struct denial *denials_next(struct denials *d);

/* Copies a text into a slot's field; returns how much of it fitted. */
uint8_t denial_keep(char *to, size_t cap, struct span text);

/* The entry with this request id, newest first, or NULL. */
const struct denial *denials_find(const struct denials *d, struct span request_id);

#endif
