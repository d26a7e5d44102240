/* resolver.h - keeps the addresses of one host name fresh, away from the workers.
 *
 * getaddrinfo() blocks, for as long as the system's resolver likes, so each look-up has a thread of its own:
 * a name whose servers do not answer holds up no other one, and nothing else. The result is handed to the
 * owner as an immutable list. A failed or empty answer keeps the last good one, and so does one that does not
 * come: after RESOLVER_SLOW_MS that is a failure as well, and the look-up goes on.
 *
 * A look-up cannot be called off. One whose resolver was closed goes on until it ends, so their number has a
 * bound of its own: RESOLVER_LOOKUPS_MAX, far more than there can be names in force.
 *
 * Thread: [control].
 */
#ifndef NET_RESOLVER_H
#define NET_RESOLVER_H

#include "net/job.h"
#include "net/loop.h"
#include "net/socket.h"

enum {
    RESOLVER_ADDRESSES_MAX = 16,
    RESOLVER_INTERVAL_MS = 30000,
    RESOLVER_RETRY_MS = 2000,
    RESOLVER_SLOW_MS = 15000,  /* one silent server has been given up by then, and that says why */
    RESOLVER_LOOKUPS_MAX = 64, /* of one loop at once */
};

struct addrinfo;

/* In an order of their own. Of more than fit, the first ones in that order, so that a name server which
 * answers in another order each time brings the same ones. */
struct address_list {
    uint32_t n; /* 1.. */
    struct socket_address addresses[RESOLVER_ADDRESSES_MAX];
};

struct resolver;

/* A new list, different from the last one. `list` dies when this returns. */
typedef void (*resolver_fn)(struct resolver *r, const struct address_list *list);

struct resolver {
    struct loop *loop;
    struct job job;
    bool busy; /* the job's thread runs: `found` and `result` are its */
    struct addrinfo *found;
    int result; /* of getaddrinfo() */
    bool closing;
    struct wheel_entry due; /* busy: the look-up is slow; else the next one */
    const char *host;       /* borrowed, until on_closed */
    uint16_t port;
    struct address_list last; /* n == 0: never resolved */
    resolver_fn on_changed;
    void (*on_closed)(struct resolver *r);
    void *user;
    uint64_t failures; /* in a row */
};

/* Starts resolving at once and then every RESOLVER_INTERVAL_MS. */
void resolver_open(struct resolver *r, struct loop *loop, const char *host, uint16_t port,
                   resolver_fn on_changed, void *user);

/* Stops; on_closed comes when the look-up that runs has ended (at once when none does). */
void resolver_close(struct resolver *r, void (*on_closed)(struct resolver *r));

/* Looks a name up once. [any] Blocks for as long as the system's resolver is configured to: for commands, not
 * for the gateway. Errors: ERR_NOT_FOUND (no such name, or no server answers). */
enum err resolver_lookup(const char *host, uint16_t port, struct address_list *out);

#endif
