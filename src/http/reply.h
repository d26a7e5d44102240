/* reply.h - every answer that the gateway gives itself, in one table.
 *
 * The slugs and codes are Proof's published ones (docs/API-ERRORS.md is generated from this table);
 * partners switch on them. The body is always {"error","code","message"} and nothing else.
 *
 * Thread: [any, pure].
 */
#ifndef HTTP_REPLY_H
#define HTTP_REPLY_H

#include "base/outbuf.h"

#include <stdint.h>

/* symbol, status, error slug, code, connection closes, message for people */
#define REPLY_MAP(XX)                                                                                        \
    XX(DECODE_ERROR, 400, "invalid_request", "decode_error", true, "The request is not well-formed HTTP.")   \
    XX(MISSING_TOKEN, 401, "unauthorised", "missing_token", false,                                           \
       "Send your client token as 'Authorization: Bearer <client_token>'.")                                  \
    XX(INVALID_TOKEN, 401, "unauthorised", "invalid_token", false, "This client token is not valid.")        \
    XX(FORBIDDEN_ORIGIN, 403, "forbidden", "forbidden_origin", false,                                        \
       "The address of this request is not on your allowlist for this environment.")                         \
    XX(NOT_FOUND, 404, "not_found", "not_found", false, "There is nothing at this address.")                 \
    XX(REQUEST_TIMEOUT, 408, "invalid_request", "request_timeout", true,                                     \
       "The request did not arrive in time.")                                                                \
    XX(BODY_TOO_LARGE, 413, "invalid_request", "body_too_large", true, "The request body is too large.")     \
    XX(URI_TOO_LONG, 414, "invalid_request", "uri_too_long", true, "The request target is too long.")        \
    XX(UPGRADE_REQUIRED, 426, "invalid_request", "upgrade_required", false,                                  \
       "Open this address as a WebSocket.")                                                                  \
    XX(RATE_LIMITED, 429, "rate_limited", "rate_limited", false, "Too many requests; slow down.")            \
    XX(HEADERS_TOO_LARGE, 431, "invalid_request", "headers_too_large", true,                                 \
       "The header fields of the request are too large or too many.")                                        \
    XX(INTERNAL_ERROR, 500, "internal_error", "internal_error", true, "Something went wrong on our side.")   \
    XX(UPSTREAM_UNAVAILABLE, 502, "upstream_unavailable", "upstream_unavailable", false,                     \
       "The service could not be reached; try again.")                                                       \
    XX(UPSTREAM_INVALID, 502, "upstream_unavailable", "upstream_invalid_response", false,                    \
       "The service gave an answer that could not be read.")                                                 \
    XX(UNAVAILABLE, 503, "internal_error", "unavailable", false, "Not available right now; try again soon.") \
    XX(UPSTREAM_TIMEOUT, 504, "upstream_unavailable", "upstream_timeout", false,                             \
       "The service did not answer in time.")

enum reply_id {
    REPLY_NONE = 0,
#define XX(id, status, error, code, closes, message) REPLY_##id,
    REPLY_MAP(XX)
#undef XX
        REPLY_COUNT
};

struct reply_def {
    uint16_t status;
    bool closes;       /* the connection closes after it, whatever the client asked for */
    const char *error; /* slug */
    const char *code;
    const char *message;
    struct span body; /* JSON: the three of them */
};

/* The row of `id` (not REPLY_NONE). */
const struct reply_def *reply_def(enum reply_id id);

struct reply_options {
    struct span request_id; /* value of X-Request-Id */
    bool keep_alive;        /* false adds `Connection: close`; forced to false by a row that closes */
    bool head;              /* answer to HEAD: header only, Content-Length of the body it would have */
    uint32_t retry_after_s; /* Retry-After on 429 and 503; 0 = 1 */
    struct span date_line;  /* "Date: ...\r\n" */
};

enum { REPLY_BYTES_MAX = 1024 }; /* room for every answer with a request id of ours */

/* Writes the whole answer: status line, Date, Content-Type, Content-Length, Cache-Control: no-store,
 * X-Request-Id, WWW-Authenticate (401), Retry-After (429, 503), Upgrade (426), Connection; then the JSON
 * body. */
void reply_write(struct outbuf *o, enum reply_id id, const struct reply_options *opt);

/* The standard reason phrase of a status ("Not Found"); "Unknown" for the rest. */
const char *status_phrase(unsigned status);

/* Writes an IMF-fixdate (RFC 9110 section 5.6.7), 29 bytes. */
void http_date_write(struct outbuf *o, uint64_t wall_ms);

/* Prints docs/API-ERRORS.md (Markdown) into `o`. */
void reply_reference(struct outbuf *o);

#endif
