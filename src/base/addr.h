/* addr.h - a network address in the one form that everybody above compares.
 *
 * IPv4-mapped IPv6 (::ffff:a.b.c.d) is folded to IPv4 here, once, so nobody else ever sees it. 6to4,
 * v4-compatible, NAT64 and Teredo stay what they are: IPv6. The scope id is ignored.
 *
 * Parsing is strict (RFC 5952 forms and their long spellings): no leading zeros in IPv4 octets, four of
 * them exactly, at most four hex digits a group, no zone, no brackets, no port, no surrounding space.
 *
 * Thread: [any, pure].
 */
#ifndef BASE_ADDR_H
#define BASE_ADDR_H

#include "base/err.h"
#include "base/span.h"

#include <stdbool.h>
#include <stdint.h>

struct sockaddr;

enum addr_family {
    ADDR_NONE = 0, /* no network address: a unix socket */
    ADDR_V4 = 4,
    ADDR_V6 = 6,
};

struct addr {
    uint8_t family; /* enum addr_family */
    union {
        uint32_t v4; /* host byte order */
        struct {
            uint64_t hi, lo; /* host byte order, hi = first 64 bits */
        } v6;
    };
};

enum { ADDR_TEXT_MAX = 46 }; /* longest text with its NUL */

/* From a socket address; a mapped IPv6 address becomes IPv4. AF_UNIX and anything else give ADDR_NONE. */
struct addr addr_from_sockaddr(const struct sockaddr *sa);

/* From the octets of a packet in network order: 4 for ADDR_V4, 16 for ADDR_V6. A mapped IPv6 address becomes
 * IPv4. */
struct addr addr_from_octets(enum addr_family family, const uint8_t *octets);

/* Parses an address by length (an embedded NUL is refused). A mapped IPv6 address becomes IPv4.
 * Errors: ERR_PARSE. Spec: RFC 4291 section 2.2, RFC 6943 section 3.1.1 (strict IPv4). */
enum err addr_parse(struct span text, struct addr *out);

/* The text of a port: 0 to 65535 in decimal, no leading zero. */
bool addr_port_is_valid(struct span text);

/* Writes the RFC 5952 text ("-" for ADDR_NONE) and a NUL; returns the length without it. IPv6 is always
 * written in hexadecimal, also where inet_ntop(3) prefers a dotted tail (::192.0.2.1). */
size_t addr_format(const struct addr *a, char out[static ADDR_TEXT_MAX]);

static inline bool addr_eq(const struct addr *a, const struct addr *b)
{
    if (a->family != b->family) return false;
    if (a->family == ADDR_V4) return a->v4 == b->v4;
    return a->family != ADDR_V6 || (a->v6.hi == b->v6.hi && a->v6.lo == b->v6.lo);
}

#endif
