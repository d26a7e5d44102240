/* end.h - why something came to its end, in words for log and metrics.
 *
 *   exchange   who ended it, and in which phase: the first question of every support case. Recorded once,
 *              written as `"end":"who/phase"` in the access log and counted per pair
 *   limit      which one of the configuration was met
 *   tunnel     the reason
 *
 * Thread: [any, pure].
 */
#ifndef PROXY_END_H
#define PROXY_END_H

#define END_WHO_MAP(XX)                                                                                      \
    XX(OK, "ok")             /* an answer of the backend was delivered whole */                              \
    XX(GATEWAY, "gateway")   /* the gateway answered itself: a denial, a limit */                            \
    XX(CLIENT, "client")     /* the client went away or broke the protocol */                                \
    XX(BACKEND, "backend")   /* the backend went away, refused, or broke the protocol */                     \
    XX(TIMEOUT, "timeout")   /* a deadline of the gateway passed */                                          \
    XX(SHUTDOWN, "shutdown") /* the gateway is going away */

enum end_who {
#define XX(id, text) END_##id,
    END_WHO_MAP(XX)
#undef XX
        END_WHO_COUNT
};

#define END_PHASE_MAP(XX)                                                                                    \
    XX(REQUEST_HEAD, "request_head")                                                                         \
    XX(DECIDE, "decide")                                                                                     \
    XX(REQUEST_BODY, "request_body")                                                                         \
    XX(QUEUE, "queue")     /* waiting for an upstream connection */                                          \
    XX(CONNECT, "connect") /* to the backend */                                                              \
    XX(TLS, "tls")         /* the handshake with it */                                                       \
    XX(RESPONSE_HEAD, "response_head")                                                                       \
    XX(RESPONSE_BODY, "response_body")                                                                       \
    XX(TUNNEL, "tunnel")                                                                                     \
    XX(DONE, "done")

enum end_phase {
#define XX(id, text) PHASE_##id,
    END_PHASE_MAP(XX)
#undef XX
        END_PHASE_COUNT
};

extern const char *const end_who_names[END_WHO_COUNT];
extern const char *const end_phase_names[END_PHASE_COUNT];

/* Limits of the configuration, as metrics label and log value when one was met. */
#define LIMIT_MAP(XX)                                                                                        \
    XX(HEAD, "head")                                                                                         \
    XX(HEADER_COUNT, "header_count")                                                                         \
    XX(TARGET, "target")                                                                                     \
    XX(BODY, "body")                                                                                         \
    XX(CHUNK_FRAMING, "chunk_framing")                                                                       \
    XX(REQUESTS_PER_CONNECTION, "requests_per_connection")                                                   \
    XX(CONNECTIONS_PER_WORKER, "connections_per_worker")                                                     \
    XX(CONNECTIONS_PER_SOURCE, "connections_per_source")                                                     \
    XX(TLS_HANDSHAKES, "tls_handshakes_per_worker")                                                          \
    XX(TUNNELS_PER_WORKER, "tunnels_per_worker")                                                             \
    XX(RATE_PER_PARTNER, "rate_per_partner")                                                                 \
    XX(CONCURRENCY_PER_PARTNER, "concurrency_per_partner")                                                   \
    XX(TUNNELS_PER_PARTNER, "tunnels_per_partner")                                                           \
    XX(RESPONSE_HEAD, "response_head")                                                                       \
    XX(UPSTREAM_WAITING, "upstream_waiting")                                                                 \
    XX(DESCRIPTORS, "descriptors")                                                                           \
    XX(LOCAL_PORTS, "local_ports")                                                                           \
    XX(MEMORY, "memory")

enum limit_id {
#define XX(id, text) LIMIT_##id,
    LIMIT_MAP(XX)
#undef XX
        LIMIT_COUNT
};

extern const char *const limit_names[LIMIT_COUNT];

/* Why a tunnel ended (metric tunnels_closed_total). */
#define TUNNEL_END_MAP(XX)                                                                                   \
    XX(CLIENT, "client")           /* the client closed or reset it */                                       \
    XX(BACKEND, "backend")         /* the backend closed or reset it */                                      \
    XX(IDLE, "idle")               /* no byte for tunnel_idle */                                             \
    XX(WRITE_STALL, "write_stall") /* one side did not take its bytes in time */                             \
    XX(TOKEN, "token")             /* its token is nobody's any more: revoked, replaced, partner removed */  \
    XX(EXPIRED, "expired")         /* its token was the previous one, and the grace period is over */        \
    XX(DISABLED, "disabled")       /* the partner was disabled */                                            \
    XX(ADDRESS, "address")         /* its address was taken off the list */                                  \
    XX(CERTIFICATE, "certificate") /* its client certificate is none of the partner's any more */            \
    XX(OPERATOR, "operator")       /* closed by hand: proofctl tunnels close */                              \
    XX(SHUTDOWN, "shutdown")       /* the gateway drains: its end, an upgrade, proofctl drain */             \
    XX(MEMORY, "memory")

enum tunnel_end {
#define XX(id, text) TUNNEL_END_##id,
    TUNNEL_END_MAP(XX)
#undef XX
        TUNNEL_END_COUNT
};

extern const char *const tunnel_end_names[TUNNEL_END_COUNT];

#endif
