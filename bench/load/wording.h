/* wording.h - the bytes that clients send: the request of the plan, messages and their frames.
 *
 * Thread: the loop's.
 */
#ifndef LOAD_WORDING_H
#define LOAD_WORDING_H

#include "load/load.h"

enum { LOAD_FRAME_HEAD_MAX = 8 };

/* Every upgrade may use the same key: nothing between us and the server caches a 101. */
extern const char load_ws_key[];

/* Renders what all requests of the plan have in common. False when it is longer than LOAD_REQUEST_MAX. */
bool load_request_prepare(struct load *l);

/* A text frame's head for `n` bytes, without the mask; returns its length. `p` has room for
 * LOAD_FRAME_HEAD_MAX. RFC 6455 section 5.2. */
uint32_t load_frame_head(uint8_t *p, uint32_t n, bool masked);

/* "message " and the number of the message. */
void load_message_text(char text[static LOAD_MESSAGE_MIN], uint64_t number);

#endif
