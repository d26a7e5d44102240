#include "proxy/tunnel_list.h"

#include "proxy/conn.h"
#include "proxy/tunnel.h"

static bool matches(const struct tunnel *t, const struct tunnel_filter *f)
{
    if (f->partner_id.n && !span_eq(f->partner_id, span_of(t->partner_id, t->npartner_id))) return false;
    return f->request_id.n == 0 || span_eq(f->request_id, span_of(t->request_id, UUID_LEN));
}

static void write_entry(const struct worker *w, const struct tunnel *t, struct outbuf *o)
{
    char address[ADDR_TEXT_MAX];
    (void)addr_format(conn_address(t->conn), address);
    outbuf_str(o, "{\"request_id\":");
    outbuf_json(o, span_of(t->request_id, UUID_LEN));
    outbuf_str(o, ",\"partner_id\":");
    outbuf_json(o, span_of(t->partner_id, t->npartner_id));
    outbuf_fmt(o, ",\"environment\":\"%s\",\"token_slot\":\"%s\",\"client\":\"%s\",\"worker\":%u",
               environment_name((enum environment)t->env), token_slot_name((enum token_slot)t->slot), address,
               w->index);
    outbuf_fmt(o, ",\"age_ms\":%llu,\"idle_ms\":%llu",
               (unsigned long long)((w->loop.now_us - t->opened_us) / 1000),
               (unsigned long long)(w->loop.now_ms - t->active_ms));
    outbuf_fmt(o, ",\"bytes_in\":%llu,\"bytes_out\":%llu,\"messages_in\":%llu,\"messages_out\":%llu},",
               (unsigned long long)t->client_bytes, (unsigned long long)t->backend_bytes,
               (unsigned long long)t->from_client.messages, (unsigned long long)t->from_backend.messages);
}

uint64_t tunnel_list_write(struct worker *w, const struct tunnel_filter *f, struct outbuf *o)
{
    uint64_t n = 0;
    for (const struct conn *c = w->conns; c; c = c->next) {
        if (c->state != CONN_TUNNEL || !matches(c->tunnel, f)) continue;
        n++;
        if (o->cap - o->n >= TUNNEL_LIST_ENTRY_MAX) write_entry(w, c->tunnel, o);
    }
    return n;
}

/* Ending one connection never frees another within the same turn: `next` stays readable. */
uint64_t tunnel_list_close(struct worker *w, const struct tunnel_filter *f)
{
    uint64_t n = 0;
    for (struct conn *c = w->conns, *next; c; c = next) {
        next = c->next;
        if (c->state != CONN_TUNNEL || !matches(c->tunnel, f)) continue;
        n++;
        tunnel_end(c->tunnel, TUNNEL_END_OPERATOR);
    }
    return n;
}

static uint64_t drain_window_ms(const struct worker *w)
{
    const struct config_timeouts *t = &w->settings->config->timeouts;
    uint64_t most = t->shutdown_ms / 4 * 3;
    return w->mode == WORKER_ENDING && most < t->drain_tunnels_ms ? most : t->drain_tunnels_ms;
}

void tunnel_list_follow_mode(struct worker *w)
{
    uint64_t i = 0, n = (uint64_t)w->ntunnels[ENV_PRODUCTION] + w->ntunnels[ENV_SANDBOX];
    uint64_t window_ms = drain_window_ms(w);
    for (struct conn *c = w->conns, *next; c; c = next) {
        next = c->next; /* as above */
        if (c->state != CONN_TUNNEL) continue;
        bool stays = !worker_is_draining(w);
        tunnel_leave_at(c->tunnel, stays ? WHEEL_NEVER : w->loop.now_ms + window_ms * i++ / n);
    }
}
