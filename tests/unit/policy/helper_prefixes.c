#include "helper_prefixes.h"

#include <stdio.h>
#include <stdlib.h>

static _Noreturn void give_up(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    abort();
}

uint64_t prefixes_next(struct prefixes_random *r)
{
    uint64_t z = r->state += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

uint32_t prefixes_below(struct prefixes_random *r, uint32_t n)
{
    return (uint32_t)((prefixes_next(r) >> 32) * n >> 32);
}

/* --- lists -------------------------------------------------------------------------------------- */

void prefixes_free(struct prefixes *p)
{
    free(p->v);
    *p = (struct prefixes){0};
}

void prefixes_push(struct prefixes *p, struct cidr c)
{
    if (p->n == p->cap) {
        p->cap = p->cap ? 2 * p->cap : 64;
        p->v = realloc(p->v, p->cap * sizeof *p->v);
        if (!p->v) give_up("prefixes", "out of memory");
    }
    p->v[p->n++] = c;
}

static uint64_t mask64(unsigned len)
{
    return len == 0 ? 0 : len >= 64 ? UINT64_MAX : ~(UINT64_MAX >> len);
}

void prefixes_v4(struct prefixes *p, uint32_t net, unsigned len)
{
    const uint32_t mask = (uint32_t)(mask64(len) >> 32);
    prefixes_push(p, (struct cidr){.net = {.family = ADDR_V4, .v4 = net & mask}, .len = (uint8_t)len});
}

void prefixes_v6(struct prefixes *p, uint64_t hi, uint64_t lo, unsigned len)
{
    hi &= mask64(len);
    lo &= len <= 64 ? 0 : mask64(len - 64);
    prefixes_push(p, (struct cidr){.net = {.family = ADDR_V6, .v6 = {hi, lo}}, .len = (uint8_t)len});
}

void prefixes_text(struct prefixes *p, const char *text)
{
    static const struct cidr_rules any = {.v4_len_min = 1, .v6_len_min = 1, .allow_link_local = true};
    struct cidr c;
    struct errmsg why;
    if (cidr_parse(span_str(text), &any, &c, &why)) give_up(text, why.text);
    prefixes_push(p, c);
}

/* --- generators --------------------------------------------------------------------------------- */

struct weight {
    uint8_t len, weight;
};

static unsigned draw_length(struct prefixes_random *r, const struct weight *w)
{
    uint32_t sum = 0, i = 0;
    for (i = 0; w[i].weight; i++)
        sum += w[i].weight;
    uint32_t at = prefixes_below(r, sum);
    for (i = 0; at >= w[i].weight; i++)
        at -= w[i].weight;
    return w[i].len;
}

static void push_cut(struct prefixes *p, const struct addr *a, unsigned len)
{
    if (a->family == ADDR_V4)
        prefixes_v4(p, a->v4, len);
    else
        prefixes_v6(p, a->v6.hi, a->v6.lo, len);
}

/* Large blocks, as registries hand them out; everything routed lies in one of a few hundred. */
static struct addr draw_block(struct prefixes_random *r, uint8_t family)
{
    struct prefixes_random fixed = {prefixes_below(r, 400)};
    const uint64_t block = prefixes_next(&fixed);
    const uint64_t host = prefixes_next(r);
    struct addr a = {.family = family};
    if (family == ADDR_V4) {
        a.v4 = (1 + (uint32_t)(block % 222)) << 24 | ((uint32_t)host & 0xffffff);
    } else {
        static const uint64_t registries[] = {0x2001, 0x2400, 0x2600, 0x2800, 0x2a00, 0x2c00};
        a.v6.hi = registries[block % 6] << 48 | (block >> 32 & 0xff) << 40 | (host & UINT64_C(0xffffffffff));
        a.v6.lo = prefixes_next(r);
    }
    return a;
}

void prefixes_routed(struct prefixes *p, struct prefixes_random *r, uint8_t family, uint32_t n)
{
    static const struct weight v4[] = {{24, 60}, {23, 10}, {22, 11}, {21, 5}, {20, 4}, {19, 3},
                                       {18, 2},  {17, 1},  {16, 2},  {14, 1}, {12, 1}, {0, 0}};
    static const struct weight v6[] = {{48, 48}, {44, 8}, {40, 8}, {36, 6}, {32, 14},
                                       {29, 4},  {46, 6}, {47, 6}, {0, 0}};
    for (uint32_t i = 0; i < n; i++) {
        const struct addr a = draw_block(r, family);
        push_cut(p, &a, draw_length(r, family == ADDR_V4 ? v4 : v6));
    }
}

struct addr prefixes_inside(struct prefixes_random *r, const struct cidr *c)
{
    const struct addr last = cidr_last(c);
    struct addr a = c->net;
    if (a.family == ADDR_V4) {
        a.v4 |= (uint32_t)prefixes_next(r) & (last.v4 ^ a.v4);
    } else {
        a.v6.hi |= prefixes_next(r) & (last.v6.hi ^ a.v6.hi);
        a.v6.lo |= prefixes_next(r) & (last.v6.lo ^ a.v6.lo);
    }
    return a;
}

void prefixes_partner(struct prefixes *p, struct prefixes_random *r, uint8_t family, uint32_t n)
{
    static const struct weight v4[] = {{32, 55}, {29, 10}, {28, 8}, {24, 8}, {30, 5}, {27, 5},
                                       {26, 4},  {25, 2},  {23, 1}, {22, 1}, {20, 1}, {0, 0}};
    static const struct weight v6[] = {{128, 45}, {64, 30}, {48, 17}, {56, 8}, {0, 0}};
    struct prefixes base = {0};
    prefixes_routed(&base, r, family, n / 4 + 16);
    for (uint32_t i = 0; i < n; i++) {
        const struct cidr *from = &base.v[prefixes_below(r, base.n)];
        const unsigned len = draw_length(r, family == ADDR_V4 ? v4 : v6);
        const struct addr a = prefixes_inside(r, from);
        push_cut(p, &a, len > from->len ? len : from->len);
    }
    prefixes_free(&base);
}

void prefixes_cloud(struct prefixes *p, struct prefixes_random *r, uint8_t family, uint32_t n)
{
    static const struct weight v4[] = {{32, 30}, {31, 20}, {30, 10}, {28, 10},
                                       {24, 15}, {22, 5},  {16, 5},  {0, 0}};
    static const struct weight v6[] = {{56, 20}, {64, 20},  {48, 25}, {44, 10},
                                       {40, 10}, {124, 10}, {128, 5}, {0, 0}};
    const uint32_t end = p->n + n;
    while (p->n < end) {
        const struct addr a = draw_block(r, family);
        const unsigned len = draw_length(r, family == ADDR_V4 ? v4 : v6);
        push_cut(p, &a, len);
        for (uint32_t run = prefixes_below(r, 40); run && p->n < end; run--) {
            struct cidr c = p->v[p->n - 1];
            if (prefixes_below(r, 8) == 0) { /* published again by another service, or its parent is */
                prefixes_push(p, c);
                c.len = (uint8_t)(c.len - prefixes_below(r, 3));
            }
            const struct addr last = cidr_last(&c);
            if (family == ADDR_V4)
                prefixes_v4(p, last.v4 + 1, len);
            else
                prefixes_v6(p, last.v6.hi + (last.v6.lo == UINT64_MAX), last.v6.lo + 1, len);
        }
    }
}

void prefixes_hostile(struct prefixes *p)
{
    static const char *const ends[] = {
        "0.0.0.0",
        "255.255.255.255",
        "255.255.255.254/31",
        "127.255.255.255",
        "128.0.0.0",
        "9.255.255.255",
        "10.1.0.0/16",
        "10.1.255.255",
        "10.2.0.0",
        "::",
        "::1",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        "7fff:ffff::/32",
        "2001:db8:0:0:ffff:ffff:ffff:ffff",
        "2001:db8:0:1::",
        "2001:db8:0:1::/64",
        "fe80::1",
        "ffff:ffff:ffff:ffff::/64",
    };
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        prefixes_text(p, ends[i]);
    for (unsigned len = 1; len <= 32; len++) {
        prefixes_v4(p, UINT32_C(0x0a0b0c0d), len);
        prefixes_v4(p, UINT32_C(0xffffffff), len > 4 ? len : 5);
        prefixes_v4(p, UINT32_C(0x80000000) >> (len - 1), len);
    }
    for (unsigned len = 1; len <= 128; len++) {
        prefixes_v6(p, UINT64_C(0x20010db8abcdef01), UINT64_C(0x8123456789abcdef), len);
        prefixes_v6(p, UINT64_MAX, UINT64_MAX, len > 4 ? len : 5);
    }
    for (uint32_t i = 0; i < 3000; i++)
        prefixes_v4(p, UINT32_C(0xc0a80000) + 2 * i, 32);
    for (uint32_t i = 0; i < 600; i++)
        prefixes_v6(p, UINT64_C(0x20010db800000042), 2 * i, 128);
    for (uint32_t i = 0; i < 300; i++)
        prefixes_v6(p, UINT64_C(0x20010db800010000) + 3 * i, 0, 64);
    for (uint32_t i = 0; i < 256; i++)
        prefixes_v4(p, UINT32_C(0xac100000) + i, 32); /* a whole /24, host by host */
    for (uint32_t i = 0; i < 20; i++)
        prefixes_v4(p, UINT32_C(0xc6336400), 24);
    for (uint32_t i = 0; i < 20; i++)
        prefixes_v6(p, UINT64_C(0x20010db8ffff0000), 0, 48);
}

void prefixes_real(struct prefixes *p, const char *dir, const char *file)
{
    char command[512];
    char line[160];
    if (snprintf(command, sizeof command, "zcat '%s/%s'", dir, file) >= (int)sizeof command)
        give_up(dir, "name too long");
    FILE *f = popen(command, "r");
    while (f && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\r\n")] = '\0';
        const char *tab = strrchr(line, '\t');
        prefixes_text(p, tab ? tab + 1 : line);
    }
    if (!f || pclose(f) != 0) give_up(file, "cannot be read");
}

bool prefixes_next_of(void *arg, struct cidr *out)
{
    struct prefixes_feed *feed = arg;
    if (feed->n == 0) return false;
    *out = *feed->v++;
    feed->n--;
    return true;
}
