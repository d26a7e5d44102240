#include "control/backend.h"

#include "base/container.h"

#include <stdlib.h>

static void on_resolved(struct resolver *r, const struct address_list *list)
{
    struct backend *b = CONTAINER_OF(r, struct backend, resolver);
    b->addresses = *list;
    b->on_addresses(b);
}

struct backend *backend_create(struct loop *loop, enum environment env, const struct endpoint *e,
                               void (*on_addresses)(struct backend *b), void *arg)
{
    struct backend *b = calloc(1, sizeof *b);
    if (!b) return NULL;
    b->endpoint = *e;
    b->env = env;
    b->on_addresses = on_addresses;
    b->arg = arg;
    if (e->kind == ENDPOINT_NAME) {
        resolver_open(&b->resolver, loop, b->endpoint.host, e->port, on_resolved, b);
        return b;
    }
    b->addresses.n = 1;
    if (e->kind == ENDPOINT_IP)
        b->addresses.addresses[0] = socket_address_ip(&e->addr, e->port);
    else /* cannot fail: endpoint_parse() has checked the length of the path */
        BUG_IF(socket_address_unix(e->host, &b->addresses.addresses[0]), "the path of a socket is too long");
    return b;
}

static void finish(struct backend *b)
{
    if (b->on_closed) b->on_closed(b);
    free(b);
}

static void on_resolver_closed(struct resolver *r)
{
    finish(CONTAINER_OF(r, struct backend, resolver));
}

void backend_close(struct backend *b, void (*on_closed)(struct backend *b))
{
    if (!b) return;
    b->on_closed = on_closed;
    if (b->endpoint.kind == ENDPOINT_NAME)
        resolver_close(&b->resolver, on_resolver_closed);
    else
        finish(b);
}
