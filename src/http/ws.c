#include "http/ws.h"

#include "http/chars.h"

#include <openssl/evp.h>

/* ---- opening handshake ---- */

/* The only field with this identifier, or NULL. */
static const struct http_field *only_field(const struct http_field *fields, uint32_t n, enum field_id id)
{
    const struct http_field *found = NULL;
    for (uint32_t i = 0; i < n; i++) {
        if (fields[i].id != id) continue;
        if (found) return NULL;
        found = &fields[i];
    }
    return found;
}

static bool upgrades_to_websocket(const struct http_field *fields, uint32_t n)
{
    const struct http_field *upgrade = only_field(fields, n, FIELD_UPGRADE);
    return upgrade && span_ieq(upgrade->value, SPAN("websocket"));
}

/* RFC 4648 section 4. */
static const struct char_set base64_chars = {{['+'] = 1, ['/'] = 1, CHARS_DIGIT, CHARS_ALPHA}};

/* 16 bytes in base64: 21 characters, one whose last four bits are zero, and "==". */
static bool is_key(struct span key)
{
    if (key.n != WS_KEY_LEN || key.p[22] != '=' || key.p[23] != '=') return false;
    for (size_t i = 0; i < 21; i++)
        if (!char_in(&base64_chars, key.p[i])) return false;
    return memchr("AQgw", key.p[21], 4) != NULL;
}

bool ws_is_upgrade_request(const struct req_head *req, struct span *key)
{
    if (req->method != METHOD_GET || req->minor != 1 || req->body != BODY_NONE || !req->has_upgrade)
        return false;
    if (!upgrades_to_websocket(req->fields, req->nfields)) return false;
    const struct http_field *version = only_field(req->fields, req->nfields, FIELD_SEC_WEBSOCKET_VERSION);
    const struct http_field *nonce = only_field(req->fields, req->nfields, FIELD_SEC_WEBSOCKET_KEY);
    if (!version || !span_eq(version->value, SPAN("13")) || !nonce || !is_key(nonce->value)) return false;
    *key = nonce->value;
    return true;
}

bool ws_is_accepting_response(const struct res_head *res, struct span key)
{
    if (res->status != 101 || res->minor != 1 || !res->has_upgrade) return false;
    if (!upgrades_to_websocket(res->fields, res->nfields)) return false;
    if (http_field_find(res->fields, res->nfields, FIELD_CONTENT_LENGTH)) return false;
    if (http_field_find(res->fields, res->nfields, FIELD_TRANSFER_ENCODING)) return false;

    char want[WS_ACCEPT_LEN];
    const struct http_field *accept = only_field(res->fields, res->nfields, FIELD_SEC_WEBSOCKET_ACCEPT);
    return accept && ws_accept(key, want) == ERR_OK && span_eq(accept->value, span_of(want, sizeof want));
}

enum err ws_accept(struct span key, char out[static WS_ACCEPT_LEN])
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"; /* RFC 6455 section 1.3 */
    enum { GUID_LEN = sizeof guid - 1, SHA1_LEN = 20 };
    BUG_IF(key.n != WS_KEY_LEN, "not a WebSocket key");

    unsigned char text[WS_KEY_LEN + GUID_LEN], digest[EVP_MAX_MD_SIZE], base64[WS_ACCEPT_LEN + 1];
    memcpy(text, key.p, WS_KEY_LEN);
    memcpy(text + WS_KEY_LEN, guid, GUID_LEN);
    if (!EVP_Q_digest(NULL, "SHA1", NULL, text, sizeof text, digest, NULL)) return ERR_NOMEM;
    EVP_EncodeBlock(base64, digest, SHA1_LEN); /* adds a NUL */
    memcpy(out, base64, WS_ACCEPT_LEN);
    return ERR_OK;
}

/* ---- frames ---- */

