/* helper_partners.h - a Redis server with partner data in it, as an operator and an administrator see it.
 *
 * Three users: `gateway` and `operator` with the rights of docs/DATA.md and nothing more, and `default` for
 * what tests do to the server. */
#ifndef STORE_HELPER_PARTNERS_H
#define STORE_HELPER_PARTNERS_H

#include "helper_redis_server.h"
#include "store/redis_schema.h"

#include <hiredis/hiredis.h>

#define GATEWAY_PASSWORD "gateway-secret"

struct partners {
    struct redis_server server;
    struct redis_keys keys;
    redisContext *operator; /* owned */
    redisContext *admin;    /* owned */
    unsigned nonce;
};

/* Starts a server without partner data. */
void partners_start(struct partners *p);
/* Stops it and removes its folder. */
void partners_stop(struct partners *p);
/* kill -9; and again on the same socket, with what was saved ("SAVE") last. */
void partners_kill(struct partners *p);
void partners_revive(struct partners *p);

/* Makes the data set. */
void partners_init(struct partners *p, const char *epoch);
/* Writes partner `number` of helper_records.h; and `n` of them from `first` on. */
void partners_set(struct partners *p, unsigned number, unsigned edition);
void partners_set_many(struct partners *p, unsigned first, unsigned n);
/* Deletes it. */
void partners_del(struct partners *p, unsigned number);
/* Deletes it, and makes a new partner `id` of all it had, its token too: two changes. */
void partners_rename(struct partners *p, unsigned number, const char *id);

/* Runs the script with any arguments; returns the reply, which the caller frees. */
redisReply *partners_write(struct partners *p, const char *op, const char *id, const char *expected,
                           size_t nfields, const char *const *names, const char *const *values);

/* Runs a command as the administrator; it must not fail. "%k" is no feature: write keys out. Returns the
 * integer of the reply, or 0. */
long long partners_admin(struct partners *p, const char *format, ...);

/* "gw:{cfg}:p:partner-000007"; the last four results stay valid. */
const char *partners_key(unsigned number);
/* "partner-000007"; as above. */
const char *partners_id(unsigned number);

/* Cuts the gateway off until partners_let_in(). */
void partners_lock_out(struct partners *p);
void partners_let_in(struct partners *p);

/* All keys of the data set as they are now; later they can be put back (an older dump). */
struct partners_dump;
struct partners_dump *partners_dump(struct partners *p);
void partners_restore(struct partners *p, struct partners_dump *d); /* frees d */

#endif
