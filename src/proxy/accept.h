/* accept.h - a new client connection: whether it is taken at all, and on what terms.
 *
 * Thread: [worker].
 */
#ifndef PROXY_ACCEPT_H
#define PROXY_ACCEPT_H

struct sockaddr;
struct worker;

/* Takes over an accepted socket. Over a connection limit it is answered 503 or reset. */
void accept_client(struct worker *w, int fd, const struct sockaddr *from);

#endif
