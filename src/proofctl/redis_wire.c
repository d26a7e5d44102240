#include "proofctl/redis_wire.h"

#include "base/clock.h"
#include "net/tls_client.h"

#include <openssl/err.h>

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

struct redis_tls {
    struct tls_client *client; /* owned */
    const char *server_name;   /* borrowed from the configuration; NULL = the host's */
};

struct redis_wire {
    int fd;
    SSL *ssl; /* owned; NULL = no TLS */
};

/* --- waiting -------------------------------------------------------------------------------------- */

/* Errors: ERR_TIMEOUT, others of poll(2). */
static enum err wait_for(const struct redis_wire *w, short events, uint64_t deadline_us)
{
    for (;;) {
        uint64_t now = clock_mono_us();
        if (now >= deadline_us) return ERR_TIMEOUT;
        uint64_t left_ms = (deadline_us - now + 999) / 1000;
        struct pollfd p = {w->fd, events, 0};
        int n = poll(&p, 1, left_ms > INT_MAX ? INT_MAX : (int)left_ms);
        if (n > 0) return ERR_OK;
        if (n < 0 && errno != EINTR) return err_from_errno(errno);
    }
}

static const char *tls_reason(const struct redis_wire *w)
{
    long verified = SSL_get_verify_result(w->ssl);
    if (verified != X509_V_OK) return X509_verify_cert_error_string(verified);
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    return reason ? reason : "the server ended the connection";
}

/* After an SSL call that did not succeed: waits for what it wants. Errors: ERR_TIMEOUT, ERR_EOF, ERR_IO (of
 * TLS itself). */
static enum err wait_for_tls(const struct redis_wire *w, int result, uint64_t deadline_us)
{
    switch (SSL_get_error(w->ssl, result)) {
    case SSL_ERROR_WANT_READ: return wait_for(w, POLLIN, deadline_us);
    case SSL_ERROR_WANT_WRITE: return wait_for(w, POLLOUT, deadline_us);
    case SSL_ERROR_ZERO_RETURN: return ERR_EOF;
    default: return ERR_IO;
    }
}

static enum err explain(const struct redis_wire *w, enum err e, struct errmsg *why)
{
    if (e == ERR_TIMEOUT)
        errmsg_set(why, 0, 0, "the server does not answer in time");
    else if (e == ERR_EOF || e == ERR_RESET)
        errmsg_set(why, 0, 0, "the server closed the connection");
    else if (w->ssl && e == ERR_IO)
        errmsg_set(why, 0, 0, "the connection broke: TLS: %s", tls_reason(w));
    else
        errmsg_set(why, 0, 0, "the connection broke: %s", err_text(e));
    return ERR_UNREACHABLE;
}

/* --- TLS ------------------------------------------------------------------------------------------ */

enum err redis_tls_create(const struct config_tls_client *config, struct redis_tls **out, struct errmsg *why)
{
    const struct tls_certificate_files files = {.certificate = config->certificate_file,
                                                .key = config->key_file};
    const struct tls_client_settings settings = {.authorities = config->ca_file,
                                                 .certificate = files.certificate ? &files : NULL};
    const struct tls_warnings unwanted = {0}; /* the gateway, which has the same files, logs them */
    struct redis_tls *t = calloc(1, sizeof *t);
    if (!t) return ERR_NOMEM;
    t->server_name = config->server_name;
    enum err e = tls_client_create(&settings, &unwanted, why, &t->client);
    if (e) {
        redis_tls_destroy(t);
        return e == ERR_NOMEM ? e : ERR_REFUSED;
    }
    *out = t;
    return ERR_OK;
}

void redis_tls_destroy(struct redis_tls *t)
{
    if (!t) return;
    tls_client_unref(t->client);
    free(t);
}

static enum err shake_hands(struct redis_wire *w, uint64_t deadline_us, struct errmsg *why)
{
    for (;;) {
        ERR_clear_error();
        int result = SSL_connect(w->ssl);
        if (result == 1) return ERR_OK;
        enum err e = wait_for_tls(w, result, deadline_us);
        if (e == ERR_TIMEOUT) return explain(w, e, why);
        if (!e) continue;
        errmsg_set(why, 0, 0, "no TLS with this server: %s", tls_reason(w));
        return ERR_REFUSED;
    }
}

