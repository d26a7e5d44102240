/* tunnel.h - a WebSocket between a client and the backend: two half-pipes.
 *
 *   client stream --on_read--> follow frames --> upstream stream
 *   client stream <-- follow frames <--on_read-- upstream stream
 *
 * Reading of one side pauses while its bytes wait for the other one: at most one read is buffered.
 *
 * Bytes are passed on as they are; frame headers are only followed (ws.h), so that messages can be counted
 * and a close frame can be put between two frames. A FIN of one side is passed on; a tunnel that is half
 * closed or cannot deliver ends after timeouts.client_write without progress, any other after
 * timeouts.tunnel_idle.
 *
 * A tunnel lives as long as what let it in: when its partner changes (tunnels_recheck()) or the grace period
 * of its token is over, it is decided again, and ends with a close frame 1008 when it would not be let in
 * now.
 *
 * An idle tunnel holds this struct, the connection, whose timer it uses, and the upstream connection, and no
 * buffer. It keeps no pointer to the configuration's or the policy's changing parts: only the partner's index
 * and identifier.
 *
 * Thread: [worker].
 */
#ifndef PROXY_TUNNEL_H
#define PROXY_TUNNEL_H

#include "proxy/exchange.h"
#include "proxy/tunnel_index.h"

struct tunnel {
    struct conn *conn;
    struct upconn *up;
    struct worker *worker;
    struct ws_follower from_client, from_backend;
    uint64_t active_ms; /* last byte in either direction */
    uint64_t opened_us;
    uint64_t client_bytes, backend_bytes; /* received since the tunnel opened */
    struct list_link by_partner;          /* worker->tunnels */
    uint8_t digest[TOKEN_DIGEST_BYTES];   /* of the token that opened it */
    uint64_t valid_until_ms; /* wall clock: the end of a previous token's grace period, or UINT64_MAX */
    uint64_t leave_ms;       /* draining: when it is its turn to end; WHEEL_NEVER = it stays */
    uint32_t partner;        /* index */
    uint8_t env, slot;
    uint8_t place;      /* enum partner_place */
    bool ending;        /* a close frame is to be sent at the next boundary */
    uint8_t ending_why; /* enum tunnel_end */
    char request_id[UUID_LEN];
    uint8_t npartner_id;
    char partner_id[]; /* npartner_id bytes */
};

/* Turns an exchange whose backend answered with a valid 101 into a tunnel: sends `head` and the bytes that
 * followed it to the client, and what the client sent early to the backend. The exchange is over when this
 * returns. */
void tunnel_start(struct exchange *x, struct span head, struct span early);

/* Decides again for the open tunnels of a partner (index), or of everybody with PARTNER_INDEX_NONE. Those
 * that are still allowed are not touched. Inside a turn. */
void tunnels_recheck(struct worker *w, uint32_t partner);

/* It is to end for a drain at this instant (monotonic), perhaps at once; WHEEL_NEVER: it may stay. */
void tunnel_leave_at(struct tunnel *t, uint64_t leave_ms);

/* Ends in order: the client gets a close frame (1001 idle, 1008 not allowed any more, 1012 come again) at a
 * frame boundary, at most half a second later. */
void tunnel_end(struct tunnel *t, enum tunnel_end why);

/* Ends at once. The client connection is left in CONN_LINGER or CONN_CLOSED. */
void tunnel_cut(struct tunnel *t, enum tunnel_end why);

#endif
