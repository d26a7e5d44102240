#include "load/wording.h"

#include "base/outbuf.h"

#include <string.h>

const char load_ws_key[] = "dGhlIHNhbXBsZSBub25jZQ==";

bool load_request_prepare(struct load *l)
{
    const struct load_plan *plan = l->plan;
    struct outbuf o = outbuf_of(l->request_bytes, sizeof l->request_bytes);
    outbuf_fmt(&o, "%s %s HTTP/1.1\r\nHost: %s\r\n", plan->body ? "POST" : "GET", plan->path, plan->host);
    outbuf_str(&o, plan->headers);
    if (plan->websocket)
        outbuf_fmt(&o,
                   "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: "
                   "13\r\nSec-WebSocket-Key: %s\r\n",
                   load_ws_key);
    if (plan->body)
        outbuf_fmt(&o, "Content-Type: application/json\r\nContent-Length: %zu\r\n", strlen(plan->body));
    l->nfields = o.n;
    outbuf_str(&o, "\r\n");
    if (plan->body) outbuf_str(&o, plan->body);
    l->nrequest = o.n;
    return !o.overflow;
}

uint32_t load_frame_head(uint8_t *p, uint32_t n, bool masked)
{
    uint8_t mask = masked ? 0x80 : 0;
    p[0] = 0x81;
    if (n < 126) {
        p[1] = (uint8_t)(mask | n);
        return 2;
    }
    p[1] = mask | 126;
    p[2] = (uint8_t)(n >> 8);
    p[3] = (uint8_t)n;
    return 4;
}

void load_message_text(char text[static LOAD_MESSAGE_MIN], uint64_t number)
{
    memcpy(text, "message 00000000", LOAD_MESSAGE_MIN);
    for (int i = LOAD_MESSAGE_MIN - 1; number && i >= 8; i--, number /= 10)
        text[i] = (char)('0' + number % 10);
}
