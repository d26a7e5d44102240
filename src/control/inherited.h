/* inherited.h - listening sockets that another process opened: the gateway before an upgrade, or the service
 * manager (socket activation).
 *
 * What a gateway hands over is found again by its name: what it is for, and the address as the configuration
 * writes it, so that port 0 finds its socket as well. What the service manager passes (LISTEN_FDS) has no
 * name and is found by the address that it is bound to. The queue of connections that wait in a socket is
 * kept.
 *
 * Thread: [control].
 */
#ifndef CONTROL_INHERITED_H
#define CONTROL_INHERITED_H

#include "config/config.h"
#include "net/socket.h"

enum inherited_role { INHERITED_LISTENER = 0, INHERITED_ADMIN, INHERITED_CONTROL };

enum { INHERITED_NAME_MAX = 16 + sizeof((struct endpoint *)0)->text };

struct inherited_socket {
    struct inherited_socket *next;
    struct socket_address bound;
    char name[INHERITED_NAME_MAX]; /* inherited_name(); "" = unknown */
    int fd;
};

/* A list; zeros are an empty one. */
struct inherited {
    struct inherited_socket *first;
};

/* "listener 127.0.0.1:8080", with a NUL. */
void inherited_name(enum inherited_role role, const struct endpoint *e, char out[static INHERITED_NAME_MAX]);

/* Adds a socket. `name` may be "". The descriptor is the list's then; it is closed when this fails.
 * Errors: ERR_NOMEM, ERR_IO (not a listening socket). */
enum err inherited_add(struct inherited *in, const char *name, int fd);

/* Takes the descriptors that the service manager passed (LISTEN_FDS), if any. Errors: those of
 * inherited_add(). */
enum err inherited_from_service_manager(struct inherited *in);

/* Takes the next socket for this address out of the list, the oldest first; with `bound`, only one that is
 * bound there as well. -1 when there is none (any more). Owns: the caller closes it. */
int inherited_take(struct inherited *in, enum inherited_role role, const struct endpoint *e,
                   const struct socket_address *bound);

/* How an address stands to the listeners of another gateway on its port. */
enum inherited_neighbours {
    NEIGHBOURS_NONE = 0, /* none of theirs has an address in common with it */
    NEIGHBOURS_WITHIN,   /* it takes some of theirs in, as 0.0.0.0 does: they get what is theirs for as long
                            as they are open, it gets the rest */
    NEIGHBOURS_AROUND,   /* one of theirs has that address, or takes it in: it would take connections away
                            at once */
};

/* Looks at those that nobody has taken out of the list. */
enum inherited_neighbours inherited_neighbours(const struct inherited *in, const struct endpoint *e);

unsigned inherited_count(const struct inherited *in);

/* Closes what nobody has taken; each is logged when `is_worth_a_line`. */
void inherited_close(struct inherited *in, bool is_worth_a_line);

#endif
