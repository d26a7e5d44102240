/* worker_update.h - a worker goes over to another generation.
 *
 *   control: create, for every worker, all that it needs --> publish --message--> worker: applies it
 *            <--------------------------------------------- on_applied -----------'
 *
 * All memory is allocated and all sockets are open before the first worker hears of it, so that applying
 * cannot fail half way: either every worker goes over or none.
 *
 * On the worker: the new settings are those of every request that begins from now on; requests that have
 * begun finish with theirs; idle connections change at once; listeners are kept, opened and closed; pools
 * get their limits and addresses. No connection is closed but idle ones to a backend that has moved.
 *
 * Thread: [control]; on_applied [worker].
 */
#ifndef PROXY_WORKER_UPDATE_H
#define PROXY_WORKER_UPDATE_H

#include "net/resolver.h"
#include "proxy/worker.h"

struct worker_update {
    struct loop_message message;
    struct worker *worker;
    struct worker_settings *settings; /* one reference, until it is applied */
    /* By index in the new configuration: a listener to open, or the present one (its index) that goes on. */
    struct worker_listener *opened[CONFIG_LISTENERS_MAX]; /* NULL while its socket is not here yet */
    int kept[CONFIG_LISTENERS_MAX];
    struct address_list addresses[ENV_COUNT]; /* n == 0: as they are */
    uint32_t nfailed;                         /* applied: listeners that the loop has refused */
    void (*on_applied)(struct worker_update *u);
    void *arg; /* the maker's */
};

/* `kept[i]`: the index in the present configuration of the listener that goes on as listener i of the new
 * one, or -1; then worker_update_listen() brings its socket. Errors: NULL when memory is out. */
struct worker_update *worker_update_create(struct worker *w, struct generation *g, const int *kept);

/* A socket for listener i of the new configuration; there may be several. Takes it over, also when it fails.
 * Errors: ERR_NOMEM. */
enum err worker_update_listen(struct worker_update *u, uint32_t i, int fd);

/* Frees an update; what was not applied is closed. Harmless with NULL. */
void worker_update_destroy(struct worker_update *u);

/* Hands it to the worker, which calls on_applied when it goes by it; from then on the update is the caller's
 * again. A worker that has not been started applies it here and now. The worker must not be ending. */
void worker_update_publish(struct worker_update *u);

#endif
