/* micro_cidr.c - what an address look-up, a change and a byte of the allowlists cost.
 *
 *   micro-cidr [--data DIR] [--quick]
 *
 * Prefixes are generated; --data DIR measures the files full-table.txt.gz and cloud-ranges.txt.gz of that
 * folder as well. --quick leaves the sets of a million out. One line per set:
 *
 *   hit   a random address inside a random prefix        miss  one of the last 8 network bits flipped, not in
 *   dep   each address depends on the previous answer    update  one remove or add, published
 *   cold  one hit after 3 MB of other memory were read: nothing of the set is in the first two caches; median
 *
 * `trie` is the textbook's structure for the same prefixes as the `tree` before it.
 *
 * Times are thread CPU time, the fastest of several rounds over 65,536 addresses: what the code costs, not
 * what the neighbours on the machine do to it. Only cold ones are on the wall's clock, which costs less than
 * a look-up; what it costs is taken off.
 */
#include "helper_prefixes.h"
#include "patricia.h"
#include "policy/cidr_set.h"
#include "policy/cidr_tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
    KEYS = 1 << 16,
    ROUNDS = 15,
    UPDATES = 20000,
    PARSE_TEXTS = 4096,
    COLD_KEYS = 1001,
    COLD_BYTES = 3 << 20,
    LINE_BYTES = 64,
};

typedef bool (*has_fn)(const void *object, const struct addr *a);

static bool set_has(const void *s, const struct addr *a)
{
    return cidr_set_has(s, a);
}

static bool tree_has(const void *t, const struct addr *a)
{
    return cidr_tree_has(t, a);
}

static bool trie_has(const void *t, const struct addr *a)
{
    return patricia_has(t, a);
}

static double clock_ns_of(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static double now_ns(void)
{
    return clock_ns_of(CLOCK_THREAD_CPUTIME_ID);
}

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void *need(void *p)
{
    if (p) return p;
    fputs("micro-cidr: out of memory\n", stderr);
    exit(1);
}

static void need_ok(enum err e)
{
    if (!e) return;
    fprintf(stderr, "micro-cidr: %s\n", err_text(e));
    exit(1);
}

static volatile uint32_t zero;  /* what the compiler cannot know to be 0 */
static volatile uint32_t found; /* keeps the results alive */

static uint32_t look_up_all(has_fn has, const void *object, const struct addr *keys)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < KEYS; i++)
        sum += has(object, &keys[i]);
    return sum;
}

/* Which address comes next is not known before the answer is. (It is always the next.) */
static uint32_t look_up_chained(has_fn has, const void *object, const struct addr *keys)
{
    const uint32_t mask = zero;
    uint32_t sum = 0;
    for (uint32_t i = 0, last = 0; i < KEYS; i++) {
        last = has(object, &keys[i ^ (last & mask)]);
        sum += last;
    }
    return sum;
}

/* ns per look-up. */
static double measure(has_fn has, const void *object, const struct addr *keys, bool is_chained)
{
    double best = 1e30;
    for (unsigned round = 0; round < ROUNDS; round++) {
        const double start = now_ns();
        found += is_chained ? look_up_chained(has, object, keys) : look_up_all(has, object, keys);
        const double ns = (now_ns() - start) / KEYS;
        if (ns < best) best = ns;
    }
    return best;
}

/* ns of one look-up that finds its memory in neither the first nor the second cache: median. */
static double measure_cold(has_fn has, const void *object, const struct addr *keys)
{
    static unsigned char other[COLD_BYTES];
    static double ns[COLD_KEYS], clock_ns[COLD_KEYS];
    for (uint32_t i = 0; i < COLD_KEYS; i++) {
        for (size_t at = 0; at < sizeof other; at += LINE_BYTES)
            found += other[at]++;
        const struct addr key = keys[i];
        const double before = clock_ns_of(CLOCK_MONOTONIC);
        const double start = clock_ns_of(CLOCK_MONOTONIC);
        found += has(object, &key);
        ns[i] = clock_ns_of(CLOCK_MONOTONIC) - start;
        clock_ns[i] = start - before;
    }
    qsort(ns, COLD_KEYS, sizeof *ns, compare_doubles);
    qsort(clock_ns, COLD_KEYS, sizeof *clock_ns, compare_doubles);
    return ns[COLD_KEYS / 2] - clock_ns[COLD_KEYS / 2];
}

