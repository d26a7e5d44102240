#include "control/explain.h"

#include "http/reply.h"
#include "proxy/admission.h"
#include "proxy/caller.h"
#include "proxy/partner_limits.h"
#include "proxy/sources.h"

/* What the steps are written from: the question, and what decide() said. */
struct findings {
    const struct explain_query *query;
    const struct policy *policy;
    enum route route;
    bool has_env;
    enum environment env;
    struct decision decision;
    const struct partner_view *view; /* NULL: the token is nobody's, or was not looked at */
    struct partner_usage usage;      /* with a view */
    uint32_t connections;            /* that the address has open */
};

/* --- allowlists ------------------------------------------------------------------------------------ */

struct closest {
    const struct addr *address;
    struct cidr cidr;
    int common; /* leading bits that it shares with the address; -1 = none of that family yet */
};

static int leading_zeros(uint64_t v)
{
    return v ? __builtin_clzll(v) : 64;
}

static int common_bits(const struct addr *a, const struct addr *b)
{
    if (a->family == ADDR_V4) return leading_zeros((uint64_t)(a->v4 ^ b->v4) << 32 | 0x80000000u);
    int high = leading_zeros(a->v6.hi ^ b->v6.hi);
    return high < 64 ? high : 64 + leading_zeros(a->v6.lo ^ b->v6.lo);
}

static void compare(struct closest *best, const struct cidr *c)
{
    if (c->net.family != best->address->family) return;
    int common = common_bits(&c->net, best->address);
    if (common > c->len) common = c->len; /* bits beyond the prefix say nothing */
    bool is_inside = cidr_contains(c, best->address);
    if (best->common >= 0 && common <= best->common && !is_inside) return;
    best->common = common;
    best->cidr = *c;
}

/* The prefix of a list that holds the address, or else the one that comes closest. */
static bool find_closest(const struct partner_view *v, enum environment env, const struct addr *a,
                         struct cidr *out)
{
    struct closest best = {.address = a, .common = -1};
    const struct cidr_set *list = partner_view_list(v, env);
    if (!list) return false;
    struct cidr_walk w = cidr_walk_of(list);
    for (struct cidr c; cidr_walk_next(&w, &c);)
        compare(&best, &c);
    *out = best.cidr;
    return best.common >= 0;
}

static void write_list(const struct findings *f, enum environment env, struct json_out *j)
{
    char text[CIDR_TEXT_MAX];
    struct cidr c;
    bool has = partner_view_allows(f->view, env, &f->query->source);
    json_out_object(j, NULL);
    json_out_text(j, "environment", environment_name(env));
    json_out_bool(j, "contains", has);
    if (find_closest(f->view, env, &f->query->source, &c)) {
        (void)cidr_format(&c, text);
        json_out_text(j, has ? "entry" : "nearest", text);
    } else {
        json_out_bool(j, "empty", !partner_view_list(f->view, env));
    }
    json_out_end_object(j);
}

/* --- steps ----------------------------------------------------------------------------------------- */

/* Whether the check was passed, failed, or not reached because an earlier one had failed. */
static const char *result_of(const struct findings *f, enum deny first, enum deny last)
{
    enum deny deny = f->decision.deny;
    if (deny == DENY_NONE || deny > last) return "passed";
    return deny >= first ? "failed" : "not reached";
}

static void begin_step(struct json_out *j, const char *name, const char *result)
{
    json_out_object(j, NULL);
    json_out_text(j, "check", name);
    json_out_text(j, "result", result);
}

static void write_address(const struct findings *f, const struct config_limits *l, struct json_out *j)
{
    char text[ADDR_TEXT_MAX];
    begin_step(j, "caller", "known");
    (void)addr_format(&f->query->source, text);
    json_out_text(j, "address", text);
    if (f->query->seen) {
        (void)addr_format(&f->query->seen->peer, text);
        json_out_span(j, "believed_from", caller_origin_names[f->query->seen->origin]);
        json_out_text(j, "peer", text);
    }
    json_out_u64(j, "connections_open", f->connections);
    json_out_u64(j, "connections_per_source", l->connections_per_source);
    json_out_end_object(j);
}

static void write_route(const struct findings *f, struct json_out *j)
{
    static const char *const names[] = {[ROUTE_NONE] = "none", [ROUTE_WIDGET] = "widget", [ROUTE_WS] = "ws"};
    begin_step(j, "route", result_of(f, DENY_NO_ROUTE, DENY_NO_ROUTE));
    json_out_span(j, "path", f->query->path);
    json_out_text(j, "route", names[f->route]);
    json_out_end_object(j);
}

static void write_environment(const struct findings *f, struct json_out *j)
{
    begin_step(j, "environment", result_of(f, DENY_NO_HOST, DENY_OTHER_CERTIFICATE));
    json_out_span(j, "host", f->query->host);
    json_out_text(j, "environment", f->has_env ? environment_name(f->env) : "none");
    json_out_end_object(j);
}

static void write_data(const struct findings *f, struct json_out *j)
{
    begin_step(j, "partner_data", result_of(f, DENY_NO_POLICY, DENY_NO_POLICY));
    json_out_u64(j, "policy_generation", f->decision.generation);
    json_out_end_object(j);
}

