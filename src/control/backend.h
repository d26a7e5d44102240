/* backend.h - the addresses of one environment's backend, kept up to date while its name is resolved again.
 *
 * One object per configured address: when a reload names another backend, the next one resolves beside the
 * one in force, and takes its place when it has an answer.
 *
 * Thread: [control].
 */
#ifndef CONTROL_BACKEND_H
#define CONTROL_BACKEND_H

#include "config/config.h"
#include "net/resolver.h"

struct backend {
    struct resolver resolver; /* ENDPOINT_NAME */
    struct endpoint endpoint; /* a copy: it outlives the configuration it came from */
    enum environment env;
    struct address_list addresses; /* n == 0: the name has not been resolved yet */
    void (*on_addresses)(struct backend *b);
    void (*on_closed)(struct backend *b);
    void *arg;
};

/* Begins to resolve a name; on_addresses is called with each new list. For an IP address or a unix socket
 * `addresses` is filled at once, without a call. Owns: itself, until backend_close(). Errors: NULL when
 * memory is out. */
struct backend *backend_create(struct loop *loop, enum environment env, const struct endpoint *e,
                               void (*on_addresses)(struct backend *b), void *arg);

/* Stops. When no look-up of its name is under way any more, calls on_closed (may be NULL) and frees. NULL is
 * allowed. */
void backend_close(struct backend *b, void (*on_closed)(struct backend *b));

#endif
