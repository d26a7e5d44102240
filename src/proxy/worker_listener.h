/* worker_listener.h - one listening socket of one worker, and by what its connections go.
 *
 *   control: create (a socket that is open already) --message--> open -- adopt, adopt, ... --> close
 *
 * It keeps its socket, and the connections that wait in it, over reloads; only its settings change. A
 * listener that a reload removes takes what is queued, closes, and keeps the settings it had last for as long
 * as connections of it are there that may need them.
 *
 * Thread: worker_listener_create, worker_listener_discard [control]; the rest [worker].
 */
#ifndef PROXY_WORKER_LISTENER_H
#define PROXY_WORKER_LISTENER_H

#include "net/listener.h"
#include "proxy/settings.h"

struct worker;

struct worker_listener {
    struct listener listener;
    struct worker *worker;
    struct worker_settings *settings;     /* one reference; NULL before it is open */
    const struct config_listener *config; /* its part of the settings */
    struct tls_server *tls;               /* likewise; NULL = plain */
    int fd;                               /* -1 once the listener owns it */
    uint32_t refs; /* the open socket, and each connection that came by it and is no tunnel */
};

/* Takes over a listening socket, also when it fails. Errors: NULL when memory is out. */
struct worker_listener *worker_listener_create(struct worker *w, int fd);

/* It was never opened: closes the socket and frees. Harmless with NULL. */
void worker_listener_discard(struct worker_listener *l);

/* Begins to accept, as listener `index` of the settings. Errors: ERR_IO; it is freed then. */
enum err worker_listener_open(struct worker_listener *l, struct worker_settings *s, uint32_t index);

/* Goes on as listener `index` of other settings. */
void worker_listener_adopt(struct worker_listener *l, struct worker_settings *s, uint32_t index);

/* Accepts what is queued, then closes; freed when its last connection has let go. */
void worker_listener_close(struct worker_listener *l);

static inline struct worker_listener *worker_listener_retain(struct worker_listener *l)
{
    l->refs++;
    return l;
}

/* Harmless with NULL. */
void worker_listener_release(struct worker_listener *l);

#endif
