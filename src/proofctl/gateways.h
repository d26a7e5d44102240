/* gateways.h - what the gateways report of themselves in Redis, and waiting until they have a change.
 *
 * Each gateway that is alive keeps a key with a short expiry (docs/DATA.md). A report is text that somebody
 * wrote: what it lacks counts as "has not got there".
 *
 * Thread: [any]; one session, one thread.
 */
#ifndef PROOFCTL_GATEWAYS_H
#define PROOFCTL_GATEWAYS_H

#include "proofctl/session.h"

/* Waits until every gateway that is alive follows this history and has applied change `sequence`, for as long
 * as --wait says. Otherwise says who has not, and returns CTL_PENDING. */
enum ctl_exit gateways_wait(struct session *s, uint64_t sequence);

/* The reports as a JSON array, with "lag" added, sorted by instance. NULL: it has said why; `*code` is set.
 */
json_t *gateways_list(struct session *s, enum ctl_exit *code);

#endif
