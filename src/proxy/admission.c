/* The way in: a request head is checked, decided, and either answered here or rewritten and sent on. */
#include "proxy/admission.h"

#include "proxy/conn.h"
#include "proxy/exchange.h"
#include "proxy/forward.h"
#include "proxy/worker.h"

#include <string.h>

enum { LOG_PATH_MAX = 1024 };

/* --- heads that are refused ------------------------------------------------------------------------ */

static enum reply_id reply_of_refusal(enum head_refusal r)
{
    switch (r) {
    case HEAD_REFUSAL_TARGET_TOO_LONG: return REPLY_URI_TOO_LONG;
    case HEAD_REFUSAL_HEAD_TOO_LARGE:
    case HEAD_REFUSAL_TOO_MANY_FIELDS: return REPLY_HEADERS_TOO_LARGE;
    case HEAD_REFUSAL_NONE:
    case HEAD_REFUSAL_CONTROL_BYTES:
    case HEAD_REFUSAL_SYNTAX:
    case HEAD_REFUSAL_METHOD:
    case HEAD_REFUSAL_VERSION:
    case HEAD_REFUSAL_TARGET:
    case HEAD_REFUSAL_FIELD_NAME:
    case HEAD_REFUSAL_FIELD_VALUE:
    case HEAD_REFUSAL_HOST:
    case HEAD_REFUSAL_CONTENT_LENGTH:
    case HEAD_REFUSAL_TRANSFER_ENCODING:
    case HEAD_REFUSAL_STATUS:
    case HEAD_REFUSAL_UPGRADE:
    case HEAD_REFUSAL_FORWARDED_FOR:
    case HEAD_REFUSAL_COUNT: break;
    }
    return REPLY_DECODE_ERROR;
}

static void count_refusal(struct worker *w, enum head_refusal r)
{
    metrics_add(w->metrics, METRIC_BAD_REQUESTS, r, 1);
    if (r == HEAD_REFUSAL_TARGET_TOO_LONG) metrics_add(w->metrics, METRIC_LIMITS_HIT, LIMIT_TARGET, 1);
    if (r == HEAD_REFUSAL_HEAD_TOO_LARGE) metrics_add(w->metrics, METRIC_LIMITS_HIT, LIMIT_HEAD, 1);
    if (r == HEAD_REFUSAL_TOO_MANY_FIELDS) metrics_add(w->metrics, METRIC_LIMITS_HIT, LIMIT_HEADER_COUNT, 1);
}

static void refuse(struct exchange *x, enum head_refusal why)
{
    count_refusal(exchange_worker(x), why);
    x->refusal = (uint8_t)why;
    x->keep_alive = false;
    exchange_reply(x, reply_of_refusal(why), END_CLIENT, PHASE_REQUEST_HEAD);
}

/* Closes without an answer: there is no memory for one. */
static void give_up(struct conn *c)
{
    metrics_add(c->worker->metrics, METRIC_LIMITS_HIT, LIMIT_MEMORY, 1);
    conn_blame(c, END_GATEWAY);
    conn_close(c);
}

void exchange_refuse(struct conn *c, size_t n, enum head_refusal why)
{
    struct exchange *x = exchange_create(c);
    if (!x) {
        give_up(c);
        return;
    }
    x->bytes_in = n;
    refuse(x, why);
}

void exchange_refuse_late(struct conn *c)
{
    struct exchange *x = exchange_create(c);
    if (!x) {
        give_up(c);
        return;
    }
    x->bytes_in = input_rest(c->input).n;
    exchange_reply(x, REPLY_REQUEST_TIMEOUT, END_TIMEOUT, PHASE_REQUEST_HEAD);
}

void exchange_count_lost_head(struct conn *c)
{
    metrics_add2(c->worker->metrics, METRIC_ENDS, END_CLIENT, PHASE_REQUEST_HEAD, 1);
}

/* --- decision -------------------------------------------------------------------------------------- */

/* Fills in the decision, from the verdict cache of the connection when nothing has changed. The cache has no
 * token digest, which a tunnel needs to be decided again later: an upgrade is always looked up. */
static void decide_request(struct conn *c, const struct decide_query *q, enum route route, struct decision *d)
{
    struct worker *w = c->worker;
    if (route != ROUTE_WS && verdict_cache_find(c->verdict, q, policy_generation(w->policy), d)) {
        metrics_add(w->metrics, METRIC_VERDICT_CACHE_HITS, 0, 1);
        return;
    }
    decide(w->policy, w->hasher, q, d);
    metrics_add(w->metrics, METRIC_VERDICT_CACHE_MISSES, 0, 1);
    verdict_cache_keep(&c->verdict, q, d);
}

