/* verdict_cache.h - the last verdict that let a request of a connection in: the next one that asks the same
 * thing is not looked up.
 *
 * Keyed by the exact Authorization bytes, the address, the environment and the policy generation. Apart from
 * the connection, because it is a fifth of it, and tunnels have none. It has no token digest.
 *
 * Thread: [worker].
 */
#ifndef PROXY_VERDICT_CACHE_H
#define PROXY_VERDICT_CACHE_H

#include "policy/decide.h"

struct verdict_cache;

/* True, with partner and slot in `out`, when `v` answers `q` at this generation of the policy. `v` may be
 * NULL. */
bool verdict_cache_find(const struct verdict_cache *v, const struct decide_query *q, uint64_t generation,
                        struct decision *out);

/* Forgets what was kept in `*v`, and keeps `d` if it lets in; not where memory is out. */
void verdict_cache_keep(struct verdict_cache **v, const struct decide_query *q, const struct decision *d);

/* Wipes and frees; `*v` is NULL afterwards, and may be before. */
void verdict_cache_drop(struct verdict_cache **v);

#endif
