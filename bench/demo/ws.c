#include "demo/ws.h"

#include "http/ws.h"

enum {
    FIN = 0x80,
    RESERVED = 0x70,
    OPCODE = 0x0f,
    MASKED = 0x80,
    OP_TEXT = 1,
    OP_CLOSE = 8,
    OP_PING = 9,
    OP_PONG = 10,
    LENGTH_16 = 126,
    LENGTH_64 = 127,
};

static const char *const statuses[] = {"pending", "kyc_verified", "payment_received", "processing",
                                       "completed"};
enum { NSTATUSES = sizeof statuses / sizeof statuses[0] };

enum err demo_ws_open(struct demo_ws *ws, const struct demo_request *r, struct span key, uint32_t interval_ms,
                      struct outbuf *o)
{
    char accept[WS_ACCEPT_LEN];
    enum err e = ws_accept(key, accept);
    if (e) return e;
    *ws = (struct demo_ws){.echo = span_eq(demo_query(r->query, SPAN("echo")), SPAN("1"))};
    ws->interval_ms = demo_query_u32(r->query, SPAN("interval_ms"), UINT32_MAX, ws->echo ? 0 : interval_ms);
    ws->updates = demo_query_u32(r->query, SPAN("updates"), UINT32_MAX, 0);
    struct span tx_id = demo_query(r->query, SPAN("tx_id"));
    ws->ntx_id = (uint8_t)(tx_id.n < DEMO_TX_ID_MAX ? tx_id.n : DEMO_TX_ID_MAX);
    if (ws->ntx_id) memcpy(ws->tx_id, tx_id.p, ws->ntx_id);
    outbuf_str(o, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                  "Sec-WebSocket-Accept: ");
    outbuf_bytes(o, accept, sizeof accept);
    outbuf_str(o, "\r\n\r\n");
    return ERR_OK;
}

static void write_header(struct outbuf *o, uint8_t first, uint64_t n)
{
    unsigned size = n < LENGTH_16 ? 0 : n <= UINT16_MAX ? 2 : 8;
    outbuf_char(o, (char)first);
    outbuf_char(o, (char)(size == 0 ? n : size == 2 ? LENGTH_16 : LENGTH_64));
    while (size)
        outbuf_char(o, (char)(n >> (8 * --size)));
}

static void write_frame(struct outbuf *o, uint8_t opcode, const void *p, size_t n)
{
    write_header(o, (uint8_t)(FIN | opcode), n);
    outbuf_bytes(o, p, n);
}

static void write_close(struct demo_ws *ws, unsigned code, struct outbuf *o)
{
    const uint8_t payload[2] = {(uint8_t)(code >> 8), (uint8_t)code};
    write_frame(o, OP_CLOSE, payload, sizeof payload);
    ws->ended = true;
}

static bool is_control(const struct demo_ws *ws)
{
    return (ws->header[0] & 0x8) != 0;
}

/* Bytes of the frame header, as far as its first two bytes say. */
static uint8_t header_bytes(const struct demo_ws *ws)
{
    if (ws->nheader < 2) return 2;
    uint8_t length = ws->header[1] & 0x7f;
    uint8_t extended = length == LENGTH_64 ? 8 : length == LENGTH_16 ? 2 : 0;
    return (uint8_t)(2 + extended + (ws->header[1] & MASKED ? 4 : 0));
}

static uint64_t payload_bytes(const struct demo_ws *ws)
{
    uint8_t length = ws->header[1] & 0x7f;
    unsigned extended = length == LENGTH_64 ? 8 : length == LENGTH_16 ? 2 : 0;
    uint64_t n = extended ? 0 : length;
    for (unsigned i = 0; i < extended; i++)
        n = n << 8 | ws->header[2 + i];
    return n;
}

