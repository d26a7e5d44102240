/* forwarded_for.h - X-Forwarded-For: who called the first of a row of proxies.
 *
 *   X-Forwarded-For: 198.51.100.7, 192.0.2.1, 10.0.0.2      (then the TCP peer, 10.0.0.1)
 *                    anybody's word  ^caller   ^--------- trusted proxies
 *
 * Each proxy appends whom it was called by, so the list is read from the right: what a trusted proxy wrote is
 * believed, and the first address that is no trusted proxy is the caller. What stands to the left of it is
 * the caller's own claim and never looked at. Trust is by address, never by counting.
 *
 * An entry that is met on this way and is no address refuses the request: to skip it, or to stop there,
 * would be a guess. Accepted: IPv4, IPv4:PORT, IPv6, [IPv6], [IPv6]:PORT; there is nothing like "unknown".
 *
 * Limits: FORWARDED_FOR_ENTRIES_MAX entries are looked at.
 * Thread: [any, pure].
 */
#ifndef HTTP_FORWARDED_FOR_H
#define HTTP_FORWARDED_FOR_H

#include "base/addr.h"
#include "http/head.h"

enum { FORWARDED_FOR_ENTRIES_MAX = 32 };

enum forwarded_for {
    FORWARDED_FOR_ABSENT = 0, /* no such field: the TCP peer is the caller */
    FORWARDED_FOR_FOUND,
    FORWARDED_FOR_MALFORMED, /* refuse the request */
};

/* `a` is a proxy that is believed. */
typedef bool (*forwarded_for_trust_fn)(const void *arg, const struct addr *a);

/* Finds the caller of a request whose TCP peer is a trusted proxy. Several fields are one list, in their
 * order. When every entry is a trusted proxy, the leftmost is the caller. `*caller` is written with FOUND. */
enum forwarded_for forwarded_for_find(const struct http_field *fields, uint32_t nfields,
                                      forwarded_for_trust_fn is_trusted, const void *arg,
                                      struct addr *caller);

#endif
