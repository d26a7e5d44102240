/* redis_find.h - a link to the Redis server that may be written: the configured one, or the one that the
 * Sentinels name.
 *
 * Every address of a name, and every Sentinel, is tried once, in order. What Sentinels say is a hint: ROLE
 * must say master, else the next Sentinel is asked, because one may be cut off from the others.
 *
 * Thread: [any]; blocks up to the time-outs of the configuration for each server that is tried.
 */
#ifndef PROOFCTL_REDIS_FIND_H
#define PROOFCTL_REDIS_FIND_H

#include "proofctl/redis_link.h"

/* Who logs in; NULL members = as the configuration says. */
struct redis_login {
    const char *user;
    const char *password_file;
};

struct redis_master_found {
    char address[160];  /* for people */
    uint64_t nreplicas; /* that are connected to it */
};

/* Owns: the caller, `*link`, until redis_link_close(). Errors: those of redis_link_open(), with `why`, which
 * names the server; when there are several, that of the last one. */
enum err redis_find_master(const struct config_redis *config, const struct redis_tls *tls,
                           const struct redis_login *login, struct redis_link **link,
                           struct redis_master_found *found, struct errmsg *why);

#endif
