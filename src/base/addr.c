#include "base/addr.h"

#include "base/outbuf.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

enum { V6_GROUPS = 8, V6_GROUP_BITS = 16, V6_GROUP_DIGITS_MAX = 4, V4_OCTETS = 4 };

/* The first `n` octets of `p`, at most 8, most significant first. */
static uint64_t load_be(const uint8_t *p, unsigned n)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < n; i++)
        v = v << 8 | p[i];
    return v;
}

/* The one constructor of IPv6 addresses: ::ffff:0:0/96 comes out as IPv4. */
static struct addr addr_of_v6(uint64_t hi, uint64_t lo)
{
    if (hi == 0 && lo >> 32 == 0xffff) return (struct addr){.family = ADDR_V4, .v4 = (uint32_t)lo};
    return (struct addr){.family = ADDR_V6, .v6 = {hi, lo}};
}

struct addr addr_from_octets(enum addr_family family, const uint8_t *octets)
{
    if (family == ADDR_V4) return (struct addr){.family = ADDR_V4, .v4 = (uint32_t)load_be(octets, 4)};
    if (family == ADDR_V6) return addr_of_v6(load_be(octets, 8), load_be(octets + 8, 8));
    return (struct addr){.family = ADDR_NONE};
}

struct addr addr_from_sockaddr(const struct sockaddr *sa)
{
    if (sa->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, sa, sizeof in);
        return (struct addr){.family = ADDR_V4, .v4 = ntohl(in.sin_addr.s_addr)};
    }
    if (sa->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, sa, sizeof in6);
        return addr_from_octets(ADDR_V6, in6.sin6_addr.s6_addr);
    }
    return (struct addr){.family = ADDR_NONE};
}

/* Takes 1 to 3 decimal digits without a leading zero, at most 255, off the front of `s`. */
static bool octet_take(struct span *s, uint32_t *out)
{
    size_t n = 0;
    uint32_t v = 0;
    while (n < s->n && n < 3 && s->p[n] >= '0' && s->p[n] <= '9')
        v = v * 10 + (uint32_t)(s->p[n++] - '0');
    if (n == 0 || v > 255 || (n > 1 && s->p[0] == '0')) return false;
    *s = span_of(s->p + n, s->n - n);
    *out = v;
    return true;
}

/* The whole of `s` as a dotted quad. */
static bool v4_parse(struct span s, uint32_t *out)
{
    uint32_t v = 0;
    for (int i = 0; i < V4_OCTETS; i++) {
        uint32_t octet;
        if (i > 0) {
            if (s.n == 0 || s.p[0] != '.') return false;
            s = span_of(s.p + 1, s.n - 1);
        }
        if (!octet_take(&s, &octet)) return false;
        v = v << 8 | octet;
    }
    if (s.n) return false;
    *out = v;
    return true;
}

/* The value of a hexadecimal digit plus 1; 0 for any other character. A table, because a branch on digit or
 * letter is mispredicted often. */
static const uint8_t hex_value_plus1[UINT8_MAX + 1] = {
    ['0'] = 1,  ['1'] = 2,  ['2'] = 3,  ['3'] = 4,  ['4'] = 5,  ['5'] = 6,  ['6'] = 7,  ['7'] = 8,
    ['8'] = 9,  ['9'] = 10, ['a'] = 11, ['b'] = 12, ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16,
    ['A'] = 11, ['B'] = 12, ['C'] = 13, ['D'] = 14, ['E'] = 15, ['F'] = 16,
};

/* The groups of an IPv6 address as written. `part[0]` is what precedes "::", `part[1]` what follows it; the
 * last group of each is in the lowest bits. */
struct groups {
    unsigned __int128 part[2];
    unsigned n[2];
    unsigned at; /* the part that is being read */
};

static void groups_push(struct groups *g, uint32_t bits, unsigned n)
{
    g->part[g->at] = g->part[g->at] << n * V6_GROUP_BITS | bits;
    g->n[g->at] += n;
}

/* Reads the next group, or the dotted quad that must be the end of the text. A fifth digit is left unread:
 * the caller finds no separator there and fails. */
static bool groups_add(struct groups *g, struct span *s)
{
    unsigned v = 0, digit;
    size_t n = 0;
    for (; n < s->n && n < V6_GROUP_DIGITS_MAX && (digit = hex_value_plus1[(uint8_t)s->p[n]]); n++)
        v = v << 4 | (digit - 1);
    const unsigned room = V6_GROUPS - g->n[0] - g->n[1];
    if (n == 0 || room == 0) return false;
    if (n == s->n || s->p[n] != '.') {
        groups_push(g, v, 1);
        *s = span_of(s->p + n, s->n - n);
        return true;
    }
    uint32_t v4;
    if (room < 2 || !v4_parse(*s, &v4)) return false;
    groups_push(g, v4, 2);
    *s = span_of(s->p + s->n, 0);
    return true;
}