static void flip_network_bit(struct addr *a, unsigned len, struct prefixes_random *r)
{
    const unsigned bit = len - 1 - prefixes_below(r, len < 8 ? len : 8); /* from the left */
    if (a->family == ADDR_V4)
        a->v4 ^= UINT32_C(0x80000000) >> bit;
    else if (bit < 64)
        a->v6.hi ^= UINT64_C(1) << 63 >> bit;
    else
        a->v6.lo ^= UINT64_C(1) << 63 >> (bit - 64);
}

static void draw_keys(const struct prefixes *p, has_fn has, const void *object, struct addr *hits,
                      struct addr *misses)
{
    struct prefixes_random r = {12345};
    uint32_t tries = 0;
    for (uint32_t i = 0; i < KEYS; i++) {
        hits[i] = prefixes_inside(&r, &p->v[prefixes_below(&r, p->n)]);
        need_ok(has(object, &hits[i]) ? ERR_OK : ERR_NOT_FOUND);
    }
    for (uint32_t i = 0; i < KEYS && tries < 64 * KEYS; tries++) {
        const struct cidr *c = &p->v[prefixes_below(&r, p->n)];
        misses[i] = prefixes_inside(&r, c);
        flip_network_bit(&misses[i], c->len, &r);
        i += !has(object, &misses[i]);
    }
}

static void print_lookups(const char *kind, const char *name, const struct prefixes *p, has_fn has,
                          const void *object)
{
    struct addr *keys = need(malloc(2 * KEYS * sizeof *keys));
    draw_keys(p, has, object, keys, keys + KEYS);
    printf("%-5s %-14s %8u  hit %6.1f  miss %6.1f  dep %6.1f  cold %6.1f ns", kind, name, p->n,
           measure(has, object, keys, false), measure(has, object, keys + KEYS, false),
           measure(has, object, keys, true), measure_cold(has, object, keys));
    free(keys);
}

static void measure_set(const char *name, const struct prefixes *p)
{
    static _Alignas(CIDR_SET_ALIGNMENT) unsigned char room[CIDR_SET_SMALL_BYTES_MAX];
    struct cidr_set *s = NULL;
    double best = 1e30;
    for (unsigned round = 0; round < 5; round++) {
        cidr_set_destroy(s);
        const double start = now_ns();
        need_ok(cidr_set_build(p->v, p->n, room, &s));
        const double ns = now_ns() - start;
        if (ns < best) best = ns;
    }
    print_lookups("set", name, p, set_has, s);
    printf("  build %9.1f us  %7.2f B/prefix\n", best / 1e3, (double)cidr_set_bytes(s) / p->n);
    cidr_set_destroy(s);
}

/* Removes and adds random prefixes, each timed alone; the clock's own cost is taken off. */
static void print_updates(struct cidr_tree *t, struct epochs *epochs, const struct prefixes *p)
{
    struct prefixes_random r = {54321};
    double *ns = need(malloc(2 * UPDATES * sizeof *ns));
    double clock_ns = 1e30;
    for (unsigned i = 0; i < 1000; i++) {
        const double start = now_ns();
        const double cost = now_ns() - start;
        if (cost < clock_ns) clock_ns = cost;
    }
    for (uint32_t i = 0; i < UPDATES; i++) {
        const struct cidr *c = &p->v[prefixes_below(&r, p->n)];
        const double start = now_ns();
        need_ok(cidr_tree_remove(t, c));
        const double middle = now_ns();
        need_ok(cidr_tree_add(t, c));
        ns[2 * i] = middle - start - clock_ns;
        ns[2 * i + 1] = now_ns() - middle - clock_ns;
        if (i % 16 == 0) (void)epochs_collect(epochs);
    }
    qsort(ns, 2 * UPDATES, sizeof *ns, compare_doubles);
    printf("  update p50 %5.2f p99 %5.2f max %6.1f us", ns[UPDATES] / 1e3, ns[2 * UPDATES / 100 * 99] / 1e3,
           ns[2 * UPDATES - 1] / 1e3);
    free(ns);
}

static void measure_tree(const char *name, const struct prefixes *p)
{
    struct epochs *epochs = need(epochs_create());
    struct cidr_tree *t = NULL;
    double best = 1e30;
    for (unsigned round = 0; round < 3; round++) {
        cidr_tree_destroy(t);
        t = need(cidr_tree_create(epochs));
        const double start = now_ns();
        need_ok(cidr_tree_build(t, prefixes_next_of, &(struct prefixes_feed){p->v, p->n}));
        const double ns = now_ns() - start;
        if (ns < best) best = ns;
    }
    size_t reader, writer;
    cidr_tree_bytes(t, &reader, &writer);
    print_lookups("tree", name, p, tree_has, t);
    printf("  build %7.1f ms  %5.1f + %5.1f B/prefix", best / 1e6, (double)reader / p->n,
           (double)writer / p->n);
    print_updates(t, epochs, p);
    putchar('\n');
    cidr_tree_destroy(t);
    epochs_destroy(epochs);
}

