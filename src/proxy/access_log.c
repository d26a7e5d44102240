#include "proxy/access_log.h"

#include "base/clock.h"
#include "base/log.h"
#include "proxy/conn.h"
#include "proxy/tunnel.h"
#include "proxy/worker.h"

enum {
    SNI_MAX = 255,
    LINE_MAX_BYTES =
        4096, /* a path of 1,024 bytes, a name that may grow sixfold, and some twenty short values */
};

/* Keys are literals, so that the text before a value is one piece of known length: a line is mostly keys. */
#define KEY(name) SPAN(",\"" name "\":")

/* For values that need no escaping: ours, and a path that was accepted. Part of its callers, where the length
 * of the key is known. */
static inline __attribute__((always_inline)) void write_text(struct outbuf *o, struct span key,
                                                             struct span value)
{
    char *at = outbuf_take(o, key.n + value.n + 2);
    if (!at) return;
    memcpy(at, key.p, key.n);
    at[key.n] = '"';
    memcpy(at + key.n + 1, value.p, value.n);
    at[key.n + 1 + value.n] = '"';
}

static inline void write_number(struct outbuf *o, struct span key, uint64_t value)
{
    outbuf_span(o, key);
    outbuf_u64(o, value);
}

/* Milliseconds with three digits, from two instants in microseconds. */
static inline void write_duration(struct outbuf *o, struct span key, uint64_t from_us, uint64_t to_us)
{
    if (from_us == 0 || to_us < from_us) return;
    outbuf_span(o, key);
    outbuf_milli(o, to_us - from_us);
}

static void begin_line(struct outbuf *o, const struct worker *w, struct span event, const char *request_id)
{
    char now[CLOCK_RFC3339_LEN];
    clock_rfc3339(w->loop.wall_ms, now);
    outbuf_span(o, SPAN("{\"time\":\""));
    outbuf_bytes(o, now, sizeof now);
    outbuf_char(o, '"');
    write_text(o, KEY("event"), event);
    write_text(o, KEY("request_id"), span_of(request_id, UUID_LEN));
}

static void write_client(struct outbuf *o, const struct conn *c)
{
    char text[ADDR_TEXT_MAX];
    enum caller_origin origin = c->named ? (enum caller_origin)c->named->origin : CALLER_SOCKET;
    size_t n = addr_format(conn_address(c), text);
    write_text(o, KEY("client_ip"), span_of(text, n));
    write_text(o, KEY("client_ip_source"), caller_origin_names[origin]);
    if (origin == CALLER_SOCKET) return;
    n = addr_format(&c->named->peer, text);
    write_text(o, KEY("peer_ip"), span_of(text, n));
}

/* The name is the client's choice: bounded like everything from outside, and escaped. */
static void write_tls(struct outbuf *o, const struct conn *c)
{
    struct tls_info tls;
    if (!stream_tls_info(&c->stream, &tls)) return;
    write_text(o, KEY("tls_version"), span_str(tls.version));
    write_text(o, KEY("tls_cipher"), span_str(tls.cipher));
    outbuf_str(o, tls.resumed ? ",\"tls_resumed\":true" : ",\"tls_resumed\":false");
    struct span name = tls.server_name ? span_str(tls.server_name) : SPAN("");
    if (name.n) {
        outbuf_span(o, KEY("sni"));
        outbuf_json(o, span_of(name.p, name.n < SNI_MAX ? name.n : SNI_MAX));
    }
    if (!c->client_certificate) return;
    char hex[2 * CERTIFICATE_DIGEST_BYTES];
    ascii_hex_write(hex, c->client_certificate, CERTIFICATE_DIGEST_BYTES);
    write_text(o, KEY("client_cert_sha256"), span_of(hex, sizeof hex));
}

static void write_end(struct outbuf *o, const char *who, const char *phase)
{
    outbuf_span(o, SPAN(",\"end\":\""));
    outbuf_str(o, who);
    outbuf_char(o, '/');
    outbuf_str(o, phase);
    outbuf_span(o, SPAN("\"}\n"));
}

