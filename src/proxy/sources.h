/* sources.h - how many client connections each source address has open, at all workers of the process
 * together.
 *
 *   hash(address) --> chains[32768] --> source --> source       one for each address with a connection
 *                 --> shards[64]        {lock, how many sources}
 *
 * IPv6 is counted by /64, which is what one customer of a provider has at least. Everybody is counted,
 * whether there is a limit or not: one that is set meanwhile is to know who is there.
 *
 * There is no table that could be full: a source is made with the first connection of its address and freed
 * with the last, so there are never more of them than of connections, which have limits of their own. A new
 * address that finds no memory is told so; the others neither need any nor notice. The number of chains is
 * fixed, so nothing ever has to be moved: more addresses make them longer, three at 100,000 of them. The hash
 * is SipHash-1-3 with a secret key, because clients choose the addresses.
 *
 * A lock of a shard is held for the walk along a chain, and for one small allocation where the address is
 * new; inside it, nothing else is locked. Counts without locks would be easy, but not to free a source that
 * another worker may be about to count in.
 *
 * Thread: sources_create, sources_destroy [control]; the rest [any].
 */
#ifndef PROXY_SOURCES_H
#define PROXY_SOURCES_H

#include "base/addr.h"
#include "base/err.h"

struct sources;

/* NULL when memory or randomness is out. */
struct sources *sources_create(void);
/* Nobody may be counted any more. Harmless with NULL. */
void sources_destroy(struct sources *s);

/* Counts one more connection of an address. `max`: most there may be; 0 = no limit.
 * Errors: ERR_LIMIT, ERR_NOMEM; it is not counted then. */
enum err sources_add(struct sources *s, const struct addr *a, uint32_t max);

/* Counts one less; the address must have been added. */
void sources_remove(struct sources *s, const struct addr *a);

/* Connections counted now that an address, or its /64, has open. */
uint32_t sources_connections(struct sources *s, const struct addr *a);

/* Addresses that have connections open now. 0 with NULL. */
uint32_t sources_count(struct sources *s);

#endif
