#include "config/check.h"

#include "config/value.h"

#include <stdio.h>

struct checker {
    const struct config *config;
    const struct document *doc;
    struct report *report;
};

/* The node to blame for a contradiction between two fields: the second if the file sets it, else the first.
 * NULL when one of them is faulty already (its value here is then the default), or both are defaults. */
static const struct node *blame(const struct checker *c, const void *first, const void *second)
{
    const struct node *a = document_find_field(c->doc, first), *b = document_find_field(c->doc, second);
    if ((a && a->faulty) || (b && b->faulty)) return NULL;
    return b ? b : a;
}

/* A whole head must fit into the read buffer behind the rest of the message before it. */
static void check_head(const struct checker *c, const uint64_t *head_bytes, const char *name)
{
    const uint64_t *buffer_bytes = &c->config->limits.buffer_bytes;
    const struct node *node = blame(c, buffer_bytes, head_bytes);
    if (*head_bytes <= *buffer_bytes / 2 || node == NULL) return;
    char head[VALUE_TEXT_MAX], buffer[VALUE_TEXT_MAX];
    node_report(c->report, node, "limits.%s (%s) must not exceed half of limits.buffer (%s)", name,
                value_size_text(*head_bytes, head), value_size_text(*buffer_bytes, buffer));
}

/* A limit that another one, of each of so many workers, makes unreachable. Only where the file sets both:
 * lowering one key does not oblige anybody to lower the defaults that it covers. */
static void check_reachable(const struct checker *c, const uint32_t *part, const uint32_t *whole,
                            uint32_t workers)
{
    const struct node *node = document_find_field(c->doc, part), *other = document_find_field(c->doc, whole);
    if (*part <= (uint64_t)*whole * workers || node == NULL || other == NULL || node->faulty || other->faulty)
        return;
    char times[32] = "";
    if (workers > 1) (void)snprintf(times, sizeof times, ", times %u workers", workers);
    node_report(c->report, node, "%u cannot be reached: limits.%s is %u (line %u)%s", *part, other->key->text,
                *whole, other->at.line, times);
}

static void check_limits(const struct checker *c)
{
    const struct config_limits *l = &c->config->limits;
    check_head(c, &l->head_bytes, "head");
    check_head(c, &l->response_head_bytes, "response_head");
    if (c->config->workers) /* 0: as many as there are processors, which is not in the file */
        check_reachable(c, &l->connections_per_source, &l->connections_per_worker, c->config->workers);
    check_reachable(c, &l->tunnels_per_worker, &l->connections_per_worker, 1);
    check_reachable(c, &l->upstream_idle_connections, &l->upstream_connections, 1);
}

static bool is_loopback(const struct addr *a)
{
    if (a->family == ADDR_V4) return a->v4 >> 24 == 127;
    return a->v6.hi == 0 && a->v6.lo == 1;
}

/* True when a socket bound to `a` also receives what is sent to `b`: "*" covers every address, 0.0.0.0 and
 * [::] those of their family. */
static bool covers(const struct endpoint *a, const struct endpoint *b)
{
    if (a->wildcard || addr_eq(&a->addr, &b->addr)) return true;
    if (a->addr.family != b->addr.family) return false;
    return a->addr.family == ADDR_V4 ? a->addr.v4 == 0 : (a->addr.v6.hi | a->addr.v6.lo) == 0;
}

/* True when the two cannot both be bound. */
static bool is_same_place(const struct endpoint *listener, const struct endpoint *e)
{
    if (listener->kind != e->kind || e->kind == ENDPOINT_NONE) return false;
    if (e->kind == ENDPOINT_UNIX) return strcmp(listener->host, e->host) == 0;
    if (listener->port != e->port || e->port == 0) return false;
    return covers(listener, e) || covers(e, listener);
}

/* True when connecting to `e` reaches the listener for certain: the gateway would be its own backend. */
static bool leads_to(const struct endpoint *listener, const struct endpoint *e)
{
    if (!is_same_place(listener, e)) return false;
    return e->kind == ENDPOINT_UNIX || addr_eq(&listener->addr, &e->addr) || is_loopback(&e->addr);
}

