/* worker_listener.h - a listening socket of one worker, and the settings of its connections.
 *
 *   control: create (a socket that is open already) --message--> open -- adopt, adopt, ... --> close
 *
 * It keeps its socket, and the connections that wait in it, over reloads; only its settings change. A
 * listener that a reload removes takes what is queued, closes, and keeps the settings it had last for as long
 * as connections of it are there that may need them.
 *
 * As a rule a worker has one socket of each listener. After an upgrade to fewer workers it has several: the
 * sockets of the process before all live on, because connections wait in them. They are a list, and go
 * through life together.
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
    struct worker_listener *more;         /* further sockets of the same listener; NULL from the close on */
    int fd;                               /* -1 once the listener owns it */
    uint32_t refs; /* the open socket, and each connection that came by it and is no tunnel */
};

/* Takes over a listening socket, also when it fails; `more` (may be NULL) is put behind it. Errors: NULL when
 * memory is out; `more` is the caller's then. */
struct worker_listener *worker_listener_create(struct worker *w, int fd, struct worker_listener *more);

/* None was ever opened: closes the sockets and frees. Harmless with NULL. */
void worker_listener_discard(struct worker_listener *l);

/* Begins to accept, as listener `index` of the settings. Errors: ERR_IO; all are closed or freed then. */
enum err worker_listener_open(struct worker_listener *first, struct worker_settings *s, uint32_t index);

/* Goes on as listener `index` of other settings. */
void worker_listener_adopt(struct worker_listener *l, struct worker_settings *s, uint32_t index);

/* Closes; with `take_queued` it accepts what is queued before. Freed when its last connection has let go. */
void worker_listener_close(struct worker_listener *l, bool take_queued);

/* Takes another reference. Returns `l`. */
static inline struct worker_listener *worker_listener_ref(struct worker_listener *l)
{
    l->refs++;
    return l;
}

/* Gives a reference back; the last one frees. NULL is allowed. */
void worker_listener_unref(struct worker_listener *l);

#endif
