/* record_value.h - what a single value of a partner record must look like, where it is more than a JSON type.
 *
 * Strict on purpose: these values end in header fields, metric labels and commands, so that a plain ASCII
 * form is required wherever the world has one.
 *
 * Thread: [any, pure].
 */
#ifndef STORE_RECORD_VALUE_H
#define STORE_RECORD_VALUE_H

#include "base/span.h"

enum {
    RECORD_COMPANY_CHARS_MAX = 200,
    RECORD_EMAIL_BYTES_MAX = 254, /* RFC 5321 section 4.5.3.1.3, without the angle brackets */
    RECORD_URL_BYTES_MAX = 2048,
    RECORD_DIGEST_BYTES = 32,
};

/* 1 to PARTNER_ID_MAX of [A-Za-z0-9._-]. */
bool record_value_is_partner_id(struct span s);

/* 1 to RECORD_COMPANY_CHARS_MAX characters, no control characters (C0, DEL, C1), not only spaces.
 * `s` is valid UTF-8. */
bool record_value_is_company(struct span s);

/* name@domain.tld in the ASCII forms that mail systems agree on: no quoting, no address literal. */
bool record_value_is_email(struct span s);

/* https://host[:port][/path][?query]; no user name, no fragment. */
bool record_value_is_webhook_url(struct span s);

/* 64 lower-case hexadecimal digits. `out` is untouched when they are not. */
bool record_value_to_digest(struct span s, uint8_t out[static RECORD_DIGEST_BYTES]);

#endif
