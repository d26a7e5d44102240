#include "config/suggest.h"

enum {
    WORD_MAX = 40,  /* longer words are not compared */
    PREFIX_MIN = 4, /* letters that a common beginning needs to mean something */
};

static char folded(char c)
{
    return c == '-' ? '_' : ascii_lower(c);
}

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* Edit distance with swaps of neighbours (optimal string alignment), three rows of the matrix at a time. */
static unsigned distance_between(struct span a, struct span b)
{
    unsigned rows[3][WORD_MAX + 1];
    unsigned *before = rows[0], *above = rows[1], *row = rows[2];
    for (unsigned j = 0; j <= b.n; j++)
        above[j] = before[j] = j;
    for (unsigned i = 1; i <= a.n; i++) {
        row[0] = i;
        for (unsigned j = 1; j <= b.n; j++) {
            unsigned change = folded(a.p[i - 1]) != folded(b.p[j - 1]);
            unsigned best = least(least(above[j], row[j - 1]) + 1, above[j - 1] + change);
            bool is_swap = i > 1 && j > 1 && folded(a.p[i - 1]) == folded(b.p[j - 2]) &&
                           folded(a.p[i - 2]) == folded(b.p[j - 1]);
            row[j] = is_swap ? least(best, before[j - 2] + 1) : best;
        }
        unsigned *recycled = before;
        before = above;
        above = row;
        row = recycled;
    }
    return above[b.n];
}

void suggestion_offer(struct suggestion *s, const char *candidate)
{
    struct span known = span_str(candidate);
    if (s->word.n == 0 || s->word.n > WORD_MAX || known.n > WORD_MAX) return;
    unsigned distance = distance_between(s->word, known);
    bool is_shorter = known.n < s->word.n;
    struct span shorter = is_shorter ? known : s->word, longer = is_shorter ? s->word : known;
    bool is_beginning = shorter.n >= PREFIX_MIN && span_starts(longer, shorter);
    if (distance > (longer.n + 2) / 3 && !is_beginning) return;
    if (s->best && distance >= s->distance) return;
    s->best = candidate;
    s->distance = distance;
}
