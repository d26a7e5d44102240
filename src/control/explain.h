/* explain.h - why a request is let in or refused, step by step: the same decide() that the workers use.
 *
 * Thread: [control], which is the one writer of the policy, so that nothing changes meanwhile.
 */
#ifndef CONTROL_EXPLAIN_H
#define CONTROL_EXPLAIN_H

#include "base/json_out.h"
#include "config/config.h"
#include "http/target.h"
#include "policy/decide.h"

enum { EXPLAIN_BYTES_MAX = 8192 };

struct caller;
struct partner_limits;
struct sources;

struct explain_query {
    struct span host; /* without port */
    struct span path; /* "/widget/session" */
    struct addr source;
    const struct caller *seen;  /* a request that was there: how `source` came to be believed; NULL = it is
                                   only asked for */
    enum route route;           /* with `seen`: whose path may be cut; else that of `path` counts */
    bool is_misdirected;        /* with `seen`: its connection has another host's certificate */
    const uint8_t *digest;      /* of the token; NULL = a request without one, or it is not known any more */
    const uint8_t *certificate; /* SHA-256 of the client's; NULL = none was shown */
    uint64_t wall_ms, mono_us;
};

/* Writes members of the object that is open in `j`: the answer that the partner would get, and the steps that
 * lead to it. At most EXPLAIN_BYTES_MAX. Nothing is counted among what the partner does. Returns the reason.
 */
enum deny explain_write(const struct config *config, const struct policy *policy,
                        const struct partner_limits *limits, struct sources *sources,
                        const struct explain_query *q, struct json_out *j);

#endif
