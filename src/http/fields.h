/* fields.h - the header fields that the gateway knows, and what happens to each on the way through.
 *
 * One table (fields.c) gives every known name its identifier and its class; parsing, re-serialising and
 * the tests all read it, so "which fields are hop-by-hop" is written down once.
 *
 * Thread: [any, pure].
 */
#ifndef HTTP_FIELDS_H
#define HTTP_FIELDS_H

#include "base/span.h"

/* identifier, lower-case name, class (see enum field_class). */
#define FIELD_MAP(XX)                                                                                        \
    XX(AUTHORIZATION, "authorization", END_TO_END)                                                           \
    XX(CF_CONNECTING_IP, "cf-connecting-ip", IDENTITY)                                                       \
    XX(CONNECTION, "connection", HOP)                                                                        \
    XX(CONTENT_LENGTH, "content-length", FRAMING)                                                            \
    XX(DATE, "date", END_TO_END)                                                                             \
    XX(EXPECT, "expect", END_TO_END)                                                                         \
    XX(FORWARDED, "forwarded", IDENTITY)                                                                     \
    XX(HOST, "host", FRAMING)                                                                                \
    XX(HTTP2_SETTINGS, "http2-settings", HOP)                                                                \
    XX(KEEP_ALIVE, "keep-alive", HOP)                                                                        \
    XX(PROXY_AUTHENTICATE, "proxy-authenticate", HOP)                                                        \
    XX(PROXY_AUTHORIZATION, "proxy-authorization", HOP)                                                      \
    XX(PROXY_CONNECTION, "proxy-connection", HOP)                                                            \
    XX(SEC_WEBSOCKET_ACCEPT, "sec-websocket-accept", END_TO_END)                                             \
    XX(SEC_WEBSOCKET_KEY, "sec-websocket-key", END_TO_END)                                                   \
    XX(SEC_WEBSOCKET_PROTOCOL, "sec-websocket-protocol", END_TO_END)                                         \
    XX(SEC_WEBSOCKET_EXTENSIONS, "sec-websocket-extensions", END_TO_END)                                     \
    XX(SEC_WEBSOCKET_VERSION, "sec-websocket-version", END_TO_END)                                           \
    XX(TE, "te", HOP)                                                                                        \
    XX(TRAILER, "trailer", HOP)                                                                              \
    XX(TRANSFER_ENCODING, "transfer-encoding", FRAMING)                                                      \
    XX(UPGRADE, "upgrade", HOP)                                                                              \
    XX(X_CLIENT_IP, "x-client-ip", IDENTITY)                                                                 \
    XX(X_CLUSTER_CLIENT_IP, "x-cluster-client-ip", IDENTITY)                                                 \
    XX(X_FORWARDED_FOR, "x-forwarded-for", IDENTITY)                                                         \
    XX(X_FORWARDED_HOST, "x-forwarded-host", IDENTITY)                                                       \
    XX(X_FORWARDED_PORT, "x-forwarded-port", IDENTITY)                                                       \
    XX(X_FORWARDED_PREFIX, "x-forwarded-prefix", IDENTITY)                                                   \
    XX(X_FORWARDED_PROTO, "x-forwarded-proto", IDENTITY)                                                     \
    XX(X_FORWARDED_SERVER, "x-forwarded-server", IDENTITY)                                                   \
    XX(X_REAL_IP, "x-real-ip", IDENTITY)                                                                     \
    XX(TRUE_CLIENT_IP, "true-client-ip", IDENTITY)                                                           \
    XX(X_REQUEST_ID, "x-request-id", IDENTITY)

enum field_id {
    FIELD_OTHER = 0,
#define XX(id, name, class) FIELD_##id,
    FIELD_MAP(XX)
#undef XX
        FIELD_COUNT
};

enum field_class {
    FIELD_CLASS_END_TO_END, /* passed on */
    FIELD_CLASS_HOP,        /* belongs to one connection: never passed on (RFC 9110 section 7.6.1) */
    FIELD_CLASS_FRAMING,    /* rewritten by the gateway from what it understood */
    FIELD_CLASS_IDENTITY,   /* a claim about who is calling: a client's copy is removed, ours is added */
};

/* The identifier of a field name in any case; FIELD_OTHER for unknown names. Other names that start with
 * "x-proof-" or "x-forwarded-" are FIELD_OTHER here; see field_is_identity(). */
enum field_id field_find(struct span name);

/* As field_find(), for a reader that folds '_' and '.' to '-': "Content_Length" is FIELD_CONTENT_LENGTH. */
enum field_id field_find_folded(struct span name);

/* What is done with it on its way; of FIELD_OTHER too. */
enum field_class field_class_of(enum field_id id);

/* True when a client's copy of this field must not reach the backend: class IDENTITY, any "x-proof-*" or
 * "x-forwarded-*" name, and every spelling of those with '_' or '.' in place of '-'. */
bool field_is_identity(enum field_id id, struct span name);

/* True for the namespaces that are identity as a whole, in any such spelling: the backend may come to read a
 * name there that the table does not have yet. */
bool field_is_reserved(struct span name);

enum name_kind {
    NAME_PLAIN = 0, /* a token */
    NAME_ALIAS,     /* a token with a '_' or a '.', which some backends fold to '-' */
    NAME_BROKEN,    /* not a token (RFC 9110 section 5.6.2): empty, or has another character */
};

/* Judges a field name byte by byte. */
enum name_kind field_name_kind(struct span name);

/* The two questions on their own. */
bool field_name_is_alias_prone(struct span name);
bool field_name_is_token(struct span name);

/* Iterates over a comma-separated list (RFC 9110 section 5.6.1): each non-empty element, trimmed.
 * Start with *rest = the field value; false at the end. Quoted strings are not recognised: use it for
 * lists of tokens only. */
bool list_next(struct span *rest, struct span *item);

/* The token `want` (any case) occurs in the comma-separated list. */
bool list_has(struct span value, struct span want);

#endif
