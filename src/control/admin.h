/* admin.h - the operators' HTTP server: health and metrics on one listener, commands on another.
 *
 * On the control loop, on loopback or a unix socket, so that a scrape never touches a worker. One request per
 * connection; a client that is silent, or does not take its answer, is closed after ADMIN_DEADLINE_MS. A
 * request head and its body have ADMIN_REQUEST_BYTES together.
 *
 * At most ADMIN_CONNECTIONS_MAX at once, and ADMIN_RESERVED_MAX when clients have left only the last
 * descriptors (base/fd.h): of them the main thread needs some itself. One more closes the one that has been
 * open for longest: slow clients do not lock an operator out.
 *
 *   request complete -> route->answer(call) -> status            answered at once
 *                                           `> ADMIN_LATER       ... admin_answer(call, status), once
 *                                                                ... or 504 after route->wait_ms
 *
 * At most ADMIN_CALLS_MAX calls wait, half of the places: so those that somebody who hangs never answers hold
 * up no other call, and what they hold has a bound. One more gets 503.
 *
 * A web page can point a name of its own to loopback, and so make a browser on this machine connect to a TCP
 * socket and read the answers (DNS rebinding). So over TCP the Host has to be an IP address or "localhost",
 * which nobody else's name can be; others get 421. Browsers do not connect to unix sockets.
 *
 * A call outlives its connection: a client that goes away, or has waited for too long, is noticed by nobody
 * but admin_answer().
 *
 * Thread: [control].
 * Spec: RFC 9110 section 15.5.20 (421).
 */
#ifndef CONTROL_ADMIN_H
#define CONTROL_ADMIN_H

#include "base/list.h"
#include "base/outbuf.h"
#include "http/head.h"
#include "net/listener.h"

enum {
    ADMIN_CONNECTIONS_MAX = 32,
    ADMIN_RESERVED_MAX = 8,
    ADMIN_CALLS_MAX = 16,
    ADMIN_DEADLINE_MS = 10000,
    ADMIN_REQUEST_BYTES = 8192,
};
enum { ADMIN_LATER = 0 };

struct admin_conn;

/* One request that waits for its answer. */
struct admin_call {
    struct span query;       /* behind the '?'; dies when the route's function returns */
    struct span body;        /* of the request; dies when the route's function returns */
    struct outbuf out;       /* of the answer: room for the route's body_bytes_max */
    struct admin *admin;     /* the following are admin.c's */
    struct admin_conn *conn; /* NULL: the client is gone */
    const struct admin_route *route;
    struct list_link link; /* admin->calls */
};

/* One path: what it answers. `answer` writes to call->out and returns the status, or, when it has a
 * `wait_ms`, ADMIN_LATER. */
struct admin_route {
    enum http_method method; /* METHOD_GET stands for HEAD as well */
    const char *path;
    const char *content_type;
    size_t body_bytes_max;
    unsigned (*answer)(void *arg, struct admin_call *call);
    uint64_t wait_ms; /* for an answer that comes later; 0 = none does */
};

struct admin {
    struct loop *loop;
    struct listener listener;
    const struct admin_route *routes; /* ends with path NULL; borrowed */
    void *arg;
    struct http_parser *parser;
    struct req_head *req;   /* scratch */
    struct list_link conns; /* head: struct admin_conn, newest first */
    struct list_link calls; /* head: struct admin_call, those that are answered later */
    uint32_t nconns;        /* open; `conns` has those that close as well */
    uint32_t ncalls;
    bool is_private; /* only root and the own user are listened to; for unix sockets */
    bool is_tcp;     /* asked by address or as localhost only */
    bool open;
};

/* Takes over a listening socket. Errors: ERR_NOMEM, ERR_IO (`fd` is closed then). */
enum err admin_open(struct admin *a, struct loop *loop, int fd, const struct admin_route *routes, void *arg);

/* Answers a call for which the route said ADMIN_LATER; the call is gone then. */
void admin_answer(struct admin_call *call, unsigned status);

/* The value of a parameter of a query ("limit=10&env=sandbox"), not decoded: no value of ours needs it.
 * An empty span when it is not there. */
struct span admin_parameter(struct span query, const char *name);

/* Closes everything; the memory may go when the loop has run out. Calls that wait may still be answered until
 * then. Harmless when it was never opened. */
void admin_close(struct admin *a);

/* After the loop has run out. Frees the calls that nobody has answered. */
void admin_deinit(struct admin *a);

#endif
