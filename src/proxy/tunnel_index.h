/* tunnel_index.h - the open tunnels of a worker by partner, so that a change of one partner costs what that
 * partner has open and not what everybody has.
 *
 *   bucket[hash(partner index)] -> tunnel <-> tunnel <-> ...      intrusive lists, no memory of their own
 *
 * Thread: [worker].
 */
#ifndef PROXY_TUNNEL_INDEX_H
#define PROXY_TUNNEL_INDEX_H

#include "base/list.h"

#include <stdint.h>

enum { TUNNEL_BUCKET_BITS = 12, TUNNEL_BUCKETS = 1 << TUNNEL_BUCKET_BITS };

struct tunnel_index {
    struct list_link buckets[TUNNEL_BUCKETS]; /* heads */
};

/* Empty. */
void tunnel_index_init(struct tunnel_index *i);

/* The link, which is in no list, must stay where it is until list_remove(). */
void tunnel_index_add(struct tunnel_index *i, struct list_link *link, uint32_t partner);

/* Calls `fn` for the tunnels of `partner` and of those who share its bucket (the callee looks), or of
 * everybody with PARTNER_INDEX_NONE. `fn` may remove the link it is given, and add it again, but no other. */
void tunnel_index_each(struct tunnel_index *i, uint32_t partner, void (*fn)(struct list_link *link));

#endif
