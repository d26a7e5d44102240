/* target.h - the request target, normalised once for routing; what is forwarded stays as received.
 *
 * Only percent-encoded unreserved characters are decoded (RFC 3986 section 6.2.2.2). Anything that another
 * server might resolve differently is refused instead of guessed: in the path dot segments in any spelling,
 * "//", "\", ";", "%2f", "%5c", "%3b", "%25", encoded controls; anywhere broken percent-encoding, fragments,
 * controls, bytes >= 0x80.
 *
 * Thread: [any, pure].
 */
#ifndef HTTP_TARGET_H
#define HTTP_TARGET_H

#include "base/err.h"
#include "base/span.h"

enum route {
    ROUTE_NONE = 0, /* nothing of ours: 404 */
    ROUTE_WIDGET,   /* /widget/... */
    ROUTE_WS,       /* /ws */
    ROUTE_COUNT
};

struct target {
    struct span path;      /* raw path as received, without query */
    struct span query;     /* raw query without '?'; p == NULL when there is none */
    struct span authority; /* of absolute-form; p == NULL in origin-form */
    struct span origin;    /* path and query: what goes upstream (absolute-form is turned into origin-form) */
    enum route route;
};

/* Splits, checks and routes a target in origin-form or absolute-form (http and https only).
 * "*" and authority-form are refused. Errors: ERR_PARSE (ambiguous or malformed).
 * Spec: RFC 9112 section 3.2, RFC 3986 section 6. */
enum err target_parse(struct span text, struct target *out);

/* Splits "host[:port]" of a Host field or an authority; userinfo, empty hosts, bad ports and characters
 * outside a registered name or IP literal are refused. `host` is without port and trailing dot.
 * Errors: ERR_PARSE. Spec: RFC 9110 section 7.2, RFC 3986 section 3.2.2. */
enum err host_parse(struct span text, struct span *host);

#endif
