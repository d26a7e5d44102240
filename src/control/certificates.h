/* certificates.h - what TLS speaks with, made from the configuration and the files that it names.
 *
 *   main: check   --.
 *   rollout       --+--> certificates_build() --> struct tls_contexts, anew or from those in force
 *
 * Everything is read and judged before anything is replaced. A digest of settings and file contents tells for
 * each context whether it is still the one in force: then it is taken over as it is.
 *
 * Thread: [control]; reads files.
 */
#ifndef CONTROL_CERTIFICATES_H
#define CONTROL_CERTIFICATES_H

#include "proxy/tls_contexts.h"

enum { CERTIFICATE_WARN_DAYS = 14 };

/* Fills in `*out`, which is empty on failure. `present`: those in force, or NULL. `now_ms`: monotonic, for
 * the ticket keys. Warnings come for contexts that are made anew: those of tls_certificate_load(), and
 * certificates that expire within CERTIFICATE_WARN_DAYS. Errors, all with `why`: those of
 * tls_server_create(), tls_client_create() and tls_tickets_create(). */
enum err certificates_build(const struct config *c, const struct tls_contexts *present, uint64_t now_ms,
                            const struct tls_warnings *warnings, struct tls_contexts *out,
                            struct errmsg *why);

/* One digest for all that certificates_build() would read now. Errors: ERR_NOMEM. */
enum err certificates_digest_files(const struct config *c, const struct tls_contexts *present,
                                   uint8_t digest[static TLS_DIGEST_BYTES]);

/* The same for contexts that were made. Errors: ERR_NOMEM. */
enum err certificates_digest_present(const struct tls_contexts *t, uint8_t digest[static TLS_DIGEST_BYTES]);

/* For `proofgw check`: builds, and throws away. Errors and warnings are written to `report`. Errors: those of
 * certificates_build(). */
enum err certificates_check(const struct config *c, FILE *report);

/* Each certificate that is shown to others, once for each file. */
void certificates_each(const struct tls_contexts *t,
                       void (*fn)(const struct tls_certificate *certificate, void *arg), void *arg);

/* Each file that is read for TLS, with repetitions. */
void certificates_each_file(const struct config *c, void (*fn)(const char *file, void *arg), void *arg);

#endif