/* Reports `text` at `e` when it collides with one of the first `n` listeners. */
static void check_collision(const struct checker *c, const struct endpoint *e, uint32_t n,
                            bool (*collides)(const struct endpoint *, const struct endpoint *),
                            const char *text)
{
    for (uint32_t i = 0; i < n; i++) {
        const struct endpoint *listener = &c->config->listeners[i].address;
        const struct node *node = collides(listener, e) ? blame(c, listener, e) : NULL;
        if (node == NULL) continue;
        const struct node *first = document_find_field(c->doc, listener);
        node_report(c->report, node, "%s", text);
        if (first && first != node)
            report_expected(c->report, "the listener \"%s\" is in line %u", listener->text, first->at.line);
        return;
    }
}

static void check_admin(const struct checker *c)
{
    const struct endpoint *admin = &c->config->admin.address;
    check_collision(c, admin, c->config->nlisteners, is_same_place,
                    "partners' traffic and administration cannot share an address");
    const struct node *node = document_find_field(c->doc, admin);
    if (node == NULL || node->faulty || admin->kind != ENDPOINT_IP || is_loopback(&admin->addr)) return;
    node_report(c->report, node,
                "the admin listener has no login: it may not be reachable from other machines");
    report_expected(c->report, "write 127.0.0.1:%u, [::1]:%u or unix:/run/proofgw/admin.sock", admin->port,
                    admin->port);
}

static void check_endpoints(const struct checker *c)
{
    const struct config *config = c->config;
    for (uint32_t i = 1; i < config->nlisteners; i++)
        check_collision(c, &config->listeners[i].address, i, is_same_place,
                        "another listener has this address and port already");
    for (unsigned e = 0; e < ENV_COUNT; e++)
        check_collision(c, &config->environments[e].upstream, config->nlisteners, leads_to,
                        "this is a listener of the gateway itself: requests would go round in a circle");
    check_admin(c);
}

static void check_hosts(const struct checker *c)
{
    const struct config_environment *production = &c->config->environments[ENV_PRODUCTION];
    const struct config_environment *sandbox = &c->config->environments[ENV_SANDBOX];
    for (uint32_t i = 0; i < sandbox->nhosts; i++) {
        for (uint32_t j = 0; j < production->nhosts; j++) {
            if (strcmp(sandbox->hosts[i], production->hosts[j]) != 0) continue;
            const struct node *node = document_find_field(c->doc, &sandbox->hosts[i]);
            const struct node *other = document_find_field(c->doc, &production->hosts[j]);
            node_report(c->report, node,
                        "\"%s\" is a host of production already (line %u): a host has one environment",
                        sandbox->hosts[i], other->at.line);
        }
    }
}

/* Why a request field cannot be removed, or NULL. */
static const char *removal_problem(struct span name)
{
    static const struct span handshake = SPAN("sec-websocket-");
    enum field_id id = field_find(name);
    if (id == FIELD_HOST) return "every request needs its Host field";
    if (span_starts(name, handshake) || id == FIELD_UPGRADE)
        return "tunnels could not be opened without this field";
    switch (field_class_of(id)) {
    case FIELD_CLASS_FRAMING: return "the gateway writes this field itself: without it a body has no end";
    case FIELD_CLASS_HOP: return "this field belongs to one connection and is never passed on anyway";
    case FIELD_CLASS_IDENTITY:
    case FIELD_CLASS_END_TO_END: return NULL;
    }
    return NULL;
}

static const char *exception_problem(struct span name)
{
    if (!field_name_is_alias_prone(name))
        return "this name has no '_' and no '.': it passes without an exception";
    if (field_is_identity(field_find(name), name))
        return "some backends read this name as an identity field: it never passes";
    return NULL;
}

