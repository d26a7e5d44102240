/* redis_link.h - commands to one Redis server and their replies, one after the other.
 *
 *   redis_link_open() -> connected, logged in -> redis_link_call(), or
 *                                                redis_link_send() ... redis_link_receive() ...
 *
 * hiredis formats the commands and reads the replies, nothing else, as in the gateway (redis_conn.h).
 * Commands that are sent are collected, and leave together when a reply is asked for: a batch costs one round
 * trip. After any failure the link is of no more use; there is no reconnect, because whoever changes
 * something must know whether it was done.
 *
 * Thread: [any]; one link, one thread. Blocks up to the time-outs.
 */
#ifndef PROOFCTL_REDIS_LINK_H
#define PROOFCTL_REDIS_LINK_H

#include "proofctl/redis_wire.h"

#include <hiredis/hiredis.h>

struct redis_link;

struct redis_link_options {
    const struct socket_address *address;
    const struct redis_tls *tls; /* NULL = none */
    const char *host;            /* that the certificate must bear; NULL: without TLS */
    const char *user;            /* NULL = the default user */
    const char *password_file;   /* NULL = do not log in */
    uint64_t connect_timeout_ms; /* until logged in */
    uint64_t command_timeout_ms; /* for each reply */
};

/* Connects and logs in. The options are borrowed for the call only. Owns: the caller, until
 * redis_link_close(). Errors, all with `why`: ERR_UNREACHABLE (try again later), ERR_REFUSED (settings are
 * wrong: password, rights, certificate), ERR_IO (this is no Redis), ERR_NOMEM. */
enum err redis_link_open(const struct redis_link_options *o, struct redis_link **out, struct errmsg *why);
void redis_link_close(struct redis_link *l);

/* Adds a command. `lengths` NULL: the arguments are strings. Errors: as above; `l`'s fault says why. */
enum err redis_link_send(struct redis_link *l, size_t argc, const char *const *argv, const size_t *lengths);

/* The reply to the oldest command that has none yet; may be an error reply. `wait_ms`: added to the time-out,
 * for commands that block. Owns: the caller, freeReplyObject(). Errors: as above. */
enum err redis_link_receive(struct redis_link *l, uint64_t wait_ms, redisReply **out);

/* Both, for strings; error replies are turned into an error with redis_link_refuse(). */
enum err redis_link_call(struct redis_link *l, size_t argc, const char *const *argv, redisReply **out);

/* What an error reply means: a sentence for redis_link_fault(), and ERR_UNREACHABLE (the server is loading,
 * or a replica), ERR_REFUSED (login or rights), or ERR_IO. The link stays usable. */
enum err redis_link_refuse(struct redis_link *l, const char *doing, const redisReply *reply);

/* Why the last call failed. Valid until the next one. */
const char *redis_link_fault(const struct redis_link *l);

#endif
