/* listener.h - accepts connections from one listening socket on one loop.
 *
 * Each worker has its own socket of the same address (SO_REUSEPORT), so the kernel spreads connections and
 * there is no thundering herd. When descriptors run out the listener rests half a second instead of spinning;
 * the connections wait in the kernel's queue. On a loop that leaves the reserve it looks before each
 * accept from then on, until the queue is empty; that an accepted one is of the reserve is on_accept's to
 * see.
 *
 * Closing a SO_REUSEPORT socket resets what waits in its queue, unless another process has the socket as
 * well: listener_accept_queued() takes all of it before.
 *
 * Thread: [the loop's].
 */
#ifndef NET_LISTENER_H
#define NET_LISTENER_H

#include "base/log_sample.h"
#include "net/loop.h"
#include "net/socket.h"

struct listener;

/* `fd` is connected, non-blocking, and the receiver's from now on. `from` dies when this returns. */
typedef void (*listener_accept_fn)(struct listener *l, int fd, const struct sockaddr *from);

struct listener {
    uv_poll_t poll;
    struct loop *loop;
    int fd;
    bool open;
    listener_accept_fn on_accept;
    void (*on_closed)(struct listener *l); /* set by listener_close() */
    void *user;                            /* the owner's */
    struct wheel_entry rest;               /* after EMFILE */
    uint64_t rests;                        /* how often it had to rest */
    int shortage;                          /* errno of the last rest, until the queue is empty; 0 = none */
    struct log_sample told;                /* accept_failed */
};

/* Takes over a listening socket. Errors: ERR_IO (`fd` is closed then). */
enum err listener_open(struct listener *l, struct loop *loop, int fd, listener_accept_fn on_accept,
                       void *user);

/* From on_accept, whose descriptor is reserved (base/fd.h): accepts no more for half a second, and says so.
 */
void listener_rest(struct listener *l);

/* Accepts what is queued now; for a listener that is about to be closed. */
void listener_accept_queued(struct listener *l);

/* Closes, and leaves the queue to whoever else has the socket. on_closed (may be NULL) comes in a later turn;
 * the memory is the caller's after it. Harmless when it is closed. */
void listener_close(struct listener *l, void (*on_closed)(struct listener *l));

#endif
