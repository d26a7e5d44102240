/* redis_error.h - what the error replies of a Redis server mean to us.
 *
 * Thread: [any, pure].
 */
#ifndef STORE_REDIS_ERROR_H
#define STORE_REDIS_ERROR_H

#include "base/err.h"
#include "base/span.h"

#include <hiredis/hiredis.h>

enum { REDIS_CAUSE_MAX = 240 }; /* longest cause with its NUL; longer texts are cut */

/* The code that an error reply starts with ("NOAUTH"); empty when it has none or the reply is no error. */
struct span redis_error_code(const redisReply *reply);

/* Writes one line for the log: what the code means, or the server's own text without control characters.
 * `reply` must be an error reply. Returns ERR_REFUSED (NOAUTH, WRONGPASS, NOPERM, DENIED: somebody must
 * change the settings), ERR_AGAIN (LOADING, BUSY, NOREPLICAS: wait), ERR_CONFLICT (READONLY, MASTERDOWN,
 * UNBLOCKED: not the master, or no longer), ERR_IO (any other). */
enum err redis_error_explain(const redisReply *reply, char *out, size_t cap);

/* The same without the server's own text, for commands with a secret in them: Redis quotes the arguments of a
 * command that it does not know. */
enum err redis_error_explain_secret(const redisReply *reply, char *out, size_t cap);

#endif
