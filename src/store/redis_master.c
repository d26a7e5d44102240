#include "store/redis_master.h"

#include "store/redis_sentinel.h"

#include <stdlib.h>

_Static_assert((int)CONFIG_SENTINELS_MAX <= (int)REDIS_SENTINELS_MAX, "more Sentinels than can be asked");

/* One configured address. */
struct place {
    struct redis_master *owner;
    bool is_name;
    struct socket_address address; /* when it is no name */
    struct resolver resolver;      /* when it is one */
};

struct redis_master {
    struct loop *loop;                 /* borrowed */
    const struct config_redis *config; /* borrowed */
    redis_master_fn on_answer;
    void *user;
    struct redis_sentinel *sentinel; /* owned; NULL = the one place is the server */
    struct place *places;            /* owned */
    uint32_t nplaces;
    uint32_t turn;  /* which address of the name comes next */
    uint32_t nopen; /* resolvers that are not closed */
    void (*on_closed)(void *arg);
    void *on_closed_arg;
};

static void on_resolved(struct resolver *r, const struct address_list *list)
{
    (void)r, (void)list; /* looked up when it is needed */
}

static enum err place_open(struct place *p, struct redis_master *m, const struct endpoint *e)
{
    p->owner = m;
    p->is_name = e->kind == ENDPOINT_NAME;
    if (e->kind == ENDPOINT_UNIX) return socket_address_unix(e->host, &p->address);
    if (e->kind == ENDPOINT_IP) p->address = socket_address_ip(&e->addr, e->port);
    if (p->is_name) {
        resolver_open(&p->resolver, m->loop, e->host, e->port, on_resolved, p);
        m->nopen++;
    }
    return ERR_OK;
}

/* The address to try now; NULL when the name has none so far. */
static const struct socket_address *place_address(const struct place *p, uint32_t turn)
{
    if (!p->is_name) return &p->address;
    const struct address_list *list = &p->resolver.last;
    return list->n ? &list->addresses[turn % list->n] : NULL;
}

static void on_sentinel(struct redis_sentinel *s, enum err e, const struct socket_address *master,
                        const char *cause, void *user)
{
    struct redis_master *m = user;
    (void)s;
    m->on_answer(e, master, cause, m->user);
}

static enum err open_sentinel(struct redis_master *m)
{
    const struct redis_sentinel_options o = {.master_name = m->config->sentinel_master,
                                             .user = m->config->sentinel_user,
                                             .password_file = m->config->sentinel_password_file,
                                             .tls = &m->config->tls,
                                             .client_name = "proofgw",
                                             .timeout_ms = m->config->connect_timeout_ms};
    return redis_sentinel_open(m->loop, &o, on_sentinel, m, &m->sentinel);
}

static enum err open_places(struct redis_master *m)
{
    bool is_direct = m->config->sentinel_master == NULL;
    uint32_t n = is_direct ? 1 : m->config->nsentinels;
    m->places = calloc(n, sizeof *m->places);
    if (!m->places) return ERR_NOMEM;
    for (; m->nplaces < n; m->nplaces++) {
        const struct endpoint *e =
            is_direct ? &m->config->address : &m->config->sentinels[m->nplaces].address;
        enum err err = place_open(&m->places[m->nplaces], m, e);
        if (err) return err;
    }
    return is_direct ? ERR_OK : open_sentinel(m);
}

enum err redis_master_open(struct loop *l, const struct config_redis *config, redis_master_fn on_answer,
                           void *user, struct redis_master **out)
{
    struct redis_master *m = calloc(1, sizeof *m);
    if (!m) return ERR_NOMEM;
    m->loop = l;
    m->config = config;
    m->on_answer = on_answer;
    m->user = user;
    enum err e = open_places(m);
    if (e) {
        redis_master_close(m, NULL, NULL);
        return e;
    }
    *out = m;
    return ERR_OK;
}

enum err redis_master_ask(struct redis_master *m, struct socket_address *out)
{
    if (!m->sentinel) {
        const struct socket_address *a = place_address(&m->places[0], m->turn++);
        if (!a) return ERR_NOT_FOUND;
        *out = *a;
        return ERR_OK;
    }
    struct socket_address list[REDIS_SENTINELS_MAX];
    const char *names[REDIS_SENTINELS_MAX];
    size_t n = 0;
    for (uint32_t i = 0; i < m->nplaces; i++) {
        const struct socket_address *a = place_address(&m->places[i], m->turn);
        if (!a) continue;
        names[n] = m->places[i].is_name ? m->config->sentinels[i].address.host : NULL;
        list[n++] = *a;
    }
    m->turn++;
    if (n == 0) return ERR_NOT_FOUND;
    (void)redis_sentinel_ask(m->sentinel, list, names, n); /* a round that is under way answers as well */
    return ERR_AGAIN;
}

const char *redis_master_name(const struct redis_master *m)
{
    const struct endpoint *e = &m->config->address;
    return !m->sentinel && e->kind == ENDPOINT_NAME ? e->host : NULL;
}

void redis_master_distrust(struct redis_master *m)
{
    if (m->sentinel) redis_sentinel_distrust(m->sentinel);
}

bool redis_master_may_move(const struct redis_master *m)
{
    return m->sentinel != NULL;
}

static void release_if_closed(struct redis_master *m)
{
    if (m->nopen > 0) return;
    void (*on_closed)(void *arg) = m->on_closed;
    void *arg = m->on_closed_arg;
    free(m->places);
    free(m);
    if (on_closed) on_closed(arg);
}

static void on_resolver_closed(struct resolver *r)
{
    struct place *p = r->user;
    p->owner->nopen--;
    release_if_closed(p->owner);
}

void redis_master_close(struct redis_master *m, void (*on_closed)(void *arg), void *arg)
{
    m->on_closed = on_closed;
    m->on_closed_arg = arg;
    redis_sentinel_close(m->sentinel);
    m->sentinel = NULL;
    m->nopen++; /* until all were asked to close */
    for (uint32_t i = 0; i < m->nplaces; i++)
        if (m->places[i].is_name) resolver_close(&m->places[i].resolver, on_resolver_closed);
    m->nopen--;
    release_if_closed(m);
}
