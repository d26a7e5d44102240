/* cidr_tree and cidr_set against a list of prefixes and signs that is added up for every question.
 *
 * The input is read as steps of six bytes: what to do, the length, and four bytes of address. Addresses are
 * kept to a few slots and chunks, so that prefixes meet. */
#include "policy/cidr_set.h"
#include "policy/cidr_tree.h"

#include <stdlib.h>

enum { STEP_BYTES = 6, STEPS_MAX = 48, LOAD_STEPS = 32 };
enum { V4_LEN_MIN = 12 }; /* shorter ones touch thousands of slots: too slow here, and in the unit tests */

struct step {
    struct cidr c;
    int by;
};

struct list {
    struct step v[STEPS_MAX];
    size_t n;
};

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static void check(bool is_true)
{
    if (!is_true) abort();
}

/* IPv6 prefixes of these lengths are counted one by one, all others address by address. */
static bool is_alone(const struct cidr *c)
{
    return c->net.family == ADDR_V6 && (c->len == 48 || c->len == 56 || c->len == 64 || c->len == 128);
}

static int count_at(const struct list *l, const struct addr *a)
{
    int count = 0;
    for (size_t i = 0; i < l->n; i++)
        if (cidr_contains(&l->v[i].c, a)) count += l->v[i].by;
    return count;
}

/* Without those that are counted alone. */
static int count_others_at(const struct list *l, const struct addr *a)
{
    int count = 0;
    for (size_t i = 0; i < l->n; i++)
        if (!is_alone(&l->v[i].c) && cidr_contains(&l->v[i].c, a)) count += l->v[i].by;
    return count;
}

static int count_of(const struct list *l, const struct cidr *c)
{
    int count = 0;
    for (size_t i = 0; i < l->n; i++)
        if (cidr_compare(&l->v[i].c, c) == 0) count += l->v[i].by;
    return count;
}

static struct addr beside(struct addr a, int by)
{
    if (a.family == ADDR_V4) {
        a.v4 += (uint32_t)by;
    } else {
        const uint64_t lo = a.v6.lo + (uint64_t)by;
        a.v6.hi += by > 0 ? lo == 0 : 0 - (uint64_t)(lo == UINT64_MAX);
        a.v6.lo = lo;
    }
    return a;
}

/* May `c` be removed? The count changes only where prefixes begin or have ended: is it above 0 everywhere in
 * it? */
static bool may_remove(const struct list *l, const struct cidr *c)
{
    if (is_alone(c)) return count_of(l, c) > 0;
    if (count_others_at(l, &c->net) <= 0) return false;
    for (size_t i = 0; i < l->n; i++) {
        const struct addr last = cidr_last(&l->v[i].c);
        const struct addr after = beside(last, 1);
        if (cidr_contains(c, &l->v[i].c.net) && count_others_at(l, &l->v[i].c.net) <= 0) return false;
        if (cidr_contains(c, &after) && count_others_at(l, &after) <= 0) return false;
    }
    return true;
}

static void compare_all(const struct list *l, const struct cidr_tree *t)
{
    for (size_t i = 0; i < l->n; i++) {
        const struct addr first = l->v[i].c.net, last = cidr_last(&l->v[i].c);
        const struct addr probes[] = {first, last, beside(first, -1), beside(last, 1)};
        for (size_t k = 0; k < 4; k++)
            check(cidr_tree_has(t, &probes[k]) == (count_at(l, &probes[k]) > 0));
    }
}

/* The same prefixes in one set. */
static void compare_set(const struct list *l)
{
    struct cidr v[STEPS_MAX];
    _Alignas(CIDR_SET_ALIGNMENT) unsigned char room[CIDR_SET_SMALL_BYTES_MAX];
    struct cidr_set *s;
    for (size_t i = 0; i < l->n; i++)
        v[i] = l->v[i].c;
    check(cidr_set_build(v, (uint32_t)l->n, room, &s) == ERR_OK);
    for (size_t i = 0; i < l->n; i++) {
        const struct addr last = cidr_last(&v[i]);
        const struct addr probes[] = {v[i].net, last, beside(v[i].net, -1), beside(last, 1)};
        for (size_t k = 0; k < 4; k++)
            check(cidr_set_has(s, &probes[k]) == (count_at(l, &probes[k]) > 0));
    }
    cidr_set_destroy(s);
}