/* RFC 6455 section 5.2:  FIN rsv opcode | MASK length7 | 16 or 64 bits of length | 32 of mask | payload */
enum {
    FIN_BIT = 0x80,
    OPCODE_BITS = 0x0f,
    MASK_BIT = 0x80,
    LENGTH_BITS = 0x7f,
    LENGTH_16 = 126,
    LENGTH_64 = 127,
    CONTROL_MAX = 125, /* payload of a control frame, section 5.5 */
    CLOSE_REASON_MAX = 123,
};

enum ws_opcode { OPCODE_BINARY = 2, OPCODE_CONTROL_FIRST = 8, OPCODE_CLOSE = 8 };

void ws_follower_init(struct ws_follower *f, bool masked)
{
    *f = (struct ws_follower){.masked = masked};
}

static void frame_end(struct ws_follower *f)
{
    f->nheader = 0;
    if (f->opcode == OPCODE_CLOSE) f->close_seen = true;
    if (f->opcode <= OPCODE_BINARY && f->fin) f->messages++;
}

/* Bytes of the extended length, from the first two bytes of the header. */
static unsigned length_bytes(const struct ws_follower *f)
{
    unsigned length = f->header[1] & LENGTH_BITS;
    if (length == LENGTH_64) return 8;
    return length == LENGTH_16 ? 2 : 0;
}

static unsigned header_bytes(const struct ws_follower *f)
{
    return 2 + length_bytes(f) + (f->masked ? 4U : 0U);
}

/* The first two bytes have arrived. False when they cannot start a frame of this direction. */
static bool header_begin(struct ws_follower *f)
{
    f->fin = f->header[0] & FIN_BIT;
    f->opcode = f->header[0] & OPCODE_BITS;
    bool is_control = f->opcode >= OPCODE_CONTROL_FIRST;
    if (((f->header[1] & MASK_BIT) != 0) != f->masked) return false;
    return !is_control || (f->fin && (f->header[1] & LENGTH_BITS) <= CONTROL_MAX);
}

/* The whole header has arrived. False when the length is not in its shortest form or has its top bit set. */
static bool header_end(struct ws_follower *f)
{
    unsigned nbytes = length_bytes(f);
    f->payload_left = nbytes ? 0 : f->header[1] & LENGTH_BITS;
    for (unsigned i = 0; i < nbytes; i++)
        f->payload_left = f->payload_left << 8 | f->header[2 + i];
    if (nbytes == 2) return f->payload_left >= LENGTH_16;
    if (nbytes == 8) return f->payload_left > UINT16_MAX && f->payload_left <= INT64_MAX;
    return true;
}

static void header_take(struct ws_follower *f, uint8_t byte)
{
    f->header[f->nheader++] = byte;
    if (f->nheader < 2) return;
    if (f->nheader == 2 && !header_begin(f)) {
        f->lost = true;
    } else if (f->nheader == header_bytes(f)) {
        if (!header_end(f))
            f->lost = true;
        else if (f->payload_left == 0)
            frame_end(f);
    }
}

/* The header is complete, the payload is not. */
static bool is_in_payload(const struct ws_follower *f)
{
    return f->payload_left > 0;
}

void ws_follow(struct ws_follower *f, const char *p, size_t n)
{
    for (size_t i = 0; i < n && !f->lost;) {
        if (!is_in_payload(f)) {
            header_take(f, (uint8_t)p[i++]);
            continue;
        }
        uint64_t take = n - i < f->payload_left ? n - i : f->payload_left;
        f->payload_left -= take;
        i += (size_t)take;
        if (f->payload_left == 0) frame_end(f);
    }
}

bool ws_at_boundary(const struct ws_follower *f)
{
    return !f->lost && f->nheader == 0 && !is_in_payload(f);
}

size_t ws_close_frame(uint16_t code, struct span reason, char out[static 127])
{
    BUG_IF(reason.n > CLOSE_REASON_MAX, "close reason too long");
    out[0] = (char)(FIN_BIT | OPCODE_CLOSE);
    out[1] = (char)(2 + reason.n);
    out[2] = (char)(code >> 8);
    out[3] = (char)(code & 0xff);
    if (reason.n) memcpy(out + 4, reason.p, reason.n);
    return 4 + reason.n;
}
