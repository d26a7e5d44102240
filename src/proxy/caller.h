/* caller.h - who is calling, and why we believe it.
 *
 *   default           the socket's peer, and nothing else
 *   proxy_protocol    whom the balancer's PROXY header names, for the whole connection
 *   forwarded_for     whom X-Forwarded-For names, request by request
 *
 * The last two only where the socket's peer is one of the listener's trusted proxies: trust goes by address,
 * never by counting hops. On a unix socket the permissions of the file say who may speak.
 *
 * Thread: [any, pure].
 */
#ifndef PROXY_CALLER_H
#define PROXY_CALLER_H

#include "config/config.h"

/* symbol, text (log `client_ip_source`) */
#define CALLER_ORIGIN_MAP(XX)                                                                                \
    XX(SOCKET, "socket")                                                                                     \
    XX(PROXY_V1, "proxy_v1")                                                                                 \
    XX(PROXY_V2, "proxy_v2")                                                                                 \
    XX(X_FORWARDED_FOR, "x_forwarded_for")

enum caller_origin {
#define XX(id, text) CALLER_##id,
    CALLER_ORIGIN_MAP(XX)
#undef XX
        CALLER_ORIGIN_COUNT
};

extern const struct span caller_origin_names[CALLER_ORIGIN_COUNT];

struct caller {
    struct addr address; /* who is believed to call; ADDR_NONE: nobody with an address */
    struct addr peer;    /* of the socket; ADDR_NONE: a unix socket */
    uint8_t origin;      /* enum caller_origin: where `address` is from */
};

static inline struct caller caller_of_peer(struct addr peer)
{
    return (struct caller){.address = peer, .peer = peer, .origin = CALLER_SOCKET};
}

/* This peer of the listener may say on whose behalf it calls. */
bool caller_peer_is_trusted(const struct config_listener *l, const struct addr *peer);

/* The address is that of a trusted proxy: it has not named anybody yet, or it checks the gateway's health and
 * names itself. */
bool caller_is_proxy(const struct config_listener *l, const struct caller *c);

/* Finds the caller of one request on a listener with forwarded_for; `c->address` is the peer's before. False
 * when the field is malformed: to be refused. */
bool caller_read_forwarded_for(const struct config_listener *l, const struct req_head *req, struct caller *c);

#endif
