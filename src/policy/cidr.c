#include "policy/cidr.h"

#include "policy/cidr_explain.h"

enum { V4_BITS = 32, V6_BITS = 128, MAPPED_BITS = 96 };

const struct cidr_rules cidr_rules_default = {.v4_len_min = 8, .v6_len_min = 16};

/* --- bits --------------------------------------------------------------------------------------- */

/* The host bits of a prefix: what may differ inside it. */
static struct addr host_mask(uint8_t family, unsigned len)
{
    struct addr m = {.family = family};
    if (family == ADDR_V4) {
        m.v4 = (uint32_t)(UINT64_C(0xffffffff) >> len);
    } else {
        m.v6.hi = len < 64 ? UINT64_MAX >> len : 0;
        m.v6.lo = len <= 64 ? UINT64_MAX : len < V6_BITS ? UINT64_MAX >> (len - 64) : 0;
    }
    return m;
}

static struct addr masked(const struct addr *a, unsigned len)
{
    const struct addr host = host_mask(a->family, len);
    struct addr net = *a;
    if (a->family == ADDR_V4) {
        net.v4 &= ~host.v4;
    } else {
        net.v6.hi &= ~host.v6.hi;
        net.v6.lo &= ~host.v6.lo;
    }
    return net;
}

struct addr cidr_last(const struct cidr *c)
{
    const struct addr host = host_mask(c->net.family, c->len);
    struct addr last = c->net;
    if (last.family == ADDR_V4) {
        last.v4 |= host.v4;
    } else {
        last.v6.hi |= host.v6.hi;
        last.v6.lo |= host.v6.lo;
    }
    return last;
}

bool cidr_contains(const struct cidr *c, const struct addr *a)
{
    if (a->family != c->net.family) return false;
    const struct addr host = host_mask(a->family, c->len);
    if (a->family == ADDR_V4) return ((a->v4 ^ c->net.v4) & ~host.v4) == 0;
    return (((a->v6.hi ^ c->net.v6.hi) & ~host.v6.hi) | ((a->v6.lo ^ c->net.v6.lo) & ~host.v6.lo)) == 0;
}

int cidr_compare(const void *a, const void *b)
{
    const struct cidr *x = a, *y = b;
    if (x->net.family != y->net.family) return x->net.family < y->net.family ? -1 : 1;
    if (x->net.family == ADDR_V4) {
        if (x->net.v4 != y->net.v4) return x->net.v4 < y->net.v4 ? -1 : 1;
    } else {
        if (x->net.v6.hi != y->net.v6.hi) return x->net.v6.hi < y->net.v6.hi ? -1 : 1;
        if (x->net.v6.lo != y->net.v6.lo) return x->net.v6.lo < y->net.v6.lo ? -1 : 1;
    }
    return (int)x->len - (int)y->len;
}

size_t cidr_format(const struct cidr *c, char out[static CIDR_TEXT_MAX])
{
    size_t n = addr_format(&c->net, out);
    out[n++] = '/';
    if (c->len >= 100) out[n++] = '1';
    if (c->len >= 10) out[n++] = (char)('0' + c->len / 10 % 10);
    out[n++] = (char)('0' + c->len % 10);
    out[n] = '\0';
    return n;
}

/* --- text --------------------------------------------------------------------------------------- */

/* Plain digits without a sign, a space or a leading zero. */
static bool parse_length(struct span s, unsigned len_max, unsigned *out)
{
    if (s.n == 0 || s.n > 3 || (s.p[0] == '0' && s.n > 1)) return false;
    unsigned len = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9') return false;
        len = len * 10 + (unsigned)(s.p[i] - '0');
    }
    if (len > len_max) return false;
    *out = len;
    return true;
}

/* fe80::/10 or a part of it, or a prefix that has it inside. */
static bool is_link_local(const struct cidr *c)
{
    static const struct cidr link_local = {.net = {.family = ADDR_V6, .v6 = {UINT64_C(0xfe80) << 48, 0}},
                                           .len = 10};
    return cidr_contains(&link_local, &c->net) || cidr_contains(c, &link_local.net);
}