enum reply_id admission_reply_of(enum verdict v)
{
    switch (v) {
    case VERDICT_ALLOW: return REPLY_NONE;
    case VERDICT_NOT_FOUND: return REPLY_NOT_FOUND;
    case VERDICT_UNAVAILABLE: return REPLY_UNAVAILABLE;
    case VERDICT_MISSING_TOKEN: return REPLY_MISSING_TOKEN;
    case VERDICT_INVALID_TOKEN: return REPLY_INVALID_TOKEN;
    case VERDICT_FORBIDDEN_ORIGIN: return REPLY_FORBIDDEN_ORIGIN;
    case VERDICT_RATE_LIMITED: return REPLY_RATE_LIMITED;
    case VERDICT_FAULT: return REPLY_INTERNAL_ERROR;
    }
    return REPLY_INTERNAL_ERROR;
}

static void note_decision(struct exchange *x, const struct decide_query *q, const struct decision *d)
{
    x->has_env = q->has_environment;
    x->env = (uint8_t)q->env;
    x->deny = (uint8_t)d->deny;
    x->slot = (uint8_t)d->slot;
    x->partner = d->partner;
    if (d->deny || x->route == ROUTE_WS) memcpy(x->digest, d->digest, TOKEN_DIGEST_BYTES);
}

/* Decides, and finds the view that belongs to it. */
static const struct partner_view *decide_with_view(struct conn *c, const struct decide_query *q,
                                                   enum route route, struct decision *d)
{
    struct worker *w = c->worker;
    decide_request(c, q, route, d);
    const struct partner_view *view = policy_view(w->policy, d->partner);
    if (d->deny || view) return view;
    decide(w->policy, w->hasher, q, d); /* replaced between the two look-ups: decide on what is there now */
    view = policy_view(w->policy, d->partner);
    if (!d->deny && !view) d->deny = DENY_TOKEN_UNKNOWN; /* removed */
    return view;
}

/* For `proofctl explain --request-id`. */
static void note_denial(const struct exchange *x, const struct req_head *req)
{
    struct worker *w = exchange_worker(x);
    struct denial *d = denials_next(&w->denials);
    d->wall_ms = w->loop.wall_ms;
    d->caller = conn_caller(x->conn);
    d->partner = x->partner;
    d->deny = x->deny;
    d->route = x->route;
    d->has_digest = x->deny >= DENY_TOKEN_UNKNOWN && x->deny <= DENY_TUNNELS;
    if (d->has_digest) memcpy(d->digest, x->digest, TOKEN_DIGEST_BYTES);
    d->has_certificate = x->conn->client_certificate != NULL;
    if (d->has_certificate) memcpy(d->certificate, x->conn->client_certificate, sizeof d->certificate);
    memcpy(d->request_id, x->request_id, UUID_LEN);
    d->nhost = denial_keep(d->host, DENIAL_HOST_MAX, req->host);
    d->npath = denial_keep(d->path, DENIAL_PATH_MAX, req->parts.path);
}

static enum limit_id limit_of_deny(enum deny d)
{
    if (d == DENY_RATE) return LIMIT_RATE_PER_PARTNER;
    return d == DENY_TUNNELS ? LIMIT_TUNNELS_PER_PARTNER : LIMIT_CONCURRENCY_PER_PARTNER;
}

/* Counts a request that is let in against the limits of its partner. Comes last, so that a request that is
 * refused for another reason neither learns of limits nor uses them up. */
static void apply_partner_limits(struct exchange *x, const struct partner_view *view)
{
    struct worker *w = exchange_worker(x);
    const struct partner_rules *rules = &x->conn->settings->partner_rules;
    enum partner_place as = x->route == ROUTE_WS ? PARTNER_PLACE_TUNNEL : PARTNER_PLACE_REQUEST;
    if (!partner_rules_concern(rules, as)) return;
    struct partner_admission a = partner_limits_admit(w->limits, rules, x->partner, as, w->loop.now_us);
    x->place = (uint8_t)a.place;
    if (a.is_uncounted) metrics_add(w->metrics, METRIC_LIMITS_HIT, LIMIT_MEMORY, 1);
    if (!a.deny) return;
    const uint8_t *digest = partner_view_digest(view, (enum token_slot)x->slot);
    if (digest) memcpy(x->digest, digest, TOKEN_DIGEST_BYTES); /* a remembered verdict has none */
    x->deny = (uint8_t)a.deny;
    x->retry_after_s = a.retry_after_s;
    metrics_add(w->metrics, METRIC_LIMITS_HIT, limit_of_deny(a.deny), 1);
}