static void check_names(const struct checker *c, char *const *names, uint32_t n,
                        const char *(*problem)(struct span))
{
    for (uint32_t i = 0; i < n; i++) {
        const char *text = problem(span_str(names[i]));
        if (text)
            node_report(c->report, document_find_field(c->doc, &names[i]), "\"%s\": %s", names[i], text);
    }
}

static void check_fields(const struct checker *c)
{
    const struct config_identity *identity = &c->config->identity;
    check_names(c, identity->remove, identity->nremove, removal_problem);
    check_names(c, c->config->fields.alias_allowed, c->config->fields.nalias_allowed, exception_problem);
    for (uint32_t i = 0; i < identity->nremove; i++)
        if (identity->pass_authorization && strcmp(identity->remove[i], "authorization") == 0)
            node_report(c->report, document_find_field(c->doc, &identity->remove[i]),
                        "identity.pass_authorization says the opposite: keep one of the two");
}

/* The value of `field`, or the key `store` when the file does not set it. */
static const struct node *store_node(const struct checker *c, const void *field)
{
    const struct node *node = document_find_field(c->doc, field);
    if (node == NULL) node = document_find_field(c->doc, &c->config->store.kind)->parent;
    return node;
}

static bool is_faulty(const struct checker *c, const void *field)
{
    const struct node *node = document_find_field(c->doc, field);
    return node && node->faulty;
}

/* The server must be named exactly once: by its address or through Sentinels. */
static void check_redis_server(const struct checker *c)
{
    const struct config_redis *r = &c->config->store.redis;
    if (is_faulty(c, &r->address) || is_faulty(c, &r->sentinel_master)) return;
    if (r->address.kind == ENDPOINT_NONE && r->sentinel_master == NULL) {
        node_report(c->report, store_node(c, &r->address), "kind: redis needs to know the server");
        report_expected(c->report, "write redis: {address: \"127.0.0.1:6379\"} below it, or the Sentinels");
    } else if (r->address.kind != ENDPOINT_NONE && r->sentinel_master) {
        node_report(c->report, store_node(c, &r->sentinel_master),
                    "store.redis.address names the server already: keep one of the two");
    } else if (r->sentinel_master && r->nsentinels == 0) {
        node_report(c->report, store_node(c, &r->sentinel_master),
                    "which Sentinels shall be asked? store.redis.sentinel.addresses is missing");
    }
}

/* Redis itself and the Sentinels speak TLS over TCP only. */
static void check_redis_tls(const struct checker *c)
{
    const struct config_redis *r = &c->config->store.redis;
    if (!r->tls.enabled) return;
    if (r->address.kind == ENDPOINT_UNIX) {
        node_report(c->report, store_node(c, &r->tls.enabled), "a unix socket of Redis does not speak TLS");
        report_expected(c->report, "write store.redis.address: ADDRESS:PORT, or leave out store.redis.tls");
    }
    for (uint32_t i = 0; i < r->nsentinels; i++) {
        if (r->sentinels[i].address.kind != ENDPOINT_UNIX) continue;
        node_report(c->report, store_node(c, &r->sentinels[i].address),
                    "a unix socket of a Sentinel does not speak TLS");
        report_expected(c->report, "write address: ADDRESS:PORT, or leave out store.redis.tls");
    }
}

/* While nothing changes, the gateway has its data confirmed only every few seconds: a shorter limit would be
 * exceeded all the time. */
static void check_staleness(const struct checker *c)
{
    enum { SHORTEST_STALENESS_MS = 15000 };
    const uint64_t *ms = &c->config->store.redis.max_staleness_ms;
    if (*ms == 0 || *ms >= SHORTEST_STALENESS_MS || is_faulty(c, ms)) return;
    node_report(c->report, store_node(c, ms),
                "too short: an idle connection is checked every 5 to 8 seconds");
    report_expected(c->report, "write 15s or more, or 0s for no limit");
}

static void check_store(const struct checker *c)
{
    if (c->config->store.kind != STORE_REDIS || is_faulty(c, &c->config->store.kind)) return;
    check_redis_server(c);
    check_redis_tls(c);
    check_staleness(c);
}

