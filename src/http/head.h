/* head.h - a parsed and checked request or response head.
 *
 * bytes --head_scan--> one whole head --llhttp (strict)--> spans --own checks--> struct req_head / res_head
 *
 * llhttp only ever sees a complete head that head_scan() has passed, in one call: every name and value is
 * one span into the caller's bytes. Bodies never go through llhttp; body.h reads their framing.
 *
 * What is refused here, with the reason kept for the log, is the union of RFC 9112's MUSTs and of the
 * "own check" rows in docs/HTTP.md. There is no lenient mode.
 *
 * Limits: HTTP_FIELDS_MAX fields in any configuration. Spans are valid as long as the head's bytes are.
 * Thread: [any, pure]; struct http_parser belongs to one thread.
 */
#ifndef HTTP_HEAD_H
#define HTTP_HEAD_H

#include "base/span.h"
#include "http/fields.h"
#include "http/target.h"

#include <stdint.h>

enum { HTTP_FIELDS_MAX = 256 };

/* Methods that pass, by allow-list. CONNECT, TRACE and everything else are refused. */
#define METHOD_MAP(XX)                                                                                       \
    XX(GET, "GET", 1)                                                                                        \
    XX(HEAD, "HEAD", 1)                                                                                      \
    XX(POST, "POST", 0)                                                                                      \
    XX(PUT, "PUT", 1)                                                                                        \
    XX(DELETE, "DELETE", 1)                                                                                  \
    XX(PATCH, "PATCH", 0)                                                                                    \
    XX(OPTIONS, "OPTIONS", 1)

enum http_method {
    METHOD_NONE = 0, /* not parsed, or not on the list */
#define XX(id, name, idempotent) METHOD_##id,
    METHOD_MAP(XX)
#undef XX
        METHOD_COUNT
};

/* "GET", ...; "-" for METHOD_NONE. */
struct span method_name(enum http_method m);
/* RFC 9110 section 9.2.2. */
bool method_is_idempotent(enum http_method m);

/* How a message's body ends. */
enum body_kind {
    BODY_NONE = 0,    /* no body */
    BODY_LENGTH,      /* content_length bytes */
    BODY_CHUNKED,     /* Transfer-Encoding: chunked */
    BODY_UNTIL_CLOSE, /* response only: until the connection ends */
};

/* Why a head was refused: label for logs and metrics (`reason=`), in the order of the checks. */
#define HEAD_REFUSAL_MAP(XX)                                                                                 \
    XX(NONE, "none")                                                                                         \
    XX(CONTROL_BYTES, "control_bytes") /* head_scan(): bare CR/LF, NUL, obs-fold, empty name */              \
    XX(SYNTAX, "syntax")               /* llhttp refused it */                                               \
    XX(METHOD, "method")               /* not on the allow-list */                                           \
    XX(VERSION, "version")             /* not HTTP/1.0 or HTTP/1.1 */                                        \
    XX(TARGET, "target")               /* not an acceptable request target */                                \
    XX(TARGET_TOO_LONG, "target_too_long")                                                                   \
    XX(HEAD_TOO_LARGE, "head_too_large")                                                                     \
    XX(TOO_MANY_FIELDS, "too_many_fields")                                                                   \
    XX(FIELD_NAME, "field_name") /* not a token, or an alias-prone name in `reject` mode */                  \
    XX(FIELD_VALUE, "field_value")                                                                           \
    XX(HOST, "host")                     /* missing, repeated, malformed, or differs from the target's */    \
    XX(CONTENT_LENGTH, "content_length") /* repeated, not a number, or with Transfer-Encoding */             \
    XX(TRANSFER_ENCODING, "transfer_encoding") /* not exactly "chunked", repeated, or with HTTP/1.0 */       \
    XX(STATUS, "status")                       /* response: not 100..599 */                                  \
    XX(UPGRADE, "upgrade")                     /* response: 101 without Upgrade */                           \
    XX(FORWARDED_FOR, "forwarded_for")         /* a trusted proxy's X-Forwarded-For is no list of addresses */

