#include "proxy/handshake.h"

#include "base/log.h"
#include "proxy/end.h"
#include "proxy/worker.h"

#include <stdlib.h>

static void update_gauge(const struct worker *w)
{
    metrics_gauge_set(w->metrics, METRIC_TLS_HANDSHAKES_ACTIVE, 0, w->nhandshakes);
}

void handshake_begin(struct worker *w)
{
    w->nhandshakes++;
    update_gauge(w);
}

void handshake_leave(struct worker *w)
{
    w->nhandshakes--;
    update_gauge(w);
}

bool handshake_done(struct worker *w, const struct stream *s, uint8_t **digest)
{
    struct tls_info info;
    if (!stream_tls_info(s, &info)) return false;
    metrics_add2(w->metrics, METRIC_TLS_HANDSHAKES, strcmp(info.version, "TLSv1.3") == 0, info.resumed, 1);
    if (!info.has_certificate) return true;
    uint8_t *kept = malloc(CERTIFICATE_DIGEST_BYTES);
    if (kept && stream_tls_fingerprint(s, kept)) {
        *digest = kept;
        return true;
    }
    free(kept);
    metrics_add(w->metrics, METRIC_LIMITS_HIT, LIMIT_MEMORY, 1);
    return false;
}

void handshake_failed(struct worker *w, const struct addr *client, enum tls_failure why, const char *reason)
{
    char text[ADDR_TEXT_MAX];
    uint64_t unlogged;
    metrics_add(w->metrics, METRIC_TLS_HANDSHAKE_FAILURES, why, 1);
    if (!log_sample_take(&w->handshake_sample, w->loop.now_ms, &unlogged)) return;
    (void)addr_format(client, text);
    log_info("tls_handshake_failed", KV_STR("reason", tls_failure_names[why]),
             KV_STR("cause", reason ? reason : ""), KV_STR("client_ip", text), KV_UINT("unlogged", unlogged));
}
