/* tunnel_list.h - all open tunnels of a worker: what operators see of them, and how they are closed.
 *
 * Thread: [worker].
 */
#ifndef PROXY_TUNNEL_LIST_H
#define PROXY_TUNNEL_LIST_H

#include "base/outbuf.h"
#include "proxy/worker.h"

enum { TUNNEL_LIST_ENTRY_MAX = 512 }; /* bytes of one entry, its comma included */

/* Which tunnels are meant; an empty span means any. */
struct tunnel_filter {
    struct span partner_id;
    struct span request_id;
};

/* Writes one JSON object per tunnel, with commas between them, while there is room for one more. Returns how
 * many tunnels match, also those for which there was no room. */
uint64_t tunnel_list_write(struct worker *w, const struct tunnel_filter *f, struct outbuf *o);

/* Ends those that match with a close frame 1012. Returns how many. */
uint64_t tunnel_list_close(struct worker *w, const struct tunnel_filter *f);

/* The worker drains: each tunnel gets its moment to end, spread evenly over timeouts.drain_tunnels, and over
 * no more than three quarters of timeouts.shutdown when the worker ends, so that the last ones have time to
 * say goodbye. It serves again: those that are left stay. */
void tunnel_list_follow_mode(struct worker *w);

#endif
