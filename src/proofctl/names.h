/* names.h - a list of names, by the million: the ids of the partners, the keys of the gateways.
 *
 * Thread: [any, pure].
 */
#ifndef PROOFCTL_NAMES_H
#define PROOFCTL_NAMES_H

#include "store/bytes.h"

/* Starts zeroed. */
struct names {
    struct bytes text; /* the names, each with its NUL */
    const char **list; /* owned; after names_sort() */
    size_t n;
};

/* A name with a NUL in it is left out: no id and no key of ours has one. Errors: ERR_NOMEM. */
enum err names_add(struct names *n, struct span name);

/* Fills `list`, in order, each name once; nothing is added after that. Errors: ERR_NOMEM. */
enum err names_sort(struct names *n);

/* Frees the names; the list is empty then. */
void names_deinit(struct names *n);

#endif
