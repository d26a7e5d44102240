#include "control/admin_pages.h"

#include "base/metrics.h"
#include "control/families.h"
#include "control/service.h"
#include "control/status.h"

enum { STATUS_BYTES_MAX = 96 * 1024 }; /* families of control in /metrics */

static unsigned answer_health(void *arg, struct admin_call *call)
{
    const struct status *s = arg;
    bool is_alive = s->service->nsilent == 0;
    outbuf_str(&call->out, is_alive ? "ok\n" : "a worker hangs: docs/ALERTS.md, ProofgwWorkerSilent\n");
    return is_alive ? 200 : 503;
}

static unsigned answer_ready(void *arg, struct admin_call *call)
{
    const struct status *s = arg;
    return status_write_ready(s, &call->out) ? 200 : 503;
}

static unsigned answer_metrics(void *arg, struct admin_call *call)
{
    const struct status *s = arg;
    metrics_write(&call->out);
    families_write(s, &call->out);
    return 200;
}

const struct admin_route admin_pages[] = {
    {METHOD_GET, "/healthz", "text/plain", 64, answer_health, 0},
    {METHOD_GET, "/livez", "text/plain", 64, answer_health, 0},
    {METHOD_GET, "/readyz", "application/json", 2048, answer_ready, 0},
    {METHOD_GET, "/metrics", "text/plain; version=0.0.4; charset=utf-8", METRICS_TEXT_MAX + STATUS_BYTES_MAX,
     answer_metrics, 0},
    {METHOD_GET, NULL, NULL, 0, NULL, 0},
};
