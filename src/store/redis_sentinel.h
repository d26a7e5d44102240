/* redis_sentinel.h - asks Sentinels where the master is.
 *
 *   redis_sentinel_ask -> Sentinel i: address? --- an address ---> on_answer(ERR_OK)
 *                              | failure, nil, time-out                   next round begins with i again
 *                              v
 *                         Sentinel i+1 ... until each was asked once ---> on_answer(why the last one
 *                                                                         did not know)
 *
 * One connection per question, closed after it. The answer is a hint: whoever connects to the address checks
 * ROLE (redis_options.must_be_master), and says redis_sentinel_distrust() when it was wrong, so that a
 * Sentinel that is cut off from the others is not believed for ever.
 *
 * A Sentinel that refuses the login, or for which there is no password to be read, is one that does not know.
 *
 * Addresses only: a Sentinel that announces host names is told apart and skipped.
 *
 * Thread: [the loop's].
 */
#ifndef STORE_REDIS_SENTINEL_H
#define STORE_REDIS_SENTINEL_H

#include "base/err.h"
#include "config/config.h"
#include "net/loop.h"
#include "net/socket.h"

enum { REDIS_SENTINELS_MAX = 16 };

struct redis_sentinel;

struct redis_sentinel_options {
    const char *master_name;             /* as in the Sentinels' configuration */
    const char *user;                    /* of the Sentinels, not of the master; NULL as in redis_options */
    const char *password_file;           /* read whenever a Sentinel is dialled; NULL: no AUTH */
    const struct config_tls_client *tls; /* borrowed; NULL or not enabled: plain */
    const char *client_name;
    uint64_t timeout_ms; /* of one Sentinel: connecting, and again its answer */
};

/* `master` is NULL unless `e` is ERR_OK and dies when this returns; `cause` says in one line what went wrong
 * with the Sentinel that was asked last, "" for ERR_OK. May ask again and close. */
typedef void (*redis_sentinel_fn)(struct redis_sentinel *s, enum err e, const struct socket_address *master,
                                  const char *cause, void *user);

/* Copies the options, but for `tls`. Errors: ERR_NOMEM. */
enum err redis_sentinel_open(struct loop *l, const struct redis_sentinel_options *o,
                             redis_sentinel_fn on_answer, void *user, struct redis_sentinel **out);

/* Asks `n` (1 to REDIS_SENTINELS_MAX) Sentinels, which are copied, one after the other. `names`: of their
 * hosts, for the certificate, borrowed until the answer; each, or all of it, may be NULL. The list may differ
 * from the last one (names resolve anew). Calls: on_answer once, later. Errors: ERR_RANGE (n), ERR_AGAIN (a
 * round is under way: its answer will come). */
enum err redis_sentinel_ask(struct redis_sentinel *s, const struct socket_address *addresses,
                            const char *const *names, size_t n);

/* The last answer was wrong: the next round begins with another Sentinel. No effect during a round. */
void redis_sentinel_distrust(struct redis_sentinel *s);

/* No answer comes any more; the memory goes when the connection is closed. `s` may be NULL. */
void redis_sentinel_close(struct redis_sentinel *s);

#endif
