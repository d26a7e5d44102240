/* redis_acl.h - the least rights with which each part does its work in Redis 7 or later: lines for
 * redis.conf, for an ACL file, or for ACL SETUSER.
 *
 * Thread: [any, pure].
 */
#ifndef PROOFCTL_REDIS_ACL_H
#define PROOFCTL_REDIS_ACL_H

#include "base/outbuf.h"

enum acl_role {
    ACL_DEFAULT,  /* nobody; Redis replays its append-only file with its rights */
    ACL_ADMIN,    /* who looks after Redis itself */
    ACL_GATEWAY,  /* reads partners, and writes only its own report */
    ACL_OPERATOR, /* proofctl */
    ACL_SENTINEL, /* by which Sentinels log in to the servers */
    ACL_REPLICA,  /* by which replicas log in to their master */
    ACL_ASKER,    /* by which gateways and proofctl ask the Sentinels; a user of theirs */
    ACL_ROLES,
};

/* "default", "admin", "gateway", "operator", "sentinel", "replica", "asker". */
const char *acl_role_name(enum acl_role role);

/* True when the user belongs to the Sentinels, and not to the servers. */
bool acl_role_is_of_sentinels(enum acl_role role);

/* False for the one user by which nobody logs in: a password would let somebody in. */
bool acl_role_has_password(enum acl_role role);

/* "user NAME on #HASH resetkeys ...", without a line end. `hash`: SHA-256 of the password as 64 hexadecimal
 * digits; NULL: the user has none and so cannot log in yet. */
void acl_line(enum acl_role role, const char *name, const char *hash, const char *tag, struct outbuf *o);

#endif