static void write_token(const struct findings *f, struct json_out *j)
{
    begin_step(j, "token", result_of(f, DENY_TOKEN_MISSING, DENY_PARTNER_DISABLED));
    if (f->view) {
        json_out_span(j, "partner_id", partner_view_id(f->view));
        json_out_bool(j, "enabled", f->view->enabled);
        json_out_text(j, "slot", token_slot_name(f->decision.slot));
    }
    if (f->view && f->decision.slot == SLOT_PREVIOUS)
        json_out_time(j, "valid_until", partner_view_previous_expires_ms(f->view));
    json_out_end_object(j);
}

static void write_certificate(const struct findings *f, struct json_out *j)
{
    begin_step(j, "certificate", result_of(f, DENY_CLIENT_CERTIFICATE, DENY_CLIENT_CERTIFICATE));
    json_out_bool(j, "shown", f->query->certificate != NULL);
    if (f->view) json_out_u64(j, "accepted", f->view->certificates);
    json_out_end_object(j);
}

static void write_allowlist(const struct findings *f, struct json_out *j)
{
    const struct addr *source = &f->query->source;
    begin_step(j, "allowlist", result_of(f, DENY_ADDRESS, DENY_ADDRESS));
    if (f->view) {
        json_out_array(j, "lists");
        write_list(f, ENV_PRODUCTION, j);
        write_list(f, ENV_SANDBOX, j);
        json_out_end_array(j);
        json_out_object(j, "on_some_list");
        json_out_bool(j, "production", policy_source_known(f->policy, ENV_PRODUCTION, source));
        json_out_bool(j, "sandbox", policy_source_known(f->policy, ENV_SANDBOX, source));
        json_out_end_object(j);
    }
    json_out_end_object(j);
}

static void write_limits(const struct findings *f, const struct config_limits *l, struct json_out *j)
{
    begin_step(j, "limits", result_of(f, DENY_RATE, DENY_TUNNELS));
    if (f->view) {
        json_out_u64(j, "requests_under_way", f->usage.requests);
        json_out_u64(j, "tunnels_open", f->usage.tunnels);
    }
    json_out_u64(j, "rate_per_partner", l->rate_per_partner);
    json_out_u64(j, "burst_per_partner", l->burst_per_partner);
    json_out_u64(j, "concurrency_per_partner", l->concurrency_per_partner);
    json_out_u64(j, "tunnels_per_partner", l->tunnels_per_partner);
    json_out_end_object(j);
}

static void write_answer(enum deny deny, struct json_out *j)
{
    enum reply_id id = admission_reply_of(deny_verdict(deny));
    json_out_bool(j, "allowed", deny == DENY_NONE);
    json_out_text(j, "reason", deny_text(deny));
    if (id == REPLY_NONE) {
        json_out_null(j, "status");
        json_out_null(j, "answer");
        return;
    }
    const struct reply_def *def = reply_def(id);
    json_out_u64(j, "status", def->status);
    json_out_object(j, "answer");
    json_out_text(j, "error", def->error);
    json_out_text(j, "code", def->code);
    json_out_text(j, "message", def->message);
    json_out_end_object(j);
}

/* The limits come behind decide(), as in admission.c. */
static void find_usage(struct findings *f, const struct config *config, const struct partner_limits *limits)
{
    const struct partner_rules rules = partner_rules_of(&config->limits);
    enum partner_place as = f->route == ROUTE_WS ? PARTNER_PLACE_TUNNEL : PARTNER_PLACE_REQUEST;
    enum deny deny =
        partner_limits_foresee(limits, &rules, f->decision.partner, as, f->query->mono_us, &f->usage);
    if (!f->decision.deny) f->decision.deny = deny;
}

enum deny explain_write(const struct config *config, const struct policy *policy,
                        const struct partner_limits *limits, struct sources *sources,
                        const struct explain_query *q, struct json_out *j)
{
    struct findings f = {
        .query = q, .policy = policy, .connections = sources_connections(sources, &q->source)};
    struct target target;
    if (q->seen)
        f.route = q->route;
    else if (target_parse(q->path, &target) == ERR_OK)
        f.route = target.route;
    f.has_env = config_find_host(config, q->host, &f.env);
    const struct decide_query query = {
        .has_route = f.route != ROUTE_NONE,
        .has_environment = f.has_env,
        .is_misdirected = q->is_misdirected,
        .env = f.env,
        .digest = q->digest,
        .certificate = q->certificate,
        .source = &q->source,
        .wall_ms = q->wall_ms,
    };
    decide(policy, NULL, &query, &f.decision);
    if (f.decision.partner != PARTNER_INDEX_NONE) f.view = policy_view(policy, f.decision.partner);
    if (f.view) find_usage(&f, config, limits);
    write_answer(f.decision.deny, j);
    json_out_array(j, "steps");
    write_address(&f, &config->limits, j);
    write_route(&f, j);
    write_environment(&f, j);
    write_data(&f, j);
    write_token(&f, j);
    write_certificate(&f, j);
    write_allowlist(&f, j);
    write_limits(&f, &config->limits, j);
    json_out_end_array(j);
    return f.decision.deny;
}