/* Decides; answers a denial. True when the request is let in, with the partner's view. */
static bool let_in(struct exchange *x, const struct req_head *req, const struct partner_view **view)
{
    struct conn *c = x->conn;
    struct worker *w = c->worker;
    struct decision d;
    enum environment env = ENV_PRODUCTION;
    bool has_env = config_find_host(c->settings->config, req->host, &env);
    bool is_misdirected = c->stream.tls && has_env && !stream_covers_host(&c->stream, req->host);
    const struct decide_query q = {
        .has_route = req->parts.route != ROUTE_NONE,
        .has_environment = has_env,
        .is_misdirected = is_misdirected,
        .env = env,
        .nauthorization = req->nauthorization,
        .authorization = req->authorization,
        .certificate = c->client_certificate,
        .source = conn_address(c),
        .wall_ms = w->loop.wall_ms,
    };
    x->route = (uint8_t)req->parts.route;
    *view = decide_with_view(c, &q, req->parts.route, &d);
    note_decision(x, &q, &d);
    if (*view) {
        struct span id = partner_view_id(*view);
        const char *copy = arena_dup(&x->arena, id.p, id.n);
        x->partner_id = span_of(copy, copy ? id.n : 0);
    }
    if (!x->deny) apply_partner_limits(x, *view);
    if (!x->deny) return true;
    note_denial(x, req);
    metrics_add2(w->metrics, METRIC_AUTH_DENIED, x->deny, has_env ? env : (unsigned)METRICS_ENV_NONE, 1);
    exchange_reply(x, admission_reply_of(deny_verdict((enum deny)x->deny)), END_GATEWAY, PHASE_DECIDE);
    return false;
}

/* --- start ----------------------------------------------------------------------------------------- */

static void note_request(struct exchange *x, const struct req_head *req, size_t n)
{
    struct worker *w = exchange_worker(x);
    struct conn *c = x->conn;
    uint64_t requests_max = c->settings->config->limits.requests_per_connection;
    x->bytes_in = n;
    x->method = (uint8_t)req->method;
    x->minor = req->minor;
    x->keep_alive = req->keep_alive;
    x->expect_continue = req->expect_continue;
    x->req = req->body == BODY_NONE ? SIDE_DONE : SIDE_BODY;
    x->body_since_ms = w->loop.now_ms;
    body_reader_init(&x->req_body, req->body, req->content_length, &c->settings->body_limits);
    if (!x->keep_alive || worker_is_draining(w)) c->close_after = true;
    if (requests_max && c->nrequests >= requests_max) {
        c->close_after = true;
        metrics_add(w->metrics, METRIC_LIMITS_HIT, LIMIT_REQUESTS_PER_CONNECTION, 1);
    }
    if (req->naliases) metrics_add(w->metrics, METRIC_ALIAS_FIELDS_DROPPED, 0, req->naliases);
}

static void note_path(struct exchange *x, struct span path)
{
    size_t n = path.n < LOG_PATH_MAX ? path.n : LOG_PATH_MAX;
    const char *copy = arena_dup(&x->arena, path.p, n);
    x->path = span_of(copy, copy ? n : 0);
}

/* Checks that come after the token and before the backend. True when the request may go on. */
static bool may_forward(struct exchange *x, const struct req_head *req)
{
    struct worker *w = exchange_worker(x);
    struct span key;
    if (req->body == BODY_LENGTH && req->content_length > x->conn->settings->config->limits.body_bytes) {
        metrics_add(w->metrics, METRIC_LIMITS_HIT, LIMIT_BODY, 1);
        exchange_reply(x, REPLY_BODY_TOO_LARGE, END_GATEWAY, PHASE_REQUEST_HEAD);
        return false;
    }
    if (x->route != ROUTE_WS) return true;
    if (!ws_is_upgrade_request(req, &key)) {
        exchange_reply(x, REPLY_UPGRADE_REQUIRED, END_GATEWAY, PHASE_REQUEST_HEAD);
        return false;
    }
    bool is_full = w->ntunnels[ENV_PRODUCTION] + w->ntunnels[ENV_SANDBOX] + w->nupgrades >=
                   x->conn->settings->config->limits.tunnels_per_worker;
    if (is_full || worker_is_draining(w)) {
        if (is_full) metrics_add(w->metrics, METRIC_LIMITS_HIT, LIMIT_TUNNELS_PER_WORKER, 1);
        exchange_reply(x, REPLY_UNAVAILABLE, END_GATEWAY, PHASE_REQUEST_HEAD);
        return false;
    }
    memcpy(x->ws_key, key.p, WS_KEY_LEN);
    x->upgrade = true;
    w->nupgrades++;
    return true;
}

