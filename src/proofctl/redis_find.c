#include "proofctl/redis_find.h"

#include "net/resolver.h"

#include <stdio.h>

/* One attempt at finding the master. */
struct search {
    const struct config_redis *config;
    const struct redis_tls *tls;
    const struct redis_login *login;
    struct redis_link **link;
    struct redis_master_found *found;
    struct errmsg *why;
};

static enum err fail_at(const struct search *s, const char *name, enum err e, const char *text)
{
    errmsg_set(s->why, 0, 0, "%.*s: %s", 100, name, text);
    return e;
}

/* --- addresses ------------------------------------------------------------------------------------ */

static enum err list_addresses(const struct search *s, const struct endpoint *e, struct address_list *out)
{
    *out = (struct address_list){.n = 1};
    if (e->kind == ENDPOINT_UNIX) return socket_address_unix(e->host, &out->addresses[0]);
    if (e->kind == ENDPOINT_IP) {
        out->addresses[0] = socket_address_ip(&e->addr, e->port);
        return ERR_OK;
    }
    if (resolver_lookup(e->host, e->port, out) == ERR_OK) return ERR_OK;
    return fail_at(s, e->host, ERR_UNREACHABLE, "the name has no address");
}

/* What a certificate must bear when the configuration does not say: the name or address, without the port. */
static const char *host_of(const struct endpoint *e, char out[static ADDR_TEXT_MAX])
{
    if (e->kind == ENDPOINT_UNIX) return NULL;
    if (e->kind == ENDPOINT_NAME) return e->host;
    out[addr_format(&e->addr, out)] = '\0';
    return out;
}

/* --- the server ----------------------------------------------------------------------------------- */

/* ROLE answers "master", an offset, and a list of replicas. */
static enum err judge_role(const struct search *s, const char *name, const redisReply *role)
{
    bool is_role =
        role->type == REDIS_REPLY_ARRAY && role->elements > 0 && role->element[0]->type == REDIS_REPLY_STRING;
    if (!is_role) return fail_at(s, name, ERR_IO, "the answer to ROLE names no role");
    struct span text = {role->element[0]->str, role->element[0]->len};
    if (!span_eq(text, SPAN("master")))
        return fail_at(s, name, ERR_UNREACHABLE, "this is a replica, which cannot be written");
    bool has_list = role->elements > 2 && role->element[2]->type == REDIS_REPLY_ARRAY;
    s->found->nreplicas = has_list ? role->element[2]->elements : 0;
    return ERR_OK;
}

static enum err check_role(const struct search *s, const char *name, struct redis_link *link)
{
    static const char *const argv[] = {"ROLE"};
    redisReply *role;
    enum err e = redis_link_call(link, 1, argv, &role);
    if (e) return fail_at(s, name, e, redis_link_fault(link));
    e = judge_role(s, name, role);
    freeReplyObject(role);
    return e;
}

static enum err try_server(const struct search *s, const struct socket_address *a, const char *host)
{
    char name[sizeof s->found->address];
    struct errmsg why;
    const struct redis_link_options o = {
        .address = a,
        .tls = s->tls,
        .host = host,
        .user = s->login->user ? s->login->user : s->config->user,
        .password_file = s->login->password_file ? s->login->password_file : s->config->password_file,
        .connect_timeout_ms = s->config->connect_timeout_ms,
        .command_timeout_ms = s->config->command_timeout_ms,
    };
    socket_address_format(a, name, sizeof name);
    enum err e = redis_link_open(&o, s->link, &why);
    if (e) return fail_at(s, name, e, why.text);
    e = check_role(s, name, *s->link);
    if (e) redis_link_close(*s->link);
    if (!e) memcpy(s->found->address, name, sizeof name);
    return e;
}

