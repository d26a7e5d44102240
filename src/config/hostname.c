#include "config/hostname.h"

#include "base/addr.h"

enum { LABEL_MAX = 63 };

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_label_char(char c)
{
    char lower = ascii_lower(c);
    return (lower >= 'a' && lower <= 'z') || is_digit(c) || c == '-' || c == '_';
}

static bool is_label(struct span label)
{
    if (label.n == 0 || label.n > LABEL_MAX) return false;
    for (size_t i = 0; i < label.n; i++)
        if (!is_label_char(label.p[i])) return false;
    return label.p[0] != '-' && label.p[label.n - 1] != '-';
}

static enum err refuse(struct errmsg *why, const char *text)
{
    errmsg_set(why, 0, 0, "%s", text);
    return ERR_PARSE;
}

enum err hostname_check(struct span name, struct errmsg *why)
{
    if (name.n == 0) return refuse(why, "a host name is empty");
    if (name.n > HOSTNAME_MAX) return refuse(why, "a host name has at most 253 characters");
    if (memchr(name.p, '*', name.n)) return refuse(why, "wildcards are not known: write each host name");
    if (name.p[name.n - 1] == '.') return refuse(why, "write the host name without the dot at its end");
    struct span rest = name, label = {0};
    while (rest.n) {
        const char *dot = memchr(rest.p, '.', rest.n);
        label = span_of(rest.p, dot ? (size_t)(dot - rest.p) : rest.n);
        if (!is_label(label))
            return refuse(why, "not a host name: letters, digits, '-' and single dots only");
        rest = dot ? span_of(dot + 1, rest.n - label.n - 1) : span_of(NULL, 0);
    }
    if (is_digit(label.p[0]) && span_to_u64(label, &(uint64_t){0}))
        return refuse(why, "neither a host name nor an IPv4 address: four numbers from 0 to 255 are wanted");
    return ERR_OK;
}

static enum err bracketed_check(struct span host, struct errmsg *why)
{
    struct addr address;
    char canonical[ADDR_TEXT_MAX];
    struct span inside = {host.p + 1, host.n - 2};
    if (host.p[host.n - 1] != ']' || host.n < 4 || addr_parse(inside, &address))
        return refuse(why, "not an IPv6 address in brackets, such as [2001:db8::1], without a port");
    size_t n = addr_format(&address, canonical);
    if (address.family == ADDR_V6 && span_eq(span_of(canonical, n), inside)) return ERR_OK;
    bool is_v6 = address.family == ADDR_V6;
    errmsg_set(why, 0, 0, "write this address as %s%.*s%s", is_v6 ? "[" : "", (int)n, canonical,
               is_v6 ? "]" : "");
    return ERR_PARSE;
}

enum err virtual_host_check(struct span host, struct errmsg *why)
{
    struct addr address;
    if (host.n && host.p[0] == '[') return bracketed_check(host, why);
    if (host.n && memchr(host.p, '/', host.n))
        return refuse(why, "write the host name alone, without http:// and without a path");
    if (host.n && memchr(host.p, ':', host.n))
        return refuse(
            why, "write the host without a port (it is served on every port), an IPv6 address in brackets");
    if (!addr_parse(host, &address)) return ERR_OK;
    return hostname_check(host, why);
}
