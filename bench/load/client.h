/* client.h - one connection of the load generator. It checks whatever it gets: status, framing, echo.
 *
 *   CLOSED -> CONNECTING -> [HANDSHAKE] -> HEAD -> BODY -> IDLE -> HEAD ...
 *     ^                                      `-> (101) -> ECHO -> IDLE -> ECHO ...
 *     `- closing <- any: the server closes, `renew`, an error
 *
 * Thread: the loop's.
 */
#ifndef LOAD_CLIENT_H
#define LOAD_CLIENT_H

#include "load/load.h"
#include "load/secure.h"

/* One for each connection of the plan; NULL when memory is out. */
struct load_client *clients_create(struct load *l);
void clients_destroy(struct load_client *clients, uint32_t n);

struct load_client *client_at(struct load_client *clients, uint32_t i);

/* Connects and makes one request (or upgrade) that is not counted; then load_idle(). */
void client_greet(struct load_client *c);

/* Does one operation that is due at `due_us`, connecting first where that is needed; then load_count() and
 * load_idle(), or load_idle() after a tolerated loss, or load_out(). Only for an idle one. */
void client_start(struct load_client *c, uint64_t due_us);

/* True once: the first time that the client is idle. */
bool client_is_new(struct load_client *c);

/* Closes for good. */
void client_close(struct load_client *c);

#endif
