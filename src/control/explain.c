#include "control/explain.h"

#include "base/clock.h"
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

static void write_list(const struct findings *f, enum environment env, struct outbuf *o)
{
    char text[CIDR_TEXT_MAX];
    struct cidr c;
    bool has = partner_view_allows(f->view, env, &f->query->source);
    outbuf_fmt(o, "{\"environment\":\"%s\",\"contains\":%s", environment_name(env), has ? "true" : "false");
    if (find_closest(f->view, env, &f->query->source, &c)) {
        (void)cidr_format(&c, text);
        outbuf_fmt(o, ",\"%s\":\"%s\"", has ? "entry" : "nearest", text);
    } else {
        outbuf_fmt(o, ",\"empty\":%s", partner_view_list(f->view, env) ? "false" : "true");
    }
    outbuf_char(o, '}');
}

/* --- steps ----------------------------------------------------------------------------------------- */

/* Whether the check was passed, failed, or not reached because an earlier one had failed. */
static const char *result_of(const struct findings *f, enum deny first, enum deny last)
{
    enum deny deny = f->decision.deny;
    if (deny == DENY_NONE || deny > last) return "passed";
    return deny >= first ? "failed" : "not reached";
}

static void begin_step(struct outbuf *o, const char *name, const char *result)
{
    outbuf_fmt(o, ",{\"check\":\"%s\",\"result\":\"%s\"", name, result);
}

static void write_address(const struct findings *f, const struct config_limits *l, struct outbuf *o)
{
    char text[ADDR_TEXT_MAX];
    (void)addr_format(&f->query->source, text);
    outbuf_fmt(o, "{\"check\":\"caller\",\"result\":\"known\",\"address\":\"%s\"", text);
    if (f->query->seen) {
        (void)addr_format(&f->query->seen->peer, text);
        outbuf_str(o, ",\"believed_from\":");
        outbuf_json(o, caller_origin_names[f->query->seen->origin]);
        outbuf_fmt(o, ",\"peer\":\"%s\"", text);
    }
    outbuf_fmt(o, ",\"connections_open\":%u,\"connections_per_source\":%u}", f->connections,
               l->connections_per_source);
}

static void write_route(const struct findings *f, struct outbuf *o)
{
    static const char *const names[] = {[ROUTE_NONE] = "none", [ROUTE_WIDGET] = "widget", [ROUTE_WS] = "ws"};
    begin_step(o, "route", result_of(f, DENY_NO_ROUTE, DENY_NO_ROUTE));
    outbuf_str(o, ",\"path\":");
    outbuf_json(o, f->query->path);
    outbuf_fmt(o, ",\"route\":\"%s\"}", names[f->route]);
}

static void write_environment(const struct findings *f, struct outbuf *o)
{
    begin_step(o, "environment", result_of(f, DENY_NO_HOST, DENY_OTHER_CERTIFICATE));
    outbuf_str(o, ",\"host\":");
    outbuf_json(o, f->query->host);
    outbuf_fmt(o, ",\"environment\":\"%s\"}", f->has_env ? environment_name(f->env) : "none");
}

static void write_data(const struct findings *f, struct outbuf *o)
{
    begin_step(o, "partner_data", result_of(f, DENY_NO_POLICY, DENY_NO_POLICY));
    outbuf_fmt(o, ",\"policy_generation\":%llu}", (unsigned long long)f->decision.generation);
}

static void write_token(const struct findings *f, struct outbuf *o)
{
    begin_step(o, "token", result_of(f, DENY_TOKEN_MISSING, DENY_PARTNER_DISABLED));
    if (f->view) {
        outbuf_str(o, ",\"partner_id\":");
        outbuf_json(o, partner_view_id(f->view));
        outbuf_fmt(o, ",\"enabled\":%s,\"slot\":\"%s\"", f->view->enabled ? "true" : "false",
                   token_slot_name(f->decision.slot));
    }
    if (f->view && f->decision.slot == SLOT_PREVIOUS) {
        char text[CLOCK_RFC3339_LEN];
        clock_rfc3339(partner_view_previous_expires_ms(f->view), text);
        outbuf_fmt(o, ",\"valid_until\":\"%.*s\"", CLOCK_RFC3339_LEN, text);
    }
    outbuf_char(o, '}');
}

static void write_certificate(const struct findings *f, struct outbuf *o)
{
    begin_step(o, "certificate", result_of(f, DENY_CLIENT_CERTIFICATE, DENY_CLIENT_CERTIFICATE));
    outbuf_fmt(o, ",\"shown\":%s", f->query->certificate ? "true" : "false");
    if (f->view) outbuf_fmt(o, ",\"accepted\":%u", (unsigned)f->view->certificates);
    outbuf_char(o, '}');
}

static void write_allowlist(const struct findings *f, struct outbuf *o)
{
    begin_step(o, "allowlist", result_of(f, DENY_ADDRESS, DENY_ADDRESS));
    if (f->view) {
        outbuf_str(o, ",\"lists\":[");
        write_list(f, ENV_PRODUCTION, o);
        outbuf_char(o, ',');
        write_list(f, ENV_SANDBOX, o);
        outbuf_fmt(o, "],\"on_some_list\":{\"production\":%s,\"sandbox\":%s}",
                   policy_source_known(f->policy, ENV_PRODUCTION, &f->query->source) ? "true" : "false",
                   policy_source_known(f->policy, ENV_SANDBOX, &f->query->source) ? "true" : "false");
    }
    outbuf_char(o, '}');
}

static void write_limits(const struct findings *f, const struct config_limits *l, struct outbuf *o)
{
    begin_step(o, "limits", result_of(f, DENY_RATE, DENY_TUNNELS));
    if (f->view)
        outbuf_fmt(o, ",\"requests_under_way\":%u,\"tunnels_open\":%u", f->usage.requests, f->usage.tunnels);
    outbuf_fmt(o,
               ",\"rate_per_partner\":%u,\"burst_per_partner\":%u,\"concurrency_per_partner\":%u,"
               "\"tunnels_per_partner\":%u}",
               l->rate_per_partner, l->burst_per_partner, l->concurrency_per_partner, l->tunnels_per_partner);
}

static void write_answer(enum deny deny, struct outbuf *o)
{
    enum reply_id id = admission_reply_of(deny_verdict(deny));
    outbuf_fmt(o, "\"allowed\":%s,\"reason\":\"%s\",\"status\":", deny ? "false" : "true", deny_text(deny));
    if (id == REPLY_NONE) {
        outbuf_str(o, "null,\"answer\":null");
        return;
    }
    const struct reply_def *def = reply_def(id);
    outbuf_fmt(o, "%u,\"answer\":{\"error\":\"%s\",\"code\":\"%s\",\"message\":\"%s\"}",
               (unsigned)def->status, def->error, def->code, def->message);
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
                        const struct explain_query *q, struct outbuf *o)
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
    write_answer(f.decision.deny, o);
    outbuf_str(o, ",\"steps\":[");
    write_address(&f, &config->limits, o);
    write_route(&f, o);
    write_environment(&f, o);
    write_data(&f, o);
    write_token(&f, o);
    write_certificate(&f, o);
    write_allowlist(&f, o);
    write_limits(&f, &config->limits, o);
    outbuf_char(o, ']');
    return f.decision.deny;
}
