#include "policy/cidr_explain.h"

#include "base/addr.h"

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_printable(char c)
{
    return c > ' ' && c < 0x7f;
}

const char *cidr_shown(struct span text, char out[static CIDR_SHOWN_MAX])
{
    static const char cut[] = "...";
    const bool is_long = text.n >= CIDR_SHOWN_MAX;
    const size_t n = is_long ? CIDR_SHOWN_MAX - sizeof cut : text.n;
    for (size_t i = 0; i < n; i++)
        out[i] = text.p[i] == ' ' || is_printable(text.p[i]) ? text.p[i] : '?';
    out[n] = '\0';
    if (is_long) memcpy(out + n, cut, sizeof cut);
    return out;
}

static size_t count(struct span s, char c)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++)
        n += s.p[i] == c;
    return n;
}

static bool is_dotted(struct span s)
{
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] != '.' && !is_digit(s.p[i])) return false;
    return true;
}

static bool has_leading_zero(struct span s)
{
    for (size_t i = 0; i + 1 < s.n; i++)
        if (s.p[i] == '0' && is_digit(s.p[i + 1]) && (i == 0 || s.p[i - 1] == '.')) return true;
    return false;
}

#define SEVERAL "is more than one address; write each by itself, without a comma"

/* The advice for a text that is no address; the text itself is put before it. */
static const char *advice(struct span a)
{
    if (count(a, ',')) return SEVERAL;
    if (count(a, ' ') || count(a, '\t')) return "contains a space; write it without";
    for (size_t i = 0; i < a.n; i++)
        if (!is_printable(a.p[i])) return "contains a byte that no address has; type it again in plain ASCII";
    if (count(a, '[') || count(a, ']')) return "has brackets; write the address without them";
    if (count(a, '%')) return "has a zone; write the address without the '%' and what follows it";
    if (count(a, '.') && count(a, ':') == 1) return "has a port; write the address alone";
    if (!is_dotted(a))
        return "is not an IPv4 or IPv6 address; write for example 192.0.2.0/24 or 2001:db8::/32";
    if (has_leading_zero(a))
        return "has a number with a leading zero, which some programs read as octal; write it without";
    if (count(a, '.') != 3)
        return "is not a whole IPv4 address; write all four numbers, for example 192.0.2.0/24";
    return "is not an IPv4 address; write four numbers from 0 to 255, for example 192.0.2.0/24";
}

void cidr_explain_address(struct span address, struct errmsg *why)
{
    char shown[CIDR_SHOWN_MAX];
    if (address.n == 0)
        errmsg_set(why, 0, 0, "the address is missing; write for example 192.0.2.0/24 or 2001:db8::/32");
    else
        errmsg_set(why, 0, 0, "%s %s", cidr_shown(address, shown), advice(address));
}

/* 255.255.0.0 and 0.0.255.255 are both a /16 to some programs. 0.0.0.0 could be anything. */
static bool mask_to_length(struct span text, unsigned *len)
{
    struct addr mask;
    if (addr_parse(text, &mask) || mask.family != ADDR_V4 || mask.v4 == 0) return false;
    const uint32_t net = mask.v4 & 0x80000000u ? mask.v4 : ~mask.v4;
    const unsigned ones = (unsigned)__builtin_popcount(net);
    if (net != (uint32_t)(UINT64_C(0xffffffff) << (32 - ones))) return false;
    *len = ones;
    return true;
}

void cidr_explain_length(struct span text, struct span length, unsigned len_max, struct errmsg *why)
{
    char shown[CIDR_SHOWN_MAX];
    char address[CIDR_SHOWN_MAX];
    cidr_shown(text, shown);
    cidr_shown(span_of(text.p, text.n - length.n - 1), address);
    unsigned len;
    if (count(length, ','))
        errmsg_set(why, 0, 0, "%s " SEVERAL, shown);
    else if (length.n == 0)
        errmsg_set(why, 0, 0, "%s has no length after the slash; write %s/%u for one address", shown, address,
                   len_max);
    else if (len_max == 32 && mask_to_length(length, &len))
        errmsg_set(why, 0, 0, "%s has a mask where the length belongs; write %s/%u", shown, address, len);
    else
        errmsg_set(
            why, 0, 0,
            "%s has a length that is not a number from 1 to %u in plain digits; write for example %s/%u",
            shown, len_max, address, len_max);
}
