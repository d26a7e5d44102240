/* secure.h - the client's side of TLS for one connection: bytes in, bytes out, no socket.
 *
 * Certificates are not verified: what is measured is the server, and its certificate was made for the
 * measurement.
 *
 * Thread: [one].
 */
#ifndef LOAD_SECURE_H
#define LOAD_SECURE_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>

struct secure {
    SSL *ssl;             /* owned; NULL when there is no connection */
    SSL_SESSION *session; /* owned: the last ticket, for the next connection; NULL when there is none */
};

/* TLS 1.2 and 1.3; with `resume` tickets are kept. For TLS 1.3 it offers TLS_AES_128_GCM_SHA256 alone, which
 * every server must have (RFC 8446 section 9.1): otherwise each would choose the one that it likes best, and
 * 256-bit keys cost more. NULL when memory is out. Release with SSL_CTX_free(). */
SSL_CTX *secure_context(bool resume);

/* Begins a connection, resuming the session if there is one. False when memory is out. */
bool secure_open(struct secure *s, SSL_CTX *context, const char *host);

/* The connection has ended; the session stays for the next one. */
void secure_close(struct secure *s);

/* Frees everything. */
void secure_free(struct secure *s);

/* Takes bytes from the server. */
bool secure_feed(struct secure *s, const char *p, size_t n);

/* Goes on with the handshake. False when it failed; *done when it is complete. */
bool secure_handshake(struct secure *s, bool *done);

/* After the handshake: the server took the session of the connection before. */
bool secure_is_resumed(const struct secure *s);

/* Bytes for us: how many were put into p, 0 = none now, -1 = the connection is broken or over. */
int secure_read(struct secure *s, char *p, size_t n);

bool secure_write(struct secure *s, const char *p, size_t n);

/* Bytes that must go to the server now; they stay valid until secure_sent(). */
size_t secure_outgoing(struct secure *s, char **p);
void secure_sent(struct secure *s);

#endif
