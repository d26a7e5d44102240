#include "proxy/tunnel_list.h"

#include "base/json_out.h"
#include "proxy/conn.h"
#include "proxy/tunnel.h"

static bool matches(const struct tunnel *t, const struct tunnel_filter *f)
{
    if (f->partner_id.n && !span_eq(f->partner_id, span_of(t->partner_id, t->npartner_id))) return false;
    return f->request_id.n == 0 || span_eq(f->request_id, span_of(t->request_id, UUID_LEN));
}

static void write_entry(const struct worker *w, const struct tunnel *t, struct json_out *j)
{
    char address[ADDR_TEXT_MAX];
    (void)addr_format(conn_address(t->conn), address);
    json_out_object(j, NULL);
    json_out_span(j, "request_id", span_of(t->request_id, UUID_LEN));
    json_out_span(j, "partner_id", span_of(t->partner_id, t->npartner_id));
    json_out_text(j, "environment", environment_name((enum environment)t->env));
    json_out_text(j, "token_slot", token_slot_name((enum token_slot)t->slot));
    json_out_text(j, "client", address);
    json_out_u64(j, "worker", w->index);
    json_out_u64(j, "age_ms", (w->loop.now_us - t->opened_us) / 1000);
    json_out_u64(j, "idle_ms", w->loop.now_ms - t->active_ms);
    json_out_u64(j, "bytes_in", t->client_bytes);
    json_out_u64(j, "bytes_out", t->backend_bytes);
    json_out_u64(j, "messages_in", t->from_client.messages);
    json_out_u64(j, "messages_out", t->from_backend.messages);
    json_out_end_object(j);
}

uint64_t tunnel_list_write(struct worker *w, const struct tunnel_filter *f, struct outbuf *o)
{
    struct json_out j = json_out_of(o);
    uint64_t n = 0;
    for (const struct conn *c = w->conns; c; c = c->next) {
        if (c->state != CONN_TUNNEL || !matches(c->tunnel, f)) continue;
        n++;
        if (o->cap - o->n >= TUNNEL_LIST_ENTRY_MAX) write_entry(w, c->tunnel, &j);
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
