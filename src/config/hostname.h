/* hostname.h - host names as they may stand in a configuration.
 *
 * Letters, digits, '-' and '_' (container networks use it), labels of at most 63 bytes separated by single
 * dots, no trailing dot. A name that ends in a number is refused: it is a mistyped IPv4 address.
 *
 * Thread: [any, pure].
 */
#ifndef CONFIG_HOSTNAME_H
#define CONFIG_HOSTNAME_H

#include "base/err.h"
#include "base/span.h"

enum { HOSTNAME_MAX = 253 }; /* RFC 1035 section 2.3.4, without the length bytes */

/* Errors: ERR_PARSE (`why` says what is wrong). Spec: RFC 952, RFC 1123 section 2.1. */
enum err hostname_check(struct span name, struct errmsg *why);

/* A virtual host: a name, an IPv4 address, or an IPv6 address in brackets in the form of RFC 5952, as it
 * appears in a Host field without its port. Errors: ERR_PARSE. */
enum err virtual_host_check(struct span host, struct errmsg *why);

#endif