static void measure_trie(const char *name, const struct prefixes *p)
{
    struct patricia *t = need(patricia_create());
    const double start = now_ns();
    for (uint32_t i = 0; i < p->n; i++)
        need_ok(patricia_add(t, &p->v[i]) ? ERR_OK : ERR_NOMEM);
    const double ns = now_ns() - start;
    print_lookups("trie", name, p, trie_has, t);
    printf("  build %7.1f ms  %5.1f B/prefix\n", ns / 1e6, (double)patricia_bytes(t) / p->n);
    patricia_destroy(t);
}

static void measure_parse(const char *name, const struct prefixes *p)
{
    static char text[PARSE_TEXTS][CIDR_TEXT_MAX];
    size_t n[PARSE_TEXTS];
    for (uint32_t i = 0; i < PARSE_TEXTS; i++)
        n[i] = cidr_format(&p->v[i % p->n], text[i]);
    double best = 1e30;
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct cidr c;
        struct errmsg why;
        const double start = now_ns();
        for (uint32_t i = 0; i < PARSE_TEXTS; i++)
            found += (uint32_t)cidr_parse(span_of(text[i], n[i]), &cidr_rules_default, &c, &why);
        const double ns = (now_ns() - start) / PARSE_TEXTS;
        if (ns < best) best = ns;
    }
    printf("parse %-14s %6.1f ns\n", name, best);
}

static void measure_family(uint8_t family, bool is_quick)
{
    static const uint32_t set_sizes[] = {1, 2, 8, 100, 10000};
    static const uint32_t tree_sizes[] = {100, 10000, 1000000};
    struct prefixes_random r = {family};
    struct prefixes p = {0};
    char name[32];
    const int version = family;
    for (size_t i = 0; i < sizeof set_sizes / sizeof *set_sizes; i++) {
        p.n = 0;
        if (i == 4)
            prefixes_cloud(&p, &r, family, set_sizes[i]);
        else
            prefixes_partner(&p, &r, family, set_sizes[i]);
        snprintf(name, sizeof name, "v%d %s", version, i == 4 ? "cloud" : "partner");
        measure_set(name, &p);
    }
    for (size_t i = 0; i < sizeof tree_sizes / sizeof *tree_sizes - is_quick; i++) {
        p.n = 0;
        prefixes_partner(&p, &r, family, tree_sizes[i]);
        snprintf(name, sizeof name, "v%d partner", version);
        measure_tree(name, &p);
        measure_trie(name, &p);
    }
    measure_parse(family == ADDR_V4 ? "v4" : "v6", &p);
    prefixes_free(&p);
}

static void measure_file(const char *dir, const char *file, const char *name)
{
    struct prefixes all = {0};
    prefixes_real(&all, dir, file);
    for (uint8_t family = ADDR_V4; family <= ADDR_V6; family += ADDR_V6 - ADDR_V4) {
        struct prefixes p = {0}, some = {0};
        struct prefixes_random r = {family};
        char label[32];
        for (uint32_t i = 0; i < all.n; i++)
            if (all.v[i].net.family == family) prefixes_push(&p, all.v[i]);
        for (uint32_t i = 0; i < 10000; i++)
            prefixes_push(&some, p.v[prefixes_below(&r, p.n)]);
        snprintf(label, sizeof label, "v%d %s", family, name);
        measure_set(label, &some);
        measure_tree(label, &p);
        measure_trie(label, &p);
        prefixes_free(&some);
        prefixes_free(&p);
    }
    prefixes_free(&all);
}

int main(int argc, char **argv)
{
    const char *dir = NULL;
    bool is_quick = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--quick") == 0) {
            is_quick = true;
        } else if (strcmp(argv[i], "--data") == 0 && i + 1 < argc) {
            dir = argv[++i];
        } else {
            fputs("usage: micro-cidr [--data DIR] [--quick]\n", stderr);
            return 2;
        }
    }
    measure_family(ADDR_V4, is_quick);
    measure_family(ADDR_V6, is_quick);
    if (dir) {
        measure_file(dir, "cloud-ranges.txt.gz", "cloud file");
        measure_file(dir, "full-table.txt.gz", "routes file");
    }
    return 0;
}
