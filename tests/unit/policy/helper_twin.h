/* helper_twin.h - the naive twin of cidr_set and cidr_tree: sorted merged ranges, searched in two halves.
 *
 * It shares no code with what is tested but cidr_last().
 */
#ifndef HELPER_TWIN_H
#define HELPER_TWIN_H

#include "helper_prefixes.h"

struct twin_range {
    struct addr first, last;
};

struct twin {
    struct twin_range *v;
    uint32_t n;
};

void twin_init(struct twin *t, const struct cidr *v, uint32_t n);
void twin_free(struct twin *t);
bool twin_has(const struct twin *t, const struct addr *a);

/* Compares `has(object, a)` with the twin at the first and last address of every prefix of `p`, one before,
 * one after, and at random addresses inside and anywhere. Fails the test at the first difference. */
void twin_compare(const struct twin *t, const struct prefixes *p, struct prefixes_random *r,
                  bool (*has)(const void *object, const struct addr *a), const void *object);

#endif
