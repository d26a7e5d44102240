#include "helper_twin.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static int compare(const struct addr *a, const struct addr *b)
{
    if (a->family != b->family) return a->family < b->family ? -1 : 1;
    if (a->family == ADDR_V4) return a->v4 < b->v4 ? -1 : a->v4 > b->v4;
    if (a->v6.hi != b->v6.hi) return a->v6.hi < b->v6.hi ? -1 : 1;
    return a->v6.lo < b->v6.lo ? -1 : a->v6.lo > b->v6.lo;
}

static int compare_ranges(const void *a, const void *b)
{
    return compare(&((const struct twin_range *)a)->first, &((const struct twin_range *)b)->first);
}

void twin_init(struct twin *t, const struct cidr *v, uint32_t n)
{
    t->v = malloc((n + 1) * sizeof *t->v);
    assert_non_null(t->v);
    for (uint32_t i = 0; i < n; i++)
        t->v[i] = (struct twin_range){v[i].net, cidr_last(&v[i])};
    qsort(t->v, n, sizeof *t->v, compare_ranges);
    t->n = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct twin_range *top = t->n ? &t->v[t->n - 1] : NULL;
        if (!top || compare(&t->v[i].first, &top->last) > 0)
            t->v[t->n++] = t->v[i];
        else if (compare(&t->v[i].last, &top->last) > 0)
            top->last = t->v[i].last;
    }
}

void twin_free(struct twin *t)
{
    free(t->v);
    *t = (struct twin){0};
}

bool twin_has(const struct twin *t, const struct addr *a)
{
    uint32_t from = 0, to = t->n;
    while (from < to) {
        const uint32_t middle = from + (to - from) / 2;
        if (compare(&t->v[middle].last, a) < 0)
            from = middle + 1;
        else
            to = middle;
    }
    return from < t->n && compare(&t->v[from].first, a) <= 0;
}

/* Wraps at the ends of the address space, which makes two more addresses to ask for. */
static struct addr beside(struct addr a, bool after)
{
    if (a.family == ADDR_V4) {
        a.v4 = after ? a.v4 + 1 : a.v4 - 1;
    } else if (after) {
        a.v6.hi += ++a.v6.lo == 0;
    } else {
        a.v6.hi -= a.v6.lo-- == 0;
    }
    return a;
}

void twin_compare(const struct twin *t, const struct prefixes *p, struct prefixes_random *r,
                  bool (*has)(const void *object, const struct addr *a), const void *object)
{
    static const struct cidr everything[] = {{.net = {.family = ADDR_V4}}, {.net = {.family = ADDR_V6}}};
    for (uint32_t i = 0; i < p->n; i++) {
        const struct cidr *c = &p->v[i];
        const struct addr first = c->net, last = cidr_last(c);
        const struct addr probes[] = {
            first,
            last,
            beside(first, false),
            beside(last, true),
            prefixes_inside(r, c),
            prefixes_inside(r, &everything[i % 2]),
        };
        for (size_t k = 0; k < sizeof probes / sizeof *probes; k++) {
            const bool expected = twin_has(t, &probes[k]);
            if (has(object, &probes[k]) == expected) continue;
            char text[ADDR_TEXT_MAX], prefix[CIDR_TEXT_MAX];
            addr_format(&probes[k], text);
            cidr_format(c, prefix);
            fail_msg("%s is %s, but was not found so (probe %zu of %s)", text, expected ? "in" : "out", k,
                     prefix);
        }
    }
}
