/* access_log.h - one JSON line per request, two per tunnel; docs/LOGS.md explains the fields.
 *
 * Lines are written in place into the worker's log ring. No token, no query, no cookie, no header value ever
 * gets here: the path is the only text that a client chooses.
 *
 * Thread: [worker].
 */
#ifndef PROXY_ACCESS_LOG_H
#define PROXY_ACCESS_LOG_H

#include "proxy/end.h"

struct exchange;
struct tunnel;
struct worker;

/* An exchange is over; a 101 is the opening line of a tunnel. */
void access_log_exchange(struct worker *w, const struct exchange *x, enum end_who who, enum end_phase phase);

/* A tunnel is over. */
void access_log_tunnel_closed(struct worker *w, const struct tunnel *t, enum tunnel_end why);

#endif