/* Writes the head for the backend into the arena. Errors: ERR_LIMIT, ERR_NOMEM. */
static enum err rewrite_head(struct exchange *x, const struct req_head *req, const struct partner_view *view)
{
    struct worker *w = exchange_worker(x);
    char client[ADDR_TEXT_MAX];
    size_t nclient = addr_format(conn_address(x->conn), client);
    const struct forward_identity id = {
        .request_id = span_of(x->request_id, UUID_LEN),
        .client = span_of(client, nclient),
        .proto = x->conn->stream.tls ? SPAN("https") : SPAN("http"),
        .env = (enum environment)x->env,
        .slot = (enum token_slot)x->slot,
        .partner = view,
    };
    struct outbuf o = outbuf_of(w->out, w->out_bytes);
    forward_request(&o, req, x->upgrade, &x->conn->settings->config->identity, &id);
    if (o.overflow) return ERR_LIMIT;
    x->head = span_of(arena_dup(&x->arena, o.p, o.n), o.n);
    return x->head.p ? ERR_OK : ERR_NOMEM;
}

/* A tunnel takes its connection away for good, so it gets a fresh one; a request that cannot be sent twice,
 * for its method or because its body is not kept, gets one that was checked. */
static enum lease first_lease(const struct exchange *x)
{
    if (x->upgrade) return LEASE_FRESH;
    bool may_repeat = x->req == SIDE_DONE && method_is_idempotent((enum http_method)x->method);
    return may_repeat ? LEASE_ANY : LEASE_CHECKED;
}

/* On a listener with forwarded_for: whom the request names. `*refusal` is set when it does so badly. Errors:
 * ERR_NOMEM. */
static enum err find_caller(struct conn *c, const struct req_head *req, enum head_refusal *refusal)
{
    if (!c->listener->config->forwarded_for) return ERR_OK;
    struct caller caller = conn_caller(c);
    if (!caller_read_forwarded_for(c->listener->config, req, &caller)) *refusal = HEAD_REFUSAL_FORWARDED_FOR;
    return caller.origin == CALLER_X_FORWARDED_FOR ? conn_name_caller(c, &caller) : ERR_OK;
}

/* A good request that cannot be handled: ERR_LIMIT, rewritten it is too large; else memory is out. */
static void fail(struct exchange *x, enum err e)
{
    bool is_large = e == ERR_LIMIT;
    metrics_add(exchange_worker(x)->metrics, METRIC_LIMITS_HIT, is_large ? LIMIT_HEAD : LIMIT_MEMORY, 1);
    exchange_reply(x, is_large ? REPLY_HEADERS_TOO_LARGE : REPLY_UNAVAILABLE, END_GATEWAY,
                   PHASE_REQUEST_HEAD);
}

void exchange_start(struct conn *c, const char *head, size_t n)
{
    struct worker *w = c->worker;
    struct req_head *req = &w->req;
    const struct partner_view *view;
    struct exchange *x = exchange_create(c);
    if (!x) {
        give_up(c);
        return;
    }
    enum head_refusal refusal = http_parse_request(w->parser, head, n, &c->settings->head_limits, req);
    note_request(x, req, n);
    enum err e = ERR_OK;
    if (!refusal) e = find_caller(c, req, &refusal);
    if (refusal) {
        refuse(x, refusal);
        return;
    }
    note_path(x, req->parts.path);
    if (e) {
        fail(x, e);
        return;
    }
    if (!let_in(x, req, &view) || !may_forward(x, req)) return;
    e = rewrite_head(x, req, view);
    if (e)
        fail(x, e);
    else
        exchange_lease(x, first_lease(x));
}
