/* cidr.h - one address prefix: strict text form, comparison, order.
 *
 * What is accepted and refused is the table of docs/CIDR.md; every refusal says what to write instead.
 * Prefixes are canonical: no host bits, IPv4-mapped ones (/96 and longer) turned into IPv4. The two
 * families never match each other, whatever an IPv6 prefix covers.
 *
 *   struct cidr c;
 *   enum err e = cidr_parse(SPAN("192.0.2.0/24"), &cidr_rules_default, &c, &why);
 *   if (e) refuse(why.text); else if (why.text[0]) warn(why.text);
 *
 * Thread: [any, pure].
 */
#ifndef POLICY_CIDR_H
#define POLICY_CIDR_H

#include "base/addr.h"
#include "base/err.h"
#include "base/span.h"

struct cidr {
    struct addr net; /* ADDR_V4 or ADDR_V6, host bits zero */
    uint8_t len;     /* 0..32 or 0..128 */
};

/* What a list may contain beyond ordinary prefixes. A length of 0 is refused whatever the rules say. */
struct cidr_rules {
    uint8_t v4_len_min;    /* shorter prefixes are refused; default 8 */
    uint8_t v6_len_min;    /* default 16 */
    bool allow_link_local; /* fe80::/10; default false */
    bool mask_host_bits;   /* import: clear host bits and warn instead of refusing; default false */
};

extern const struct cidr_rules cidr_rules_default;

enum {
    CIDR_TEXT_MAX = 50, /* longest text with its NUL */
    CIDR_WIDE_V4 = 16,  /* prefixes shorter than this get a warning: probably a typing error */
    CIDR_WIDE_V6 = 29,  /* no single organisation is given more */
};

/* Parses "ADDRESS" (one host) or "ADDRESS/LENGTH".
 * `why->text` says in one sentence what is wrong and what to write instead. With ERR_OK it is empty, or a
 * warning: host bits were cleared, or the prefix is very wide.
 * Errors: ERR_PARSE (not a prefix), ERR_RANGE (a prefix, but refused by `rules`). */
enum err cidr_parse(struct span text, const struct cidr_rules *rules, struct cidr *out, struct errmsg *why);

/* Canonical text: RFC 5952; the length is always written. Returns the number of bytes. */
size_t cidr_format(const struct cidr *c, char out[static CIDR_TEXT_MAX]);

/* False for an address of the other family. */
bool cidr_contains(const struct cidr *c, const struct addr *a);

/* The last address of a prefix (the first one is c->net). */
struct addr cidr_last(const struct cidr *c);

/* Order: family, network, length. For qsort. */
int cidr_compare(const void *a, const void *b);

#endif
