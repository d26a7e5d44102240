/* message.h - what the fields of a head say about the message, the same for requests and responses.
 *
 * Private to this floor: request.c and response.c call these in order on the fields that llhttp found.
 *
 * Thread: [any, pure].
 */
#ifndef HTTP_MESSAGE_H
#define HTTP_MESSAGE_H

#include "http/head.h"

struct message {
    struct http_field *fields; /* borrowed */
    uint32_t nfields;
    uint8_t minor; /* HTTP/1.minor */

    /* message_index() */
    uint16_t count[FIELD_COUNT]; /* fields of each known name */
    uint16_t first[FIELD_COUNT]; /* the first of them in `fields`, if there is one */

    /* message_connection() */
    bool keep_alive;
    bool has_upgrade;

    /* message_framing() */
    bool is_chunked;
    bool has_content_length;
    uint64_t content_length;
};

/* The first field of this name; one must be there. */
static inline struct http_field *message_first(const struct message *m, enum field_id id)
{
    return &m->fields[m->first[id]];
}

/* Gives every field its identifier, and drops what by its class is not passed on: hop-by-hop and framing.
 * Identity fields are left to the caller. */
void message_index(struct message *m, struct http_field *fields, uint32_t nfields, uint8_t minor);

/* Reads Connection: persistence, upgrade, and the fields it names, which are dropped. Naming a field that is
 * meant for all recipients, or that the gateway itself needs, is refused. Spec: RFC 9110 sections 7.6.1
 * and 7.8, RFC 9112 section 9.3. */
enum head_refusal message_connection(struct message *m);

/* Reads Content-Length and Transfer-Encoding. Spec: RFC 9112 sections 6.1 to 6.3. */
enum head_refusal message_framing(struct message *m);

#endif
