/* tls_tickets.h - the keys that session tickets are sealed with: one to seal, and earlier ones that still
 * open.
 *
 * They live outside the contexts, so that sessions resume after a reload. Own keys change by time, and each
 * opens for two periods: sessions, so tickets, last for one. Gateways that share clients share a file
 * instead, and whoever distributes it rotates:
 *
 *   # comment                                          one key a line, 160 hexadecimal digits (80 bytes):
 *   <name: 16 bytes><AES-256 key: 32><HMAC key: 32>    the first seals and opens, up to three more only open.
 *                                                      A new one: openssl rand -hex 80
 *
 * Publishing without locks: two slots, of which the version's lowest bit tells the current one. The writer
 * fills the other slot and counts up. A reader copies and looks whether the version is still the same; a
 * writer that stands still never makes it wait. Overwriting is also what wipes retired keys.
 *
 * Thread: create, refresh [control]; the rest [any].
 */
#ifndef NET_TLS_TICKETS_H
#define NET_TLS_TICKETS_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    TLS_TICKET_KEYS_MAX = 4,
    TLS_TICKET_NAME_BYTES = 16,
};

struct tls_ticket_key {
    uint8_t name[TLS_TICKET_NAME_BYTES]; /* public: it stands in the ticket */
    uint8_t aes[32], hmac[32];
};

struct tls_tickets;

/* `file`: shared keys, or NULL for keys of our own. `rotate_ms`: the period of own keys; sessions last that
 * long, with a file too. `now_ms`: monotonic. Errors: ERR_NOMEM, ERR_IO (no randomness), those of
 * tls_tickets_refresh(). */
enum err tls_tickets_create(const char *file, uint64_t rotate_ms, uint64_t now_ms, struct errmsg *why,
                            struct tls_tickets **out);
struct tls_tickets *tls_tickets_ref(struct tls_tickets *t);
void tls_tickets_unref(struct tls_tickets *t); /* the last one wipes the keys; NULL is fine */

/* Does what is due: a new own key after `rotate_ms`; the file read again. To be called now and then
 * (each minute, and when the file may have changed). `*changed`: other keys than before are in use. Errors,
 * all with `why`, the old keys stay: those of tls_file_read(), ERR_PARSE, ERR_IO. */
enum err tls_tickets_refresh(struct tls_tickets *t, uint64_t now_ms, bool *changed, struct errmsg *why);

uint64_t tls_tickets_rotate_ms(const struct tls_tickets *t);
const char *tls_tickets_file(const struct tls_tickets *t); /* NULL: keys of our own */

/* A copy of the key to seal with, or of the one with this name (false: not known). The caller wipes it. */
void tls_tickets_current(const struct tls_tickets *t, struct tls_ticket_key *out);
bool tls_tickets_find(const struct tls_tickets *t, const uint8_t name[TLS_TICKET_NAME_BYTES],
                      struct tls_ticket_key *out);

#endif
