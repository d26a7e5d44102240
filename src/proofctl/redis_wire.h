/* redis_wire.h - bytes to and from a Redis server: TCP, a unix socket, or TLS over either, with deadlines.
 *
 * Blocking for its caller, non-blocking underneath: every wait is a poll(2) up to a deadline, so that a
 * server that is silent never holds the command. Not the gateway's transport, which lives on a loop.
 *
 * TLS is that of the gateway (net/tls_client.h), with the same demands: what one accepts the other does too.
 *
 * Deadlines are microseconds of clock_mono_us().
 *
 * Thread: [any]; one wire, one thread. Blocks.
 */
#ifndef PROOFCTL_REDIS_WIRE_H
#define PROOFCTL_REDIS_WIRE_H

#include "config/config.h"
#include "net/socket.h"

struct redis_tls;
struct redis_wire;

/* Reads the certificates that the configuration names. Owns: the caller, until redis_tls_destroy().
 * Errors: ERR_REFUSED (`why`: which file, and what is wrong), ERR_NOMEM. */
enum err redis_tls_create(const struct config_tls_client *config, struct redis_tls **out, struct errmsg *why);
void redis_tls_destroy(struct redis_tls *t);

/* Connects. `tls` NULL: without TLS; else `host` is the name or address that the certificate must bear unless
 * the configuration names another. Owns: the caller, until redis_wire_close().
 * Errors: ERR_UNREACHABLE (nobody there, in time), ERR_REFUSED (the certificate, or TLS itself), ERR_NOMEM;
 * with `why`. */
enum err redis_wire_open(const struct socket_address *a, const struct redis_tls *tls, const char *host,
                         uint64_t deadline_us, struct redis_wire **out, struct errmsg *why);

/* Writes all of it. Errors: ERR_UNREACHABLE with `why`. */
enum err redis_wire_write(struct redis_wire *w, const char *p, size_t n, uint64_t deadline_us,
                          struct errmsg *why);

/* Reads at least one byte. Errors: ERR_UNREACHABLE (silence, end or reset) with `why`. */
enum err redis_wire_read(struct redis_wire *w, char *p, size_t cap, uint64_t deadline_us, size_t *n,
                         struct errmsg *why);

void redis_wire_close(struct redis_wire *w);

#endif