/* The value of `field`, or the first key of its list entry when the file does not set it. */
static const struct node *listener_node(const struct checker *c, const struct config_listener *l,
                                        const void *field)
{
    const struct node *node = document_find_field(c->doc, field);
    return node ? node : document_find_field(c->doc, &l->address);
}

static void check_listener_tls(const struct checker *c, const struct config_listener *l)
{
    const struct config_tls *tls = &c->config->tls;
    if (l->tls && tls->ncertificates == 0) {
        node_report(c->report, listener_node(c, l, &l->tls), "TLS needs a certificate");
        report_expected(c->report,
                        "write tls: {certificates: [{chain_file: FILE, key_file: FILE}]} at the top level");
    }
    if (l->client_certificates == CLIENT_CERTIFICATES_OFF) return;
    if (!l->tls)
        node_report(c->report, listener_node(c, l, &l->client_certificates),
                    "clients can show certificates only with tls: true");
    else if (l->client_ca_file == NULL)
        node_report(c->report, listener_node(c, l, &l->client_certificates),
                    "who may have signed them? client_ca_file is missing");
}

/* A listener that believes proxies must list them; on a unix socket they have no address to list. */
static void check_listener_proxies(const struct checker *c, const struct config_listener *l)
{
    const bool *field = l->proxy_protocol ? &l->proxy_protocol : &l->forwarded_for;
    if (l->proxy_protocol && l->forwarded_for) {
        node_report(c->report, listener_node(c, l, &l->forwarded_for),
                    "proxy_protocol says who is calling already: keep one of the two");
    } else if (*field && l->ntrusted == 0 && l->address.kind == ENDPOINT_IP) {
        node_report(c->report, listener_node(c, l, field),
                    "from which load balancers? trusted_proxies is missing");
        report_expected(c->report, "write for example trusted_proxies: [10.0.0.4, 10.0.0.5]");
    }
}

static void check_listeners(const struct checker *c)
{
    for (uint32_t i = 0; i < c->config->nlisteners; i++) {
        check_listener_tls(c, &c->config->listeners[i]);
        check_listener_proxies(c, &c->config->listeners[i]);
    }
}

/* Certificate and key belong together, and a CA file is of no use without TLS. */
static void check_tls_client(const struct checker *c, const struct config_tls_client *t)
{
    const struct node *certificate = document_find_field(c->doc, &t->certificate_file);
    const struct node *key = document_find_field(c->doc, &t->key_file);
    const struct node *ca = document_find_field(c->doc, &t->ca_file);
    if (t->certificate_file && !t->key_file && certificate)
        node_report(c->report, certificate, "and its key? key_file is missing");
    if (t->key_file && !t->certificate_file && key)
        node_report(c->report, key, "a key without a certificate: certificate_file is missing");
    if (!t->enabled && t->ca_file && ca && document_find_field(c->doc, &t->enabled) == NULL)
        node_report(c->report, ca, "TLS is not enabled: write enabled: true beside it");
}

/* The path of a unix socket is no name that a certificate could be for. */
static void check_upstream_tls(const struct checker *c, const struct config_environment *env)
{
    const struct node *node = document_find_field(c->doc, &env->upstream_tls.enabled);
    if (!env->upstream_tls.enabled || env->upstream_tls.server_name || env->upstream.kind != ENDPOINT_UNIX)
        return;
    node_report(c->report, node, "which name has the certificate? upstream_tls.server_name is missing");
}

void config_check(const struct config *c, const struct document *doc, struct report *report)
{
    struct checker checker = {c, doc, report};
    check_limits(&checker);
    check_endpoints(&checker);
    check_hosts(&checker);
    check_fields(&checker);
    check_store(&checker);
    check_listeners(&checker);
    for (unsigned e = 0; e < ENV_COUNT; e++)
        check_upstream_tls(&checker, &c->environments[e]);
    for (unsigned e = 0; e < ENV_COUNT; e++)
        check_tls_client(&checker, &c->environments[e].upstream_tls);
    check_tls_client(&checker, &c->store.redis.tls);
}