/* Takes the separator between groups. False when it is missing, dangling, or a second "::". */
static bool colons_take(struct groups *g, struct span *s)
{
    if (s->n >= 2 && s->p[0] == ':' && s->p[1] == ':') {
        if (g->at) return false;
        g->at = 1;
        *s = span_of(s->p + 2, s->n - 2);
        return true;
    }
    if (g->n[g->at] == 0) return true; /* the first group has nothing before it, or "::" */
    if (s->p[0] != ':' || s->n == 1) return false;
    *s = span_of(s->p + 1, s->n - 1);
    return true;
}

static bool groups_parse(struct span s, struct groups *g)
{
    *g = (struct groups){0};
    while (s.n) {
        if (!colons_take(g, &s)) return false;
        if (s.n && !groups_add(g, &s)) return false;
    }
    /* "::" stands for at least one group. */
    const unsigned n = g->n[0] + g->n[1];
    return g->at ? n < V6_GROUPS : n == V6_GROUPS;
}

static struct addr groups_addr(const struct groups *g)
{
    unsigned __int128 a = g->part[0];
    if (g->at) a = (g->n[0] ? a << (V6_GROUPS - g->n[0]) * V6_GROUP_BITS : 0) | g->part[1];
    return addr_of_v6((uint64_t)(a >> 64), (uint64_t)a);
}

enum err addr_parse(struct span text, struct addr *out)
{
    if (text.n == 0 || text.n >= ADDR_TEXT_MAX) return ERR_PARSE;
    if (memchr(text.p, ':', text.n)) {
        struct groups g;
        if (!groups_parse(text, &g)) return ERR_PARSE;
        *out = groups_addr(&g);
        return ERR_OK;
    }
    uint32_t v4;
    if (!v4_parse(text, &v4)) return ERR_PARSE;
    *out = (struct addr){.family = ADDR_V4, .v4 = v4};
    return ERR_OK;
}

bool addr_port_is_valid(struct span text)
{
    uint64_t port;
    return span_to_u64(text, &port) && port <= UINT16_MAX && (text.n == 1 || text.p[0] != '0');
}

/* The longest run of at least two zero groups, the first of equal ones (RFC 5952 section 4.2). */
static void zero_run_find(const uint16_t groups[static V6_GROUPS], unsigned *start, unsigned *length)
{
    *start = V6_GROUPS;
    *length = 1;
    for (unsigned i = 0; i < V6_GROUPS;) {
        unsigned n = 0;
        while (i + n < V6_GROUPS && groups[i + n] == 0)
            n++;
        if (n > *length) {
            *start = i;
            *length = n;
        }
        i += n ? n : 1;
    }
}

static size_t v6_format(uint64_t hi, uint64_t lo, char *out)
{
    struct outbuf o = outbuf_of(out, ADDR_TEXT_MAX - 1);
    uint16_t groups[V6_GROUPS];
    for (unsigned i = 0; i < V6_GROUPS; i++)
        groups[i] = (uint16_t)((i < 4 ? hi : lo) >> (48 - i % 4 * 16));

    unsigned run, run_length;
    zero_run_find(groups, &run, &run_length);
    for (unsigned i = 0; i < V6_GROUPS;) {
        if (i == run) {
            outbuf_str(&o, "::");
            i += run_length;
            continue;
        }
        if (i > 0 && i != run + run_length) outbuf_char(&o, ':');
        outbuf_hex(&o, groups[i++]);
    }
    return o.n;
}

/* Straight into memory: twice for each request, and a quarter of what it costs by way of an outbuf. */
static size_t v4_format(uint32_t v4, char *out)
{
    char *at = out;
    for (int shift = 24; shift >= 0; shift -= 8) {
        unsigned octet = v4 >> shift & 0xff;
        if (octet >= 100) *at++ = (char)('0' + octet / 100);
        if (octet >= 10) *at++ = (char)('0' + octet / 10 % 10);
        *at++ = (char)('0' + octet % 10);
        *at++ = '.';
    }
    return (size_t)(at - out) - 1; /* without the last dot */
}

size_t addr_format(const struct addr *a, char out[static ADDR_TEXT_MAX])
{
    size_t n = 1;
    if (a->family == ADDR_V4)
        n = v4_format(a->v4, out);
    else if (a->family == ADDR_V6)
        n = v6_format(a->v6.hi, a->v6.lo, out);
    else
        out[0] = '-';
    out[n] = '\0';
    return n;
}
