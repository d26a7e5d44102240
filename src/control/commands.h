/* commands.h - the control socket: what proofctl asks a running gateway for, as HTTP over a unix socket.
 *
 *   GET  /status                              version, uptime, connections, policy, store, last reload
 *   GET  /explain?host=&ip=&path=&token_sha256=
 *                                             why such a request is let in or refused
 *   GET  /explain?request_id=                 why that one was refused (the last ones of each worker)
 *   GET  /tunnels?partner=&request_id=        open tunnels
 *   POST /tunnels/close?partner=&request_id=  closes them (1012)
 *   POST /log-level?level=                    until the next reload
 *   GET  /reload/plan                         what a reload would change, and whether it is live
 *   POST /reload                              answers when every worker has taken over, or why not
 *   POST /drain                               out of service, without an end
 *   POST /undrain                             and back
 *   POST /confirm-deletions?partners=         lets a held load drop so many (docs/DATA.md, Mass deletion)
 *
 * By hand: curl --unix-socket /run/proofgw/control.sock http://gateway/status
 *
 * The socket has mode 0600, and only root and the gateway's own user are listened to. Answers are JSON; an
 * error is {"error":"sentence"}. What needs an answer of every worker gets 504 when one does not answer in
 * time, and 503 when too many calls wait already (admin.h).
 *
 * Thread: [control].
 */
#ifndef CONTROL_COMMANDS_H
#define CONTROL_COMMANDS_H

#include "control/admin.h"
#include "control/status.h"
#include "proxy/worker.h"
#include "store/store.h"

struct commands;

/* What the commands need of the process; everything borrowed, for as long as the socket is open. */
struct commands_host {
    struct loop *loop;
    struct policy *policy;
    const struct partner_limits *limits;
    struct sources *sources;
    const struct status *status;
    struct worker *const *workers;
    unsigned nworkers;
    struct reload *reload;
    struct store *store;
    struct drain *drain;
};

struct commands {
    struct admin admin;
    struct commands_host host;
    struct endpoint place; /* of the socket; ENDPOINT_NONE: there is none */
};

/* Where the configuration wants the socket; ENDPOINT_NONE: nowhere. */
struct endpoint commands_place(const struct config *config);

/* Opens the socket at `place`, or takes over the one that another process has handed over. Errors: ERR_IO,
 * ERR_RANGE, ERR_EXISTS (`why` says what is wrong), ERR_NOMEM. */
enum err commands_open(struct commands *c, const struct commands_host *host, const struct endpoint *place,
                       struct inherited *in, struct errmsg *why);

/* The socket, for an upgrade; -1 when there is none. */
int commands_fd(const struct commands *c);

/* Closes the socket, and removes it unless another process listens on it now. Harmless when it was never
 * opened. */
void commands_close(struct commands *c);

/* After the loop has run out. */
void commands_deinit(struct commands *c);

#endif
