/* endpoint.h - a place to listen on or to connect to, as a configuration writes it.
 *
 *   "127.0.0.1:8080"  "[::1]:8080"  "unix:/run/app.sock"
 *   "*:8080"          to listen on only: IPv6 and IPv4
 *   "name:8080"       to connect to only
 *
 * Port 0 is allowed for listening: the kernel chooses one, and the log says which.
 *
 * Thread: [any, pure].
 */
#ifndef CONFIG_ENDPOINT_H
#define CONFIG_ENDPOINT_H

#include "base/addr.h"
#include "base/err.h"
#include "base/span.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    ENDPOINT_UNIX_PATH_MAX = 107, /* sun_path less its NUL */
    ENDPOINT_HOST_BYTES = 256,
    ENDPOINT_TEXT_BYTES = 272,
};

enum endpoint_kind { ENDPOINT_NONE = 0, ENDPOINT_IP, ENDPOINT_NAME, ENDPOINT_UNIX };

struct endpoint {
    enum endpoint_kind kind;
    struct addr addr;               /* ENDPOINT_IP; :: for "*" */
    bool wildcard;                  /* "*" */
    uint16_t port;                  /* ENDPOINT_IP, ENDPOINT_NAME */
    char host[ENDPOINT_HOST_BYTES]; /* ENDPOINT_NAME: host name in lower case; ENDPOINT_UNIX: path */
    char text[ENDPOINT_TEXT_BYTES]; /* as written, for logs */
};

/* Parses the text of an endpoint; `*out` is written on success only. Errors: ERR_PARSE (`why` says what to
 * write instead). */
enum err endpoint_parse(struct span text, bool for_listening, struct endpoint *out, struct errmsg *why);

/* Whether both are the same place, however each is written. Names are compared, not resolved. */
bool endpoint_equal(const struct endpoint *a, const struct endpoint *b);

#endif
