/* forward.h - heads on their way through: what the other side gets is written anew from the parsed form.
 *
 * Fields that parsing marked `drop` stay behind; the gateway's own fields come last, so that nothing a
 * client sends (a Connection list, a copy of the name) can remove or change them.
 *
 * Thread: [any, pure].
 */
#ifndef PROXY_FORWARD_H
#define PROXY_FORWARD_H

#include "base/outbuf.h"
#include "config/config.h"
#include "http/head.h"
#include "policy/partner_view.h"

/* What the gateway says about a request. */
struct forward_identity {
    struct span request_id;
    struct span client; /* text of the source address */
    struct span proto;  /* "http" or "https" */
    enum environment env;
    enum token_slot slot;
    const struct partner_view *partner;
};

/* Writes the request head for the backend, its target in origin-form. `upgrade` keeps the WebSocket upgrade.
 * Spec: RFC 9110 section 7.6, RFC 9112 section 3.2. */
void forward_request(struct outbuf *o, const struct req_head *req, bool upgrade,
                     const struct config_identity *rules, const struct forward_identity *id);

/* How the answer is framed for the client. */
struct forward_answer {
    struct span request_id;
    uint8_t client_minor;  /* HTTP version of the client */
    bool chunked;          /* Transfer-Encoding: chunked towards the client */
    bool keep_alive;       /* of the client connection */
    bool upgrade;          /* a 101 that opens a tunnel */
    struct span date_line; /* "Date: ...\r\n", used when the backend sent none (RFC 9110 section 6.6.1) */
};

/* Writes the response head for the client. For 1xx answers the framing and connection fields are left out. */
void forward_response(struct outbuf *o, const struct res_head *res, const struct forward_answer *a);

#endif
