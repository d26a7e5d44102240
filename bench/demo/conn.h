/* conn.h - one connection of the demo backend.
 *
 *   HEAD -> BODY -> ANSWER -> HEAD ...      the next request is read when the answer has gone out
 *    |                `----> LINGER         FIN sent, waits for the client's
 *    `--------------> WS                    after an upgrade
 *
 * Thread: [worker].
 */
#ifndef DEMO_CONN_H
#define DEMO_CONN_H

#include "demo/worker.h"

/* Takes over an accepted socket. The connection frees itself when it ends. */
void demo_conn_accept(struct demo_worker *w, int fd);

#endif