/* `c` has no host bits any more. */
static enum err check_rules(const struct cidr *c, const struct cidr_rules *rules, struct errmsg *why)
{
    const bool is_v4 = c->net.family == ADDR_V4;
    const unsigned len_min = is_v4 ? rules->v4_len_min : rules->v6_len_min;
    char text[CIDR_TEXT_MAX];
    if (c->len == 0) {
        errmsg_set(why, 0, 0, "%s lets every address in; write the networks that are meant",
                   is_v4 ? "0.0.0.0/0" : "::/0");
        return ERR_RANGE;
    }
    if (!is_v4 && !rules->allow_link_local && is_link_local(c)) {
        cidr_format(c, text);
        errmsg_set(why, 0, 0,
                   "%s is link-local and means another host on every link; write a routable address", text);
        return ERR_RANGE;
    }
    if (c->len < len_min) {
        cidr_format(c, text);
        errmsg_set(why, 0, 0, "%s is wider than is allowed; write prefixes of /%u or longer", text, len_min);
        return ERR_RANGE;
    }
    return ERR_OK;
}

/* A mapped address with an IPv6 length short of the mapped part: the IPv4 length was meant. */
static enum err refuse_mapped(struct span text, const struct addr *net, unsigned len, struct errmsg *why)
{
    char shown[CIDR_SHOWN_MAX];
    char meant[CIDR_TEXT_MAX];
    const struct cidr c = {.net = masked(net, len < V4_BITS ? len : V4_BITS),
                           .len = (uint8_t)(len < V4_BITS ? len : V4_BITS)};
    cidr_format(&c, meant);
    errmsg_set(why, 0, 0, "%s is an IPv4 network with an IPv6 length and has host bits set; write %s",
               cidr_shown(text, shown), meant);
    return ERR_RANGE;
}

static void warn_masked(struct span text, const struct cidr *c, struct errmsg *why)
{
    char shown[CIDR_SHOWN_MAX];
    char canonical[CIDR_TEXT_MAX];
    cidr_format(c, canonical);
    errmsg_set(why, 0, 0, "%s has host bits set; taken as %s", cidr_shown(text, shown), canonical);
}

static void warn_wide(const struct cidr *c, struct errmsg *why)
{
    char text[CIDR_TEXT_MAX];
    if (c->len >= (c->net.family == ADDR_V4 ? CIDR_WIDE_V4 : CIDR_WIDE_V6)) return;
    cidr_format(c, text);
    errmsg_set(why, 0, 0, "%s is very wide; make sure that all of it belongs to the partner", text);
}

static enum err finish(struct span text, const struct addr *address, unsigned len,
                       const struct cidr_rules *rules, struct cidr *out, struct errmsg *why)
{
    const struct cidr c = {.net = masked(address, len), .len = (uint8_t)len};
    const enum err refused = check_rules(&c, rules, why);
    if (refused) return refused;
    if (addr_eq(&c.net, address)) {
        warn_wide(&c, why);
    } else if (rules->mask_host_bits) {
        warn_masked(text, &c, why);
    } else {
        char shown[CIDR_SHOWN_MAX];
        char canonical[CIDR_TEXT_MAX];
        cidr_format(&c, canonical);
        errmsg_set(why, 0, 0, "%s has host bits set; write %s", cidr_shown(text, shown), canonical);
        return ERR_RANGE;
    }
    *out = c;
    return ERR_OK;
}

enum err cidr_parse(struct span text, const struct cidr_rules *rules, struct cidr *out, struct errmsg *why)
{
    why->line = why->column = 0;
    why->text[0] = '\0';
    const char *slash = text.n ? memchr(text.p, '/', text.n) : NULL;
    const struct span before = span_of(text.p, slash ? (size_t)(slash - text.p) : text.n);
    struct addr address;
    if (addr_parse(before, &address)) {
        cidr_explain_address(before, why);
        return ERR_PARSE;
    }
    /* addr_parse() folds mapped addresses; the length was still written for the form in the text. */
    const bool is_v6_text = memchr(before.p, ':', before.n) != NULL;
    const unsigned len_max = is_v6_text ? V6_BITS : V4_BITS;
    unsigned len = len_max;
    if (slash) {
        const struct span after = span_of(slash + 1, text.n - before.n - 1);
        if (!parse_length(after, len_max, &len)) {
            cidr_explain_length(text, after, len_max, why);
            return ERR_PARSE;
        }
    }
    if (is_v6_text && address.family == ADDR_V4) {
        if (len < MAPPED_BITS) return refuse_mapped(text, &address, len, why);
        len -= MAPPED_BITS;
    }
    return finish(text, &address, len, rules, out, why);
}
