#include "store/redis_dial.h"

#include "net/tls_client.h"
#include "store/secret_file.h"

#include <string.h>

/* What a connection needs for a moment. */
struct dialling {
    char password[SECRET_ROOM]; /* wiped */
    char host[ENDPOINT_HOST_BYTES];
    struct tls_client *client; /* owned; NULL = plain */
};

static enum err read_password(const struct redis_access *access, struct dialling *d, struct errmsg *why)
{
    if (!access->password_file) return ERR_OK;
    return secret_file_read(access->password_file, d->password, why) ? ERR_REFUSED : ERR_OK;
}

static enum err prepare_tls(const struct config_tls_client *tls, const struct tls_warnings *warnings,
                            struct tls_client **client, struct errmsg *why)
{
    const struct tls_certificate_files files = {.certificate = tls->certificate_file, .key = tls->key_file};
    const struct tls_client_settings settings = {.authorities = tls->ca_file,
                                                 .certificate = files.certificate ? &files : NULL};
    struct errmsg cause;
    if (tls_client_create(&settings, warnings, &cause, client) == ERR_OK) return ERR_OK;
    errmsg_set(why, 0, 0, "TLS: %.200s", cause.text);
    return ERR_TLS;
}

static enum err open_conn(struct loop *l, const struct redis_access *access,
                          const struct socket_address *address, const struct dialling *d,
                          const struct redis_events *events, void *user, struct redis_conn **out)
{
    const struct tls_target target = {.client = d->client, .host = d->host};
    const struct redis_options o = {.address = address,
                                    .tls = d->client ? &target : NULL,
                                    .user = access->user,
                                    .password = access->password_file ? d->password : NULL,
                                    .client_name = access->client_name,
                                    .must_be_master = access->must_be_master,
                                    .connect_timeout_ms = access->connect_timeout_ms,
                                    .command_timeout_ms = access->command_timeout_ms};
    return redis_open(l, &o, events, user, out);
}

enum err redis_dial(struct loop *l, const struct redis_access *access, const struct socket_address *address,
                    const char *name, const struct redis_events *events, void *user, struct redis_conn **out,
                    struct errmsg *why)
{
    const struct tls_warnings unwanted = {0}; /* they would come at each dialling */
    const struct addr ip = addr_from_sockaddr(&address->any);
    struct dialling d = {.client = NULL};
    char text[sizeof(struct sockaddr_un) + 8];
    enum err e = read_password(access, &d, why);
    if (!e && access->tls && access->tls->enabled) {
        config_tls_host(access->tls, name, &ip, d.host);
        e = prepare_tls(access->tls, &unwanted, &d.client, why);
    }
    if (!e) {
        e = open_conn(l, access, address, &d, events, user, out);
        socket_address_format(address, text, sizeof text);
        if (e) errmsg_set(why, 0, 0, "%s: cannot connect: %s", text, err_text(e));
    }
    tls_client_unref(d.client);
    explicit_bzero(d.password, sizeof d.password);
    return e;
}

static void check_password(const char *file, const struct tls_warnings *warnings)
{
    char password[SECRET_ROOM];
    struct errmsg cause, why;
    if (file && secret_file_read(file, password, &cause)) {
        errmsg_set(&why, 0, 0, "the password cannot be used: %.200s", cause.text);
        warnings->fn(why.text, warnings->arg);
    }
    explicit_bzero(password, sizeof password);
}

void redis_dial_check(const struct config_redis *config, const struct tls_warnings *warnings)
{
    check_password(config->password_file, warnings);
    check_password(config->sentinel_password_file, warnings);
    struct tls_client *client = NULL;
    struct errmsg why;
    if (config->tls.enabled && prepare_tls(&config->tls, warnings, &client, &why))
        warnings->fn(why.text, warnings->arg);
    tls_client_unref(client);
}
