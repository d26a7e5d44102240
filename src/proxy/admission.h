/* admission.h - what the way in (admission.c) tells others than exchange.h's users.
 *
 * Thread: [any, pure].
 */
#ifndef PROXY_ADMISSION_H
#define PROXY_ADMISSION_H

#include "http/reply.h"
#include "policy/decide.h"

/* What the contract answers to a verdict; REPLY_NONE for VERDICT_ALLOW. */
enum reply_id admission_reply_of(enum verdict v);

#endif
