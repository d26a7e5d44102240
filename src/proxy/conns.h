/* conns.h - all client connections of a worker at once: other settings, a drain, the end.
 *
 * Thread: [worker].
 */
#ifndef PROXY_CONNS_H
#define PROXY_CONNS_H

struct worker;

/* The worker has gone over to other settings: idle connections follow at once, with a new deadline. */
void conns_adopt(struct worker *w);

/* The worker begins to drain, ends, or serves again. Draining: every answer that begins from now on says
 * `Connection: close`; an idle connection waits timeouts.drain_keep_alive for a request that may be on its
 * way, then gets a FIN; tunnels leave one after the other. Those that wait for a PROXY header have its
 * deadline anyway. */
void conns_follow_mode(struct worker *w);

/* Closes all at once, also those that wait for a PROXY header. */
void conns_cut(struct worker *w);

#endif
