/* proxy_header.h - the PROXY protocol header: a load balancer says for whom it opened a connection.
 *
 *   version 1:  PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 CRLF        one line of at most 107 bytes
 *   version 2:  12 fixed bytes | version, command | family | length | addresses | TLVs
 *
 * Fed as the bytes come, cut anywhere; it never takes a byte that is behind the header, so what follows
 * (TLS, HTTP) can be read from the same place by somebody who knows nothing of it. Whether the sender may
 * say this is the caller's business, and the deadline too.
 *
 * Strict: what the specification does not allow is refused, with the reason for log and metrics. TLVs are
 * skipped unread, with a bound.
 *
 * Spec: HAProxy's "The PROXY protocol", versions 1 and 2, of 2020/03/05.
 * Thread: [any, pure].
 */
#ifndef HTTP_PROXY_HEADER_H
#define HTTP_PROXY_HEADER_H

#include "base/addr.h"

enum {
    PROXY_V1_BYTES_MAX = 107,  /* CRLF included */
    PROXY_V2_BYTES_MAX = 4096, /* addresses and TLVs included; balancers send up to a few hundred */
};

/* Why a header was refused: label for logs and metrics (`reason=`). The last three are decided by who reads
 * the socket. */
/* clang-format off */
#define PROXY_REFUSAL_MAP(XX)                                                                                \
    XX(NONE, "none")                                                                                         \
    XX(SIGNATURE, "signature")     /* the first bytes are those of no version: no header at all */           \
    XX(LINE, "line")               /* v1: not exactly as specified */                                        \
    XX(LINE_LENGTH, "line_length") /* v1: no end within its 107 bytes */                                     \
    XX(VERSION, "version")         /* v2: not 2 */                                                           \
    XX(COMMAND, "command")         /* v2: neither LOCAL nor PROXY */                                         \
    XX(FAMILY, "family")           /* v2: unassigned family or transport */                                  \
    XX(LENGTH, "length")           /* v2: shorter than its addresses, or longer than PROXY_V2_BYTES_MAX */   \
    XX(NOT_TRUSTED, "not_trusted") /* the peer is not listed */                                              \
    XX(TIMEOUT, "timeout")         /* not whole in time */                                                   \
    XX(ENDED, "ended")             /* the peer closed before the end of the header */

enum proxy_refusal {
#define XX(id, text) PROXY_REFUSAL_##id,
    PROXY_REFUSAL_MAP(XX)
#undef XX
    PROXY_REFUSAL_COUNT
};
/* clang-format on */

extern const char *const proxy_refusal_names[PROXY_REFUSAL_COUNT];

struct proxy_header {
    /* when it is done */
    uint8_t version;    /* 1 or 2; 0 until the first byte */
    bool is_local;      /* v2 LOCAL: the balancer speaks for itself, the address is that of the socket */
    struct addr source; /* ADDR_NONE: UNKNOWN, UNSPEC, UNIX, or LOCAL */

    enum proxy_refusal refusal; /* when it is refused */

    /* private */
    uint32_t n;                        /* bytes taken so far */
    uint32_t total;                    /* v2: bytes of the whole header, once known */
    uint8_t bytes[PROXY_V1_BYTES_MAX]; /* the first of them; v2 needs 52 */
};

enum proxy_header_result {
    PROXY_HEADER_MORE = 0, /* all bytes were used; wait for more */
    PROXY_HEADER_DONE,     /* `*used` of them were; the header is whole */
    PROXY_HEADER_REFUSED,  /* h->refusal says why; not to be fed again */
};

/* Before the first byte. */
void proxy_header_init(struct proxy_header *h);

/* Takes the next received bytes, as far as they belong to the header. Not after DONE or REFUSED. */
enum proxy_header_result proxy_header_feed(struct proxy_header *h, const char *p, size_t n, size_t *used);

#endif
