#include "policy/partner.h"

#include <openssl/crypto.h>

#include <stdlib.h>

const char *environment_name(enum environment e)
{
    switch (e) {
    case ENV_PRODUCTION: return "production";
    case ENV_SANDBOX: return "sandbox";
    case ENV_COUNT: break;
    }
    BUG_IF(true, "not an environment");
}

const char *token_slot_name(enum token_slot s)
{
    switch (s) {
    case SLOT_CURRENT: return "current";
    case SLOT_PREVIOUS: return "previous";
    }
    BUG_IF(true, "not a token slot");
}

void partner_deinit(struct partner *p)
{
    for (int env = 0; env < ENV_COUNT; env++) {
        free(p->cidrs[env]);
        p->cidrs[env] = NULL;
        p->ncidrs[env] = 0;
    }
    OPENSSL_cleanse(p->digest, sizeof(p->digest));
    p->has_token[SLOT_CURRENT] = p->has_token[SLOT_PREVIOUS] = false;
}
