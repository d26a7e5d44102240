/* redis_dial.h - a connection to a Redis server or a Sentinel with the login and the TLS that the
 * configuration asks for.
 *
 * The password file and those of TLS are read at each dialling: what was renewed needs no restart.
 *
 * Thread: [the loop's]; reads small files.
 */
#ifndef STORE_REDIS_DIAL_H
#define STORE_REDIS_DIAL_H

#include "config/config.h"
#include "net/tls_certificate.h"
#include "store/redis_conn.h"

struct redis_access {
    const char *user;                    /* NULL as in redis_options */
    const char *password_file;           /* NULL: no AUTH */
    const struct config_tls_client *tls; /* NULL or not enabled: plain */
    const char *client_name;
    bool must_be_master;
    uint64_t connect_timeout_ms, command_timeout_ms;
};

/* As redis_open(); everything is borrowed for the call only. `name`: of the host, as it was written, for the
 * certificate; NULL: the address itself. Errors: those of redis_open(), ERR_REFUSED (the password file cannot
 * be used), ERR_TLS (the files of TLS cannot); all with `why`. */
enum err redis_dial(struct loop *l, const struct redis_access *access, const struct socket_address *address,
                    const char *name, const struct redis_events *events, void *user, struct redis_conn **out,
                    struct errmsg *why);

/* Reads the password files and those of TLS as a connection would. Each that cannot be used is said through
 * `warnings`, as is what `warnings` is for otherwise. */
void redis_dial_check(const struct config_redis *config, const struct tls_warnings *warnings);

#endif
