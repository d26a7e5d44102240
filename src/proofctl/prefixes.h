/* prefixes.h - what the commands ask of a list of prefixes beyond what the validator does.
 * Thread: [any]. */
#ifndef PROOFCTL_PREFIXES_H
#define PROOFCTL_PREFIXES_H

#include "proofctl/session.h"

/* Refuses a prefix that is on the list twice. The first `nold` entries were there before and are not judged.
 */
enum ctl_exit prefixes_check_new(struct session *s, const struct partner *p, enum environment env,
                                 uint32_t nold);

/* The place of a prefix on a list, or `n` when it is not there. */
uint32_t prefixes_find(const struct cidr *list, uint32_t n, const struct cidr *wanted);

/* A prefix of the list in which all of `c` lies, or NULL. */
const struct cidr *prefixes_find_covering(const struct cidr *list, uint32_t n, const struct cidr *c);

#endif
