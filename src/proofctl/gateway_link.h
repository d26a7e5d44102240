/* gateway_link.h - asks a running gateway over its control socket (src/control/commands.h).
 *
 * Thread: [any]; blocking.
 */
#ifndef PROOFCTL_GATEWAY_LINK_H
#define PROOFCTL_GATEWAY_LINK_H

#include "proofctl/session.h"

enum { GATEWAY_TARGET_MAX = 1024 };

/* Appends "name=value" to a target, behind '?' or '&'. False, and a sentence, when the value has a character
 * that cannot stand there. */
bool gateway_parameter(const struct session *s, char target[static GATEWAY_TARGET_MAX], const char *name,
                       const char *value);

/* Asks and waits for the answer: a JSON value that is the caller's. Says why there is none, and returns the
 * exit code then; what the gateway refuses is told in its own words. */
enum ctl_exit gateway_ask(const struct session *s, const char *method, const char *target, json_t **answer);

#endif
