/* ident.h - new names: partner ids that people can read, widget ids that nobody can guess.
 * Thread: [any]. */
#ifndef PROOFCTL_IDENT_H
#define PROOFCTL_IDENT_H

#include "base/err.h"
#include "base/span.h"
#include "policy/partner.h"

enum { IDENT_UUID_CHARS = 36 };

/* The company's letters and digits in lower case, joined by hyphens, and 4 random characters that are not
 * mistaken for each other: "Acme Exchange GmbH" -> "acme-exchange-gmbh-k3f9". Errors: ERR_IO (no randomness).
 */
enum err ident_partner_id(struct span company, char out[static PARTNER_ID_MAX + 1]);

/* A version 4 UUID (RFC 9562 section 5.4) and a NUL. Errors: ERR_IO. */
enum err ident_uuid4(char out[static IDENT_UUID_CHARS + 1]);

#endif
