/* redis_master.h - finds the address of the Redis server: configured, resolved, or asked of the Sentinels.
 *
 *   redis_master_ask -> address or socket: at once
 *                    -> name: from the resolver, the next of its addresses at each asking
 *                    -> Sentinels: on_answer comes later
 *
 * Thread: [the loop's].
 */
#ifndef STORE_REDIS_MASTER_H
#define STORE_REDIS_MASTER_H

#include "config/config.h"
#include "net/resolver.h"

struct redis_master;

/* Only with Sentinels. `address` is NULL unless `e` is ERR_OK; `cause`: one line. */
typedef void (*redis_master_fn)(enum err e, const struct socket_address *address, const char *cause,
                                void *user);

/* `config` is borrowed. Errors: ERR_NOMEM, ERR_RANGE (the path of a socket). */
enum err redis_master_open(struct loop *l, const struct config_redis *config, redis_master_fn on_answer,
                           void *user, struct redis_master **out);

/* Errors: ERR_AGAIN (on_answer comes), ERR_NOT_FOUND (no name resolves so far: ask again later). */
enum err redis_master_ask(struct redis_master *m, struct socket_address *out);

/* The name of the server in the configuration, as its certificate has it; NULL when there is none. Lives as
 * long as the configuration. */
const char *redis_master_name(const struct redis_master *m);

/* Reports that the address that was given last is not the master's, or does not answer. */
void redis_master_distrust(struct redis_master *m);

/* True when the master may change without the connection to the old one ending: ask from time to time. */
bool redis_master_may_move(const struct redis_master *m);

/* `on_closed` comes when no resolver is busy any more; possibly at once. */
void redis_master_close(struct redis_master *m, void (*on_closed)(void *arg), void *arg);

#endif
