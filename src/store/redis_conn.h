/* redis_conn.h - one connection to a Redis server, on the gateway's own transport.
 *
 * hiredis gives the reply reader and the command formatter, nothing else: its own asynchronous layer in
 * Debian 12 loses callbacks on a reset and has no time-outs. RESP2 only.
 *
 *   redis_open -> CONNECTING -> HANDSHAKE: AUTH, CLIENT SETNAME, ROLE -> on_ready -> READY: redis_command()
 *                     |             |                                                    |
 *                     `-------------+------- failure or redis_close() -------------------'
 *                                   v
 *                    CLOSING -> every command that waits gets NULL -> on_closed -> memory is gone
 *
 * Replies come in the order of the commands. Any protocol error, time-out or reset closes the connection.
 * There is no reconnect here: that is its user's. A late reply never reaches the wrong command, because a
 * time-out closes.
 *
 * Commands that are issued inside a callback of this connection leave together when it returns, so a batch of
 * a thousand costs a few system calls.
 *
 * Bounds: those of a reply (redis_reader.h), commands that wait (REDIS_PENDING_MAX).
 *
 * Thread: [the loop's].
 */
#ifndef STORE_REDIS_CONN_H
#define STORE_REDIS_CONN_H

#include "base/err.h"
#include "net/loop.h"
#include "net/socket.h"
#include "net/tls_client.h"
#include "store/redis_error.h"
#include "store/redis_reader.h"

#include <hiredis/hiredis.h>

enum { REDIS_PENDING_MAX = 4096 };

struct redis_conn;

/* `reply` is NULL when the connection ended before it came; it dies when this returns. May be an error reply.
 * May issue commands and close. Called exactly once for each command that redis_command() took. */
typedef void (*redis_reply_fn)(struct redis_conn *c, const redisReply *reply, void *arg);

struct redis_events {
    /* May issue commands and close. */
    void (*on_ready)(struct redis_conn *c, void *user);
    /* `cause`: one line for the log, without secrets. The memory of `c` is gone when this returns. `e`:
     *   ERR_CLOSED    redis_close()
     *   ERR_UNREACHABLE   no connection: nobody listens there, or no way leads there
     *   ERR_REFUSED   the server refused the login: see redis_error_explain()
     *   ERR_AGAIN     the server answered LOADING or BUSY
     *   ERR_CONFLICT  ROLE is not master
     *   ERR_TIMEOUT   of connecting or of a command
     *   ERR_TLS       handshake or record refused, by either side
     *   ERR_EOF, ERR_RESET, ERR_TRUNCATED, ERR_IO ...   of the stream
     *   ERR_PARSE, ERR_LIMIT, ERR_NOMEM                    of a reply */
    void (*on_closed)(struct redis_conn *c, enum err e, const char *cause, void *user);
};

struct redis_options {
    const struct socket_address *address; /* copied */
    const struct tls_target *tls;         /* NULL: plain. A server that is not who it should be is left */
    const char *user;                     /* NULL: AUTH with the password only */
    const char *password;                 /* NULL: no AUTH. A wiped copy is kept until it was sent */
    const char *client_name;              /* CLIENT SETNAME; NULL: none. No spaces */
    bool must_be_master;                  /* ROLE must say master, else the connection is closed */
    uint64_t connect_timeout_ms;          /* until on_ready */
    uint64_t command_timeout_ms;          /* default for redis_command() */
};

/* Starts connecting; `events` and `user` are borrowed until on_closed, the options only for the call.
 * Calls: no event before this returns. Errors: ERR_NOMEM, those of stream_connect(): then no event follows.
 */
enum err redis_open(struct loop *l, const struct redis_options *o, const struct redis_events *events,
                    void *user, struct redis_conn **out);

/* Sends one command and waits for its reply. `timeout_ms` 0 = the default, counted from now; `lengths` NULL =
 * the arguments are strings. The arguments are copied. `fn` is never called before this returns. Errors:
 * ERR_LIMIT (too many wait), ERR_NOMEM, ERR_CLOSED (not ready, or closing): then `fn` is not called. */
enum err redis_command(struct redis_conn *c, uint64_t timeout_ms, redis_reply_fn fn, void *arg, int argc,
                       const char *const *argv, const size_t *lengths);

/* Closes. The waiting commands get NULL and on_closed comes in a later turn. Idempotent. */
void redis_close(struct redis_conn *c);

#endif
