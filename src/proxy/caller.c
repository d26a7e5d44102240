#include "proxy/caller.h"

#include "http/forwarded_for.h"

#define XX(id, text) {text, sizeof(text) - 1},
const struct span caller_origin_names[CALLER_ORIGIN_COUNT] = {CALLER_ORIGIN_MAP(XX)};
#undef XX

static bool is_listed(const void *arg, const struct addr *a)
{
    const struct config_listener *l = arg;
    for (uint32_t i = 0; i < l->ntrusted; i++)
        if (cidr_contains(&l->trusted[i], a)) return true;
    return false;
}

bool caller_peer_is_trusted(const struct config_listener *l, const struct addr *peer)
{
    return l->address.kind == ENDPOINT_UNIX || is_listed(l, peer);
}

bool caller_is_proxy(const struct config_listener *l, const struct caller *c)
{
    return (l->proxy_protocol || l->forwarded_for) && is_listed(l, &c->address);
}

bool caller_read_forwarded_for(const struct config_listener *l, const struct req_head *req, struct caller *c)
{
    if (c->origin != CALLER_SOCKET) return true;           /* a PROXY header has said it, before a reload */
    if (!caller_peer_is_trusted(l, &c->peer)) return true; /* anybody may write the field */
    switch (forwarded_for_find(req->fields, req->nfields, is_listed, l, &c->address)) {
    case FORWARDED_FOR_ABSENT: return true;
    case FORWARDED_FOR_FOUND: c->origin = CALLER_X_FORWARDED_FOR; return true;
    case FORWARDED_FOR_MALFORMED: break;
    }
    return false;
}
