/* suggest.h - "did you mean": the nearest of some known words. Thread: [any, pure]. */
#ifndef CONFIG_SUGGEST_H
#define CONFIG_SUGGEST_H

#include "base/span.h"

/* Collects candidates one by one. Start with {.word = the unknown word}. */
struct suggestion {
    struct span word;
    const char *best; /* NULL while nothing is near enough */
    unsigned distance;
};

/* Offers a known word. It is kept when it is nearer than those offered before, and near enough to be meant:
 * at most one mistake (a missing, additional, wrong or swapped letter) in three letters. Case, and '-' for
 * '_', is no mistake. */
void suggestion_offer(struct suggestion *s, const char *candidate);

#endif
