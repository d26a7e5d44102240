/* tunnel_list.h - what operators see of a worker's open tunnels, and how they close them.
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

/* Appends one JSON object per tunnel, each followed by a comma, while there is room for one more. Returns how
 * many tunnels match, also those for which there was no room. */
uint64_t tunnel_list_write(struct worker *w, const struct tunnel_filter *f, struct outbuf *o);

/* Ends those that match with a close frame 1012. Returns how many. */
uint64_t tunnel_list_close(struct worker *w, const struct tunnel_filter *f);

#endif
