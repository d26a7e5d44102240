#include "control/backend.h"

#include "base/container.h"
#include "base/log.h"
#include "base/outbuf.h"

#include <stdlib.h>

static void log_addresses(const struct backend *b)
{
    char address[ADDR_TEXT_MAX + sizeof "[]:65535"], text[RESOLVER_ADDRESSES_MAX * sizeof address];
    struct outbuf o = outbuf_of(text, sizeof text);
    if (!log_enabled(LOG_DEBUG)) return;
    for (uint32_t i = 0; i < b->addresses.n; i++) {
        socket_address_format(&b->addresses.addresses[i], address, sizeof address);
        if (i) outbuf_str(&o, ",");
        outbuf_str(&o, address);
    }
    log_debug("backend_addresses", KV_STR("env", environment_name(b->env)), KV_STR("host", b->endpoint.host),
              KV_SPAN("addresses", span_of(o.p, o.n)));
}

static void on_resolved(struct resolver *r, const struct address_list *list)
{
    struct backend *b = CONTAINER_OF(r, struct backend, resolver);
    b->addresses = *list;
    log_addresses(b);
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