/* A frame header is complete. A protocol error ends the connection with 1002 (RFC 6455 section 7.4.1). */
static void begin_frame(struct demo_ws *ws, struct outbuf *o)
{
    ws->in_payload = true;
    ws->payload_at = 0;
    ws->payload_left = payload_bytes(ws);
    bool is_wrong = !(ws->header[1] & MASKED) || (ws->header[0] & RESERVED) || ws->payload_left >> 63;
    if (is_control(ws)) is_wrong |= !(ws->header[0] & FIN) || ws->payload_left > DEMO_WS_CONTROL_MAX;
    if (is_wrong)
        write_close(ws, 1002, o);
    else if (ws->echo && !is_control(ws))
        write_header(o, ws->header[0], ws->payload_left);
}

/* Payload bytes without their mask, which is rotated so that it begins at this byte of the payload. */
static void unmask(char *to, const char *p, size_t n, const uint8_t *mask, uint64_t at)
{
    uint8_t turned[8];
    uint64_t word, mask_word;
    for (unsigned i = 0; i < sizeof turned; i++)
        turned[i] = mask[(at + i) & 3];
    memcpy(&mask_word, turned, sizeof mask_word);
    size_t i = 0;
    for (; n - i >= sizeof word; i += sizeof word) {
        memcpy(&word, p + i, sizeof word);
        word ^= mask_word;
        memcpy(to + i, &word, sizeof word);
    }
    for (; i < n; i++)
        to[i] = (char)((uint8_t)p[i] ^ turned[i & 3]);
}

static void take_payload(struct demo_ws *ws, const char *p, size_t n, struct outbuf *o)
{
    char *to = is_control(ws) ? (char *)ws->control + ws->payload_at : ws->echo ? outbuf_take(o, n) : NULL;
    if (to) unmask(to, p, n, ws->header + ws->nheader - 4, ws->payload_at);
    ws->payload_at += n;
    ws->payload_left -= n;
}

static void end_frame(struct demo_ws *ws, struct outbuf *o)
{
    uint8_t opcode = ws->header[0] & OPCODE;
    ws->in_payload = false;
    ws->nheader = 0;
    if (opcode == OP_PING) write_frame(o, OP_PONG, ws->control, (size_t)ws->payload_at);
    if (opcode == OP_CLOSE) {
        write_frame(o, OP_CLOSE, ws->control, ws->payload_at >= 2 ? 2 : 0);
        ws->ended = true;
    }
}

void demo_ws_read(struct demo_ws *ws, const char *p, size_t n, struct outbuf *o)
{
    while (n && !ws->ended) {
        size_t used;
        if (!ws->in_payload) {
            ws->header[ws->nheader++] = (uint8_t)*p;
            used = 1;
            if (ws->nheader == header_bytes(ws)) begin_frame(ws, o);
        } else {
            used = n < ws->payload_left ? n : (size_t)ws->payload_left;
            take_payload(ws, p, used, o);
        }
        p += used;
        n -= used;
        if (!ws->ended && ws->in_payload && ws->payload_left == 0) end_frame(ws, o);
    }
}

bool demo_ws_push(struct demo_ws *ws, struct outbuf *o)
{
    if (ws->ended || !demo_ws_wait_ms(ws)) return true;
    if (ws->echo && ws->in_payload && !is_control(ws)) return false;
    char text[256 + 6 * DEMO_TX_ID_MAX];
    struct outbuf t = outbuf_of(text, sizeof text);
    outbuf_str(&t, "{\"event\":\"tx.update\",\"merchant_transaction_id\":");
    outbuf_json(&t, span_of(ws->tx_id, ws->ntx_id));
    outbuf_fmt(&t, ",\"status\":\"%s\",\"sequence\":%u}",
               statuses[ws->sent < NSTATUSES ? ws->sent : NSTATUSES - 1], (unsigned)ws->sent + 1);
    write_frame(o, OP_TEXT, t.p, t.n);
    ws->sent++;
    if (ws->updates && ws->sent == ws->updates) write_close(ws, 1000, o);
    return true;
}

uint32_t demo_ws_wait_ms(const struct demo_ws *ws)
{
    bool has_more = ws->updates ? ws->sent < ws->updates : ws->sent < NSTATUSES;
    return has_more && !ws->ended ? ws->interval_ms : 0;
}
