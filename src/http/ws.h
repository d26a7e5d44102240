/* ws.h - the WebSocket opening handshake and frame headers in passing (RFC 6455).
 *
 * The gateway does not speak WebSocket: it checks the handshake, verifies the accept key, and then follows
 * frame headers without copying or unmasking, so that it can count messages and knows where a frame ends.
 *
 * Thread: [any, pure]; ws_accept() uses libcrypto's digest.
 */
#ifndef HTTP_WS_H
#define HTTP_WS_H

#include "base/err.h"
#include "base/span.h"
#include "http/head.h"

enum { WS_KEY_LEN = 24, WS_ACCEPT_LEN = 28 };

/* True when the request asks to become a WebSocket, exactly as RFC 6455 section 4.2.1 wants it: GET,
 * HTTP/1.1, no body, one `Upgrade: websocket` and nothing else in it, `Connection` with the token upgrade,
 * version 13, one key of 16 bytes in base64. `*key` is the key (a span into the head). */
bool ws_is_upgrade_request(const struct req_head *req, struct span *key);

/* True when a 101 response switches to WebSocket for this key: Upgrade: websocket alone, Connection: upgrade,
 * exactly one matching Sec-WebSocket-Accept, no body framing. Spec: RFC 6455 section 4.1. */
bool ws_is_accepting_response(const struct res_head *res, struct span key);

/* Computes the accept value of a key: WS_ACCEPT_LEN bytes, no NUL. Errors: ERR_NOMEM (libcrypto failed). */
enum err ws_accept(struct span key, char out[static WS_ACCEPT_LEN]);

/* Follows one direction of a WebSocket connection. */
struct ws_follower {
    uint64_t payload_left; /* bytes of the current frame's payload still to come */
    uint64_t messages;     /* data messages completed (FIN of a text/binary/continuation frame) */
    uint8_t header[14];    /* the frame header under collection */
    uint8_t nheader;       /* bytes of it so far */
    uint8_t opcode;        /* of the current frame */
    bool fin;
    bool masked;     /* what this direction must do: client to server true */
    bool close_seen; /* a close frame has passed completely */
    bool lost;       /* not valid framing: counting has stopped, bytes still flow */
};

/* `masked`: the direction of the client, whose frames must be masked (RFC 6455 section 5.1). */
void ws_follower_init(struct ws_follower *f, bool masked);

/* Takes the next n bytes of the stream. Reserved bits are not judged (extensions use them); a wrong mask bit,
 * a length not in its shortest form, a payload over 2^63, or an oversized control frame sets `lost`. */
void ws_follow(struct ws_follower *f, const char *p, size_t n);

/* The stream stands between two frames (and framing is still understood). */
bool ws_at_boundary(const struct ws_follower *f);

/* Writes an unmasked close frame: 2 + 2 + reason bytes (reason <= 123). Returns its length. */
size_t ws_close_frame(uint16_t code, struct span reason, char out[static 127]);

#endif
