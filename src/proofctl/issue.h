/* issue.h - a new client token on its way from the random source to the operator's eyes, once.
 *
 * It exists in `struct issued` and in the buffer of stdout; both are wiped. Everything else gets its digest.
 *
 * Thread: [any].
 */
#ifndef PROOFCTL_ISSUE_H
#define PROOFCTL_ISSUE_H

#include "proofctl/session.h"
#include "proofctl/token_text.h"

struct issued {
    char token[TOKEN_TEXT_CHARS + 1];
    char digest[2 * TOKEN_DIGEST_BYTES + 1]; /* hexadecimal, for the record */
};

/* Makes a token. The caller calls issue_wipe() on every path. From the commit that puts it in force to
 * issue_flush(), signals wait: it would be lost, and with it perhaps the one that it replaces. For the same
 * reason it is printed after a commit of which nobody knows whether it was made. */
enum ctl_exit issue_token(struct session *s, struct issued *out);
void issue_wipe(struct issued *i);

/* Prints `rest` as a JSON object with the token as its first member, and drops the reference. `rest` NULL:
 * out of memory; then the token is lost, and it says what to do. */
enum ctl_exit issue_print_json(const struct session *s, const struct issued *i, const char *partner_id,
                               json_t *rest);

/* Brings what was printed to the operator. When that fails the token is lost, and it says what to do. When it
 * is not known whether the change was made, it says how to find out, and returns CTL_UNAVAILABLE. */
enum ctl_exit issue_flush(const struct session *s, const struct issued *i, const char *partner_id);

#endif
