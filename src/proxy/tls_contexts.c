#include "proxy/tls_contexts.h"

void tls_contexts_deinit(struct tls_contexts *t)
{
    for (uint32_t i = 0; i < CONFIG_LISTENERS_MAX; i++)
        tls_server_unref(t->listeners[i].server);
    for (unsigned e = 0; e < ENV_COUNT; e++)
        tls_client_unref(t->backends[e].client);
    tls_tickets_unref(t->tickets);
    *t = (struct tls_contexts){0};
}