/* Cuts an address down to a prefix. */
static struct cidr cut(struct addr a, unsigned len)
{
    struct cidr c = {.net = {.family = a.family}, .len = (uint8_t)len};
    const struct addr host = cidr_last(&c); /* of the prefix of zeros: just the host bits */
    c.net = a;
    if (a.family == ADDR_V4) {
        c.net.v4 &= ~host.v4;
    } else {
        c.net.v6.hi &= ~host.v6.hi;
        c.net.v6.lo &= ~host.v6.lo;
    }
    return c;
}

static struct step read_step(const uint8_t *p)
{
    const uint32_t bits = (uint32_t)p[2] << 24 | (uint32_t)p[3] << 16 | (uint32_t)p[4] << 8 | p[5];
    struct step s = {.by = p[0] & 1 ? -1 : 1};
    if (p[0] & 2) {
        const uint32_t slots = bits >> 30 == 0   ? 0
                               : bits >> 30 == 1 ? UINT32_C(0xffff0000)
                                                 : UINT32_C(0x0a000000);
        s.c = cut((struct addr){.family = ADDR_V4, .v4 = slots | (bits & 0x1ffff)},
                  V4_LEN_MIN + p[1] % (33 - V4_LEN_MIN));
    } else {
        struct addr a = {.family = ADDR_V6};
        a.v6.hi = p[0] & 4 ? UINT64_MAX - (bits >> 24) : bits >> 24;
        a.v6.lo = p[0] & 8 ? UINT64_MAX - (bits & 0xffffff) : bits & 0xffffff;
        s.c = cut(a, p[1] % 129);
    }
    return s;
}

struct feed {
    const struct cidr *v;
    size_t n;
};

static bool next_step(void *arg, struct cidr *out)
{
    struct feed *feed = arg;
    if (feed->n == 0) return false;
    *out = *feed->v++;
    feed->n--;
    return true;
}

/* The first steps at once, when bit 4 of the first byte says so: those that add. */
static size_t load(struct list *l, struct cidr_tree *t, const uint8_t *bytes, size_t n)
{
    struct cidr v[LOAD_STEPS];
    size_t nsteps = 0;
    if (n == 0 || !(bytes[0] & 16)) return 0;
    while (nsteps < LOAD_STEPS && (nsteps + 1) * STEP_BYTES <= n) {
        struct step s = read_step(bytes + nsteps * STEP_BYTES);
        s.by = 1;
        v[nsteps] = s.c;
        l->v[l->n++] = s;
        nsteps++;
    }
    check(cidr_tree_build(t, next_step, &(struct feed){v, nsteps}) == ERR_OK);
    compare_all(l, t);
    compare_set(l);
    return nsteps * STEP_BYTES;
}

/* Takes everything back, last first: then nothing may be left. */
static void undo(struct list *l, struct cidr_tree *t)
{
    for (size_t i = l->n; i-- > 0;) {
        const struct step *s = &l->v[i];
        check((s->by > 0 ? cidr_tree_remove(t, &s->c) : cidr_tree_add(t, &s->c)) == ERR_OK);
        l->v[i].by = 0;
    }
    compare_all(l, t);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static struct epochs *epochs;
    static struct cidr_tree *t; /* empty between runs; creating one takes longer than a run */
    if (!t) {
        epochs = epochs_create();
        t = epochs ? cidr_tree_create(epochs) : NULL;
        check(t != NULL);
    }
    struct list l = {.n = 0};
    for (size_t at = load(&l, t, bytes, n); at + STEP_BYTES <= n && l.n < STEPS_MAX; at += STEP_BYTES) {
        const struct step s = read_step(bytes + at);
        if (s.by > 0) {
            check(cidr_tree_add(t, &s.c) == ERR_OK);
            l.v[l.n++] = s;
        } else {
            const bool is_there = may_remove(&l, &s.c);
            check(cidr_tree_remove(t, &s.c) == (is_there ? ERR_OK : ERR_NOT_FOUND));
            if (is_there) l.v[l.n++] = s;
        }
    }
    compare_all(&l, t);
    undo(&l, t);
    (void)epochs_collect(epochs);
    return 0;
}