static enum err start_tls(struct redis_wire *w, const struct redis_tls *tls, const char *host,
                          uint64_t deadline_us, struct errmsg *why)
{
    const char *name = tls->server_name ? tls->server_name : host;
    w->ssl = tls_client_open(&(struct tls_target){.client = tls->client, .host = name});
    if (!w->ssl || SSL_set_fd(w->ssl, w->fd) != 1) return ERR_NOMEM;
    return shake_hands(w, deadline_us, why);
}

/* --- life ----------------------------------------------------------------------------------------- */

static const char *connect_text(enum err e)
{
    if (e == ERR_TIMEOUT) return "no answer in time";
    if (e == ERR_REFUSED) return "nobody listens there";
    return e == ERR_NOT_FOUND ? "there is no such socket" : err_text(e);
}

static enum err finish_connecting(struct redis_wire *w, uint64_t deadline_us)
{
    int error = 0;
    socklen_t size = sizeof error;
    enum err e = wait_for(w, POLLOUT, deadline_us);
    if (e) return e;
    if (getsockopt(w->fd, SOL_SOCKET, SO_ERROR, &error, &size)) error = errno;
    return error ? err_from_errno(error) : ERR_OK;
}

enum err redis_wire_open(const struct socket_address *a, const struct redis_tls *tls, const char *host,
                         uint64_t deadline_us, struct redis_wire **out, struct errmsg *why)
{
    struct redis_wire *w = calloc(1, sizeof *w);
    if (!w) return ERR_NOMEM;
    w->fd = -1;
    enum err e = socket_connect(a, false, &w->fd);
    if (!e) e = finish_connecting(w, deadline_us);
    if (e) {
        errmsg_set(why, 0, 0, "cannot connect: %s", connect_text(e));
        e = ERR_UNREACHABLE;
    } else if (tls) {
        e = start_tls(w, tls, host, deadline_us, why);
    }
    if (e) {
        redis_wire_close(w);
        return e;
    }
    *out = w;
    return ERR_OK;
}

void redis_wire_close(struct redis_wire *w)
{
    if (!w) return;
    if (w->ssl) {
        (void)SSL_shutdown(w->ssl); /* a courtesy */
        SSL_free(w->ssl);
    }
    if (w->fd >= 0) (void)close(w->fd); /* everything was written or does not count */
    free(w);
}

/* --- bytes ---------------------------------------------------------------------------------------- */

enum err redis_wire_write(struct redis_wire *w, const char *p, size_t n, uint64_t deadline_us,
                          struct errmsg *why)
{
    while (n > 0) {
        enum err e = ERR_OK;
        ERR_clear_error();
        int piece = n > INT_MAX ? INT_MAX : (int)n;
        ssize_t sent = w->ssl ? SSL_write(w->ssl, p, piece) : send(w->fd, p, n, MSG_NOSIGNAL);
        if (sent > 0) {
            p += sent;
            n -= (size_t)sent;
        } else if (w->ssl) {
            e = wait_for_tls(w, (int)sent, deadline_us);
        } else if (errno == EAGAIN) {
            e = wait_for(w, POLLOUT, deadline_us);
        } else if (errno != EINTR) {
            e = err_from_errno(errno);
        }
        if (e) return explain(w, e, why);
    }
    return ERR_OK;
}

enum err redis_wire_read(struct redis_wire *w, char *p, size_t cap, uint64_t deadline_us, size_t *n,
                         struct errmsg *why)
{
    for (;;) {
        enum err e = ERR_OK;
        ERR_clear_error();
        int room = cap > INT_MAX ? INT_MAX : (int)cap;
        ssize_t got = w->ssl ? SSL_read(w->ssl, p, room) : recv(w->fd, p, cap, 0);
        if (got > 0) {
            *n = (size_t)got;
            return ERR_OK;
        }
        if (w->ssl)
            e = wait_for_tls(w, (int)got, deadline_us);
        else if (got == 0)
            e = ERR_EOF;
        else if (errno == EAGAIN)
            e = wait_for(w, POLLIN, deadline_us);
        else if (errno != EINTR)
            e = err_from_errno(errno);
        if (e) return explain(w, e, why);
    }
}
