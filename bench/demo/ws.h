/* ws.h - the demo backend's WebSocket: pushes tx.update events, echoes when asked, answers ping and close.
 *
 *   GET /ws?tx_id=X             events for transaction X until its status is final; the connection stays open
 *       &interval_ms=N          between events (0 = none); default: the program's --interval-ms
 *       &updates=N              N events, then a close frame with code 1000
 *       &echo=1                 sends every text and binary frame back; no events unless interval_ms is given
 *
 * Echoed payload is passed on as it arrives, unmasked, so a message may be of any size; only a control
 * frame's payload (at most 125 bytes) is kept.
 *
 * Thread: [worker].
 */
#ifndef DEMO_WS_H
#define DEMO_WS_H

#include "base/outbuf.h"
#include "demo/routes.h"

enum { DEMO_TX_ID_MAX = 128, DEMO_WS_CONTROL_MAX = 125 };

struct demo_ws {
    uint8_t header[14]; /* of the client's current frame */
    uint8_t nheader;    /* bytes of it so far */
    bool in_payload;    /* the header is complete, payload_left says what is missing */
    uint64_t payload_left, payload_at;
    uint8_t control[DEMO_WS_CONTROL_MAX];
    bool echo;
    bool ended;             /* a close frame was sent: nothing more goes out */
    uint32_t interval_ms;   /* 0 = no events */
    uint32_t sent, updates; /* events sent; events before the close frame, 0 = none */
    uint8_t ntx_id;
    char tx_id[DEMO_TX_ID_MAX];
};

/* Reads the options of an accepted upgrade and writes the 101. Errors: ERR_NOMEM (libcrypto failed). */
enum err demo_ws_open(struct demo_ws *ws, const struct demo_request *r, struct span key, uint32_t interval_ms,
                      struct outbuf *o);

/* Takes the client's bytes and writes what they call for. At most n + 131 bytes are written. */
void demo_ws_read(struct demo_ws *ws, const char *p, size_t n, struct outbuf *o);

/* The moment for an event has come. True: it was written (or there is none left). False: in the middle of an
 * echoed frame, ask again soon. */
bool demo_ws_push(struct demo_ws *ws, struct outbuf *o);

/* Milliseconds until the next event; 0 = there is none to wait for. */
uint32_t demo_ws_wait_ms(const struct demo_ws *ws);

#endif
