#include "config/endpoint.h"

#include "config/hostname.h"

static enum err refuse(struct errmsg *why, const char *text)
{
    errmsg_set(why, 0, 0, "%s", text);
    return ERR_PARSE;
}

static enum err unix_parse(struct span path, struct endpoint *out, struct errmsg *why)
{
    if (path.n == 0) return refuse(why, "the path of the socket is missing after \"unix:\"");
    if (path.n > ENDPOINT_UNIX_PATH_MAX)
        return refuse(why, "the path of a unix socket has at most 107 bytes");
    if (!span_to_cstr(path, out->host, sizeof out->host))
        return refuse(why, "the path of the socket has a NUL byte");
    out->kind = ENDPOINT_UNIX;
    return ERR_OK;
}

/* Splits "host:port" at the last colon; `bracketed` tells "[host]:port", whose brackets are removed. */
static enum err split(struct span text, struct span *host, struct span *port, bool *bracketed,
                      struct errmsg *why)
{
    size_t colon = text.n;
    while (colon > 0 && text.p[colon - 1] != ':')
        colon--;
    *bracketed = text.p[0] == '[';
    bool ends_in_bracket = *bracketed && text.p[text.n - 1] == ']';
    if (colon == 0 || ends_in_bracket) return refuse(why, "the port is missing: write ADDRESS:PORT");
    *host = span_of(text.p, colon - 1);
    *port = span_of(text.p + colon, text.n - colon);
    if (*bracketed && (host->n < 2 || host->p[host->n - 1] != ']')) return refuse(why, "the ']' is missing");
    if (*bracketed) *host = span_of(host->p + 1, host->n - 2);
    if (!*bracketed && host->n && memchr(host->p, ':', host->n))
        return refuse(why, "an IPv6 address stands in brackets: write [ADDRESS]:PORT");
    return ERR_OK;
}

static enum err port_parse(struct span text, bool for_listening, uint16_t *out, struct errmsg *why)
{
    uint64_t port;
    if (!span_to_u64(text, &port) || port > UINT16_MAX)
        return refuse(why, "the port is not a number from 1 to 65535");
    if (port == 0 && !for_listening) return refuse(why, "port 0 cannot be connected to");
    *out = (uint16_t)port;
    return ERR_OK;
}

static bool is_any_address(const struct addr *a)
{
    return a->family == ADDR_V4 ? a->v4 == 0 : a->v6.hi == 0 && a->v6.lo == 0;
}

static enum err ip_accept(const struct addr *addr, bool bracketed, bool for_listening, struct endpoint *out,
                          struct errmsg *why)
{
    if (bracketed && addr->family == ADDR_V4)
        return refuse(why, "brackets are for IPv6: write the IPv4 address");
    if (!for_listening && is_any_address(addr))
        return refuse(why, "this address means \"every interface\": write the address of the backend");
    out->kind = ENDPOINT_IP;
    out->addr = *addr;
    return ERR_OK;
}

static enum err host_accept(struct span host, bool bracketed, bool for_listening, struct endpoint *out,
                            struct errmsg *why)
{
    struct addr addr;
    if (host.n == 0) return refuse(why, "the address is missing before the ':'");
    if (!addr_parse(host, &addr)) return ip_accept(&addr, bracketed, for_listening, out, why);
    if (bracketed) return refuse(why, "not an IPv6 address between the brackets");
    if (span_eq(host, SPAN("*"))) {
        if (!for_listening)
            return refuse(why, "\"*\" is for listening only: write the address of the backend");
        out->kind = ENDPOINT_IP;
        out->addr = (struct addr){.family = ADDR_V6};
        out->wildcard = true;
        return ERR_OK;
    }
    enum err e = hostname_check(host, why);
    if (e) return e;
    if (for_listening) return refuse(why, "listening needs an address, not a name: write an IP address or *");
    out->kind = ENDPOINT_NAME;
    for (size_t i = 0; i < host.n; i++)
        out->host[i] = ascii_lower(host.p[i]);
    out->host[host.n] = 0;
    return ERR_OK;
}

static bool has_scheme(struct span text)
{
    for (size_t i = 0; i + 3 <= text.n; i++)
        if (memcmp(text.p + i, "://", 3) == 0) return true;
    return false;
}

enum err endpoint_parse(struct span text, bool for_listening, struct endpoint *out, struct errmsg *why)
{
    struct endpoint found = {0};
    if (text.n == 0) return refuse(why, "the address is empty");
    if (!span_to_cstr(text, found.text, sizeof found.text)) return refuse(why, "the address is too long");
    if (has_scheme(text))
        return refuse(why, "write ADDRESS:PORT without \"http://\" (and unix:/path with one '/')");
    enum err e;
    if (span_starts(text, SPAN("unix:"))) {
        e = unix_parse(span_of(text.p + 5, text.n - 5), &found, why);
    } else {
        struct span host = {0}, port = {0};
        bool bracketed = false;
        e = split(text, &host, &port, &bracketed, why);
        if (!e) e = port_parse(port, for_listening, &found.port, why);
        if (!e) e = host_accept(host, bracketed, for_listening, &found, why);
    }
    if (!e) *out = found;
    return e;
}

bool endpoint_equal(const struct endpoint *a, const struct endpoint *b)
{
    return a->kind == b->kind && a->wildcard == b->wildcard && a->port == b->port &&
           (a->kind != ENDPOINT_IP || addr_eq(&a->addr, &b->addr)) && strcmp(a->host, b->host) == 0;
}