enum head_refusal {
#define XX(id, text) HEAD_REFUSAL_##id,
    HEAD_REFUSAL_MAP(XX)
#undef XX
        HEAD_REFUSAL_COUNT
};

/* The label for logs and metrics. */
const char *head_refusal_text(enum head_refusal r);

struct http_field {
    struct span name;  /* as received */
    struct span value; /* without surrounding white space */
    enum field_id id;
    bool drop; /* not passed on: hop-by-hop, framing and Host (rewritten), named by Connection, identity,
                  alias */
};

/* What field names with '_' or '.' mean. */
enum alias_policy { ALIAS_DROP, ALIAS_REJECT, ALIAS_ALLOW };

struct head_limits {
    uint32_t fields_max;       /* 1..HTTP_FIELDS_MAX */
    uint32_t target_bytes_max; /* of the request target */
    enum alias_policy alias;
    const struct span *alias_allowed; /* lower-case names that pass in spite of `alias`; borrowed */
    uint32_t nalias_allowed;
};

struct req_head {
    enum http_method method;
    uint8_t minor;             /* HTTP/1.minor: 0 or 1 */
    struct span target;        /* as received */
    struct target parts;       /* the target split, checked and routed; parts.origin is what is forwarded */
    struct span host;          /* Host without port and without a trailing dot, brackets kept; from the
                                  absolute-form target when there is one; empty only for HTTP/1.0 without Host */
    struct span host_field;    /* the whole value to forward as Host and X-Forwarded-Host */
    struct span authorization; /* value of the one Authorization field; p == NULL when there is none */
    uint8_t nauthorization;    /* how many Authorization fields, saturating */
    enum body_kind body;
    uint64_t content_length; /* with BODY_LENGTH (0 is BODY_NONE with has_content_length) */
    bool has_content_length; /* forward the Content-Length even when it is 0 */
    bool keep_alive;         /* RFC 9112 section 9.3 */
    bool expect_continue;    /* HTTP/1.1, a body to come, and Expect: 100-continue; else Expect is dropped */
    bool has_upgrade;        /* HTTP/1.1 and an Upgrade field together with Connection: upgrade */
    uint32_t naliases;       /* alias-prone names dropped */
    uint32_t nfields;
    struct http_field fields[HTTP_FIELDS_MAX];
};

struct res_head {
    uint16_t status; /* 100..599 */
    uint8_t minor;
    struct span reason;  /* reason phrase as received; empty when a byte is not printable ASCII */
    enum body_kind body; /* already corrected for HEAD, 1xx, 204, 304 */
    uint64_t content_length;
    bool has_content_length; /* pass on (also for HEAD and 304, where there is no body) */
    bool keep_alive;
    bool has_upgrade; /* Connection: upgrade and an Upgrade field */
    uint32_t nfields;
    struct http_field fields[HTTP_FIELDS_MAX];
};

/* llhttp and its settings, reused for every head of a thread. About 1 KiB. */
struct http_parser;

/* Errors: NULL when memory is out. */
struct http_parser *http_parser_create(void);
void http_parser_destroy(struct http_parser *p);

/* Parses one complete request head p[0..n) that head_scan() has passed; n includes the last CRLF CRLF.
 * `out` is filled as far as it was understood even when the head is refused: its method is for the log.
 * Every fields[i].drop is final. Returns HEAD_REFUSAL_NONE or the reason.
 * Spec: RFC 9112 sections 2-3, 5-7, 9; RFC 9110 sections 5, 7. */
enum head_refusal http_parse_request(struct http_parser *parser, const char *p, size_t n,
                                     const struct head_limits *limits, struct req_head *out);

/* Parses one complete response head. `request_method` decides whether there is a body (HEAD).
 * Spec: RFC 9112 section 6.3. */
enum head_refusal http_parse_response(struct http_parser *parser, const char *p, size_t n,
                                      const struct head_limits *limits, enum http_method request_method,
                                      struct res_head *out);

/* The first field with this identifier, or NULL. */
const struct http_field *http_field_find(const struct http_field *fields, uint32_t n, enum field_id id);

#endif