static enum err find_directly(const struct search *s)
{
    struct address_list list;
    char text[ADDR_TEXT_MAX];
    const struct endpoint *endpoint = &s->config->address;
    enum err e = list_addresses(s, endpoint, &list);
    if (e) return e;
    for (uint32_t i = 0; i < list.n; i++) {
        const struct socket_address *a = &list.addresses[i];
        e = try_server(s, a, host_of(endpoint, text));
        if (!e) return ERR_OK;
    }
    return e;
}

/* --- Sentinels ------------------------------------------------------------------------------------ */

/* Reads an array of address and port. */
static enum err read_address(const struct search *s, const char *name, const redisReply *reply,
                             struct addr *addr, uint16_t *port)
{
    uint64_t number;
    if (reply->type == REDIS_REPLY_NIL)
        return fail_at(s, name, ERR_REFUSED, "this Sentinel knows no master of the configured name");
    bool is_pair = reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 &&
                   reply->element[0]->type == REDIS_REPLY_STRING &&
                   reply->element[1]->type == REDIS_REPLY_STRING;
    if (!is_pair || addr_parse(span_of(reply->element[0]->str, reply->element[0]->len), addr) ||
        !span_to_u64(span_of(reply->element[1]->str, reply->element[1]->len), &number) || number == 0 ||
        number > UINT16_MAX)
        return fail_at(s, name, ERR_IO, "this Sentinel does not name the master by its address");
    *port = (uint16_t)number;
    return ERR_OK;
}

static enum err ask(const struct search *s, const char *name, struct redis_link *link, struct addr *addr,
                    uint16_t *port)
{
    const char *const argv[] = {"SENTINEL", "get-master-addr-by-name", s->config->sentinel_master};
    redisReply *reply;
    enum err e = redis_link_call(link, 3, argv, &reply);
    if (e) return fail_at(s, name, e, redis_link_fault(link));
    e = read_address(s, name, reply, addr, port);
    freeReplyObject(reply);
    return e;
}

static enum err try_sentinel(const struct search *s, const struct socket_address *a, const char *host)
{
    char name[160], text[ADDR_TEXT_MAX];
    struct redis_link *link;
    struct errmsg why;
    struct addr addr;
    uint16_t port = 0; /* gcc does not see that ask() has set it */
    const struct redis_link_options o = {
        .address = a,
        .tls = s->tls,
        .host = host,
        .user = s->config->sentinel_user,
        .password_file = s->config->sentinel_password_file,
        .connect_timeout_ms = s->config->connect_timeout_ms,
        .command_timeout_ms = s->config->command_timeout_ms,
    };
    (void)snprintf(name, sizeof name, "Sentinel ");
    socket_address_format(a, name + strlen(name), sizeof name - strlen(name));
    enum err e = redis_link_open(&o, &link, &why);
    if (e) return fail_at(s, name, e, why.text);
    e = ask(s, name, link, &addr, &port);
    redis_link_close(link);
    if (e) return e;
    const struct socket_address master = socket_address_ip(&addr, port);
    text[addr_format(&addr, text)] = '\0';
    return try_server(s, &master, text);
}

static enum err find_by_sentinels(const struct search *s)
{
    enum err e = ERR_UNREACHABLE;
    for (uint32_t i = 0; i < s->config->nsentinels; i++) {
        const struct endpoint *endpoint = &s->config->sentinels[i].address;
        struct address_list list;
        char text[ADDR_TEXT_MAX];
        e = list_addresses(s, endpoint, &list);
        for (uint32_t j = 0, n = e ? 0 : list.n; j < n; j++) {
            const struct socket_address *a = &list.addresses[j];
            e = try_sentinel(s, a, host_of(endpoint, text));
            if (!e) return ERR_OK;
            if (e == ERR_NOMEM) return e;
        }
    }
    return e;
}

enum err redis_find_master(const struct config_redis *config, const struct redis_tls *tls,
                           const struct redis_login *login, struct redis_link **link,
                           struct redis_master_found *found, struct errmsg *why)
{
    const struct search s = {config, tls, login, link, found, why};
    return config->sentinel_master ? find_by_sentinels(&s) : find_directly(&s);
}