/* A line that does not fit its reservation is not written at all rather than cut. */
static void end_line(const struct outbuf *o)
{
    log_access_commit(o->overflow ? 0 : o->n);
}

static void write_decision(struct outbuf *o, const struct exchange *x)
{
    if (x->has_env) write_text(o, KEY("env"), span_str(environment_name((enum environment)x->env)));
    if (x->partner_id.p) write_text(o, KEY("partner_id"), x->partner_id);
    if (x->partner != PARTNER_INDEX_NONE)
        write_text(o, KEY("token_slot"), span_str(token_slot_name((enum token_slot)x->slot)));
    if (x->deny) write_text(o, KEY("deny"), span_str(deny_text((enum deny)x->deny)));
    if (x->refusal) write_text(o, KEY("refused"), span_str(head_refusal_text((enum head_refusal)x->refusal)));
}

static void write_durations(struct outbuf *o, const struct exchange *x, uint64_t now_us)
{
    write_duration(o, KEY("duration_ms"), x->started_us, now_us);
    if (x->leased_us) {
        write_duration(o, KEY("queue_ms"), x->started_us, x->leased_us);
        if (!x->reused) write_duration(o, KEY("connect_ms"), x->leased_us, x->connected_us);
        write_duration(o, KEY("send_ms"), x->connected_us, x->sent_us);
        write_duration(o, KEY("backend_ms"), x->sent_us, x->answered_us);
        write_duration(o, KEY("receive_ms"), x->answered_us, now_us);
        outbuf_str(o, x->reused ? ",\"backend_reused\":true" : ",\"backend_reused\":false");
        if (x->retried) write_number(o, KEY("retries"), 1);
    }
}

void access_log_exchange(struct worker *w, const struct exchange *x, enum end_who who, enum end_phase phase)
{
    char *line = log_access_reserve(LINE_MAX_BYTES);
    if (!line) return;
    struct outbuf o = outbuf_of(line, LINE_MAX_BYTES);
    begin_line(&o, w, x->status == 101 ? SPAN("tunnel_open") : SPAN("request"), x->request_id);
    write_decision(&o, x);
    write_text(&o, KEY("method"), method_name((enum http_method)x->method));
    if (x->path.p) write_text(&o, KEY("path"), x->path);
    if (x->status) write_number(&o, KEY("status"), x->status);
    write_number(&o, KEY("bytes_in"), x->bytes_in);
    write_number(&o, KEY("bytes_out"), x->bytes_out);
    write_durations(&o, x, w->loop.now_us);
    write_client(&o, x->conn);
    write_tls(&o, x->conn);
    write_end(&o, end_who_names[who], end_phase_names[phase]);
    end_line(&o);
}

void access_log_tunnel_closed(struct worker *w, const struct tunnel *t, enum tunnel_end why)
{
    char *line = log_access_reserve(LINE_MAX_BYTES);
    if (!line) return;
    struct outbuf o = outbuf_of(line, LINE_MAX_BYTES);
    begin_line(&o, w, SPAN("tunnel_close"), t->request_id);
    write_text(&o, KEY("env"), span_str(environment_name((enum environment)t->env)));
    write_text(&o, KEY("partner_id"), span_of(t->partner_id, t->npartner_id));
    write_text(&o, KEY("token_slot"), span_str(token_slot_name((enum token_slot)t->slot)));
    write_number(&o, KEY("bytes_in"), t->client_bytes);
    write_number(&o, KEY("bytes_out"), t->backend_bytes);
    write_number(&o, KEY("messages_in"), t->from_client.messages);
    write_number(&o, KEY("messages_out"), t->from_backend.messages);
    write_duration(&o, KEY("duration_ms"), t->opened_us, w->loop.now_us);
    write_client(&o, t->conn);
    write_tls(&o, t->conn);
    write_end(&o, tunnel_end_names[why], "tunnel");
    end_line(&o);
}
