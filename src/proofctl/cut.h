/* cut.h - which access that a partner has now would be lost by a change: the one place that decides whether
 * the operator is asked first.
 *
 * Every change passes here, an import as well as `token revoke`. Only access that is live counts: addresses
 * of a disabled partner and tokens past their end cut nothing.
 *
 * Thread: [any, pure].
 */
#ifndef PROOFCTL_CUT_H
#define PROOFCTL_CUT_H

#include "base/outbuf.h"
#include "policy/partner.h"

struct cut {
    bool is_removed;              /* asked for even when the partner was disabled: it cannot be undone */
    bool is_disabled;             /* the rest is then not filled */
    bool token[TOKEN_SLOTS];      /* the token that was in this slot stops working */
    bool certificate;             /* a client certificate, or having none, is not enough any more */
    uint32_t prefixes[ENV_COUNT]; /* that leave the list */
};

/* Compares a partner with what it becomes; `after` NULL: it is removed. Errors: ERR_NOMEM. */
enum err cut_compute(const struct partner *before, const struct partner *after, uint64_t now_ms,
                     struct cut *out);

/* True when the change takes away any access. */
bool cut_is_any(const struct cut *c);

/* "its current token stops working, 2 prefixes leave its production list". */
void cut_describe(const struct cut *c, struct outbuf *o);

#endif
