/* admin.h - the operators' HTTP listener: /healthz, /livez, /readyz, /metrics.
 *
 * On the control loop, on loopback or a unix socket, so that a scrape never touches a worker. One request per
 * connection; at most ADMIN_CONNECTIONS_MAX at once; a silent client is closed after ADMIN_DEADLINE_MS.
 *
 * Thread: [control].
 */
#ifndef CONTROL_ADMIN_H
#define CONTROL_ADMIN_H

#include "base/outbuf.h"
#include "net/listener.h"

#include <stdio.h>

enum { ADMIN_CONNECTIONS_MAX = 32, ADMIN_DEADLINE_MS = 10000, ADMIN_HEAD_BYTES = 8192 };

/* One path: what it answers. `body` has room for `body_bytes_max`; the function returns the status. */
struct admin_route {
    const char *path;
    const char *content_type;
    size_t body_bytes_max;
    unsigned (*answer)(void *arg, struct outbuf *body);
};

struct admin_conn;

struct admin {
    struct loop *loop;
    struct listener listener;
    const struct admin_route *routes; /* ends with path NULL; borrowed */
    void *arg;
    struct http_parser *parser;
    struct req_head *req; /* scratch */
    struct admin_conn *conns;
    uint32_t nconns;
    bool open;
};

/* Takes over a listening socket. Errors: ERR_NOMEM, ERR_IO (`fd` is closed then). */
enum err admin_open(struct admin *a, struct loop *loop, int fd, const struct admin_route *routes, void *arg);

/* Closes everything; the memory may go when the loop has run out. Harmless when it was never opened. */
void admin_close(struct admin *a);

/* After the loop has run out. */
void admin_deinit(struct admin *a);

#endif
