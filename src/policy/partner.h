/* partner.h - one partner as the store delivers it: the input of policy_apply().
 *
 * Filled by store/record.c, the one validator; everything in it is already checked. Names and contacts
 * are not here: the data plane does not need them.
 *
 * Thread: [control].
 */
#ifndef POLICY_PARTNER_H
#define POLICY_PARTNER_H

#include "base/uuid.h"
#include "policy/cidr.h"

#include <stdint.h>

enum environment { ENV_PRODUCTION = 0, ENV_SANDBOX = 1, ENV_COUNT = 2 };

/* "production", "sandbox". */
const char *environment_name(enum environment e);

enum token_slot { SLOT_CURRENT = 0, SLOT_PREVIOUS = 1 };

/* "current", "previous". */
const char *token_slot_name(enum token_slot s);

enum {
    PARTNER_ID_MAX = 64, /* bytes, without NUL; [A-Za-z0-9._-] */
    TOKEN_SLOTS = 2,
    TOKEN_DIGEST_BYTES = 32,    /* SHA-256 */
    PARTNER_CIDRS_MAX = 100000, /* prefixes in one list */
    CERTIFICATE_DIGEST_BYTES = 32,
    PARTNER_CERTIFICATES_MAX = 8,
};

struct partner {
    char id[PARTNER_ID_MAX + 1];
    uint8_t widget_id[UUID_BYTES];
    bool enabled;
    bool off_ramp;
    bool has_token[TOKEN_SLOTS];                     /* by enum token_slot */
    uint8_t digest[TOKEN_SLOTS][TOKEN_DIGEST_BYTES]; /* SHA-256 of the token, by slot */
    uint64_t previous_expires_ms; /* wall clock; the previous token is valid before this instant */
    uint8_t ncertificates;        /* 0: none is asked for */
    uint8_t certificates[PARTNER_CERTIFICATES_MAX][CERTIFICATE_DIGEST_BYTES]; /* SHA-256 of each (DER) */
    struct cidr *cidrs[ENV_COUNT]; /* owned; partner_deinit() frees */
    uint32_t ncidrs[ENV_COUNT];
};

/* Frees the lists and wipes the digests; the struct itself is the caller's. */
void partner_deinit(struct partner *p);

#endif
