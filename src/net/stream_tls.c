#include "net/stream_tls.h"

#include "base/container.h"
#include "net/tls.h"

#include <openssl/crypto.h>
#include <stdlib.h>
#include <unistd.h>

enum { ANSWERS_MAX = 4096 }; /* a KeyUpdate is 27 bytes */

/* Bytes that wait for their moment. */
struct held {
    char *p; /* owned */
    size_t n;
};

struct stream_tls {
    struct tls *engine; /* owned */
    struct stream *stream;
    struct held early;   /* HANDSHAKE, CONNECTING: plaintext to send */
    struct held arrived; /* decrypted while reading paused */
    enum err end;        /* to be told behind `arrived`: ERR_EOF, or a failure */
    size_t answers;      /* bytes that OpenSSL has sent by itself since `pending` was empty */
    struct loop_task resume;
};

static void let_go(struct held *h)
{
    if (h->p) OPENSSL_cleanse(h->p, h->n);
    free(h->p);
    *h = (struct held){0};
}

/* Adds a copy. Errors: ERR_NOMEM. */
static enum err hold(struct held *h, const struct iovec *iov, unsigned n, size_t total)
{
    struct held grown = {.p = malloc(h->n + total), .n = h->n};
    if (!grown.p) return ERR_NOMEM;
    if (h->n) memcpy(grown.p, h->p, h->n);
    for (unsigned i = 0; i < n; i++) {
        if (iov[i].iov_len) memcpy(grown.p + grown.n, iov[i].iov_base, iov[i].iov_len);
        grown.n += iov[i].iov_len;
    }
    let_go(h);
    *h = grown;
    return ERR_OK;
}

/* --- sending --------------------------------------------------------------------------------------- */

static enum err send_span(struct stream *s, struct span bytes)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)bytes.p, .iov_len = bytes.n};
    if (bytes.n == 0) return ERR_OK;
    return s->write_failed ? ERR_RESET : stream_send(s, &iov, 1, bytes.n);
}

/* Encrypts and sends. What OpenSSL refuses to encrypt is a failed write like any other. */
static enum err seal_and_send(struct stream *s, struct iovec *iov, unsigned n)
{
    struct tls_source from = {.iov = iov, .n = n};
    while (from.n) {
        struct span out;
        enum err e = tls_seal(s->tls->engine, &from, &out);
        if (e == ERR_TLS) {
            s->write_failed = true;
            return ERR_RESET;
        }
        if (!e) e = send_span(s, out);
        if (e) return e;
    }
    return ERR_OK;
}

enum err stream_tls_write(struct stream *s, struct iovec *iov, unsigned n, size_t total)
{
    if (s->state != STREAM_OPEN) return hold(&s->tls->early, iov, n, total);
    return seal_and_send(s, iov, n);
}

/* The result of sending is not used: a failure shows in the next write or read. */
void stream_tls_send_close_notify(struct stream *s)
{
    if (s->state != STREAM_OPEN || s->write_failed) return;
    if (send_span(s, tls_finish(s->tls->engine)) == ERR_NOMEM) s->write_failed = true;
}

void stream_tls_end(struct stream *s, enum stream_end how)
{
    struct stream_tls *t = s->tls;
    if (how == STREAM_END_CLOSE && !s->pending && !s->shut_wanted && !s->is_lost)
        stream_tls_send_close_notify(s);
    s->tls = NULL;
    loop_soon_cancel(stream_loop(s), &t->resume);
    let_go(&t->early);
    let_go(&t->arrived);
    tls_destroy(t->engine);
    free(t);
}

/* --- receiving ------------------------------------------------------------------------------------- */

static void tell_end(struct stream *s)
{
    enum err e = s->tls->end;
    s->tls->end = ERR_OK;
    s->eof = true;
    if (e != ERR_EOF) s->is_lost = true; /* nothing more is wanted from this socket */
    if (e == ERR_EOF)
        s->events->on_eof(s);
    else
        s->events->on_failed(s, e);
    if (s->state != STREAM_CLOSING && s->state != STREAM_NONE) stream_update_interest(s);
}

/* Failures of a handshake do not wait for a user who reads. */
static bool may_tell(const struct stream *s)
{
    return s->state == STREAM_HANDSHAKE || (s->state == STREAM_OPEN && s->reading);
}

bool stream_tls_has_waiting(const struct stream *s)
{
    return s->tls->arrived.n > 0 || s->tls->end != ERR_OK;
}

bool stream_tls_has_more(const struct stream *s)
{
    return stream_tls_has_waiting(s) || tls_is_inside_record(s->tls->engine);
}

bool stream_tls_hand_over(struct stream *s)
{
    if (!stream_tls_has_waiting(s)) return false;
    if (!may_tell(s)) return true;
    struct held bytes = s->tls->arrived;
    s->tls->arrived = (struct held){0};
    if (bytes.n) s->events->on_read(s, bytes.p, bytes.n);
    let_go(&bytes);
    if (may_tell(s) && s->tls->end) tell_end(s);
    return true;
}

static void on_resume(struct loop_task *task)
{
    (void)stream_tls_hand_over(
        CONTAINER_OF(task, struct stream_tls, resume)->stream); /* paused again: stays */
}

void stream_tls_resume(struct stream *s)
{
    if (stream_tls_has_waiting(s)) loop_soon(stream_loop(s), &s->tls->resume);
}

/* `plain` is given to the user at once, or kept while reading is paused (only in the moment when a handshake
 * ends). */
static void deliver(struct stream *s, struct span plain, enum err end)
{
    struct stream_tls *t = s->tls;
    struct iovec iov = {.iov_base = (void *)(uintptr_t)plain.p, .iov_len = plain.n};
    t->end = end;
    if (plain.n && s->reading)
        s->events->on_read(s, plain.p, plain.n);
    else if (plain.n && hold(&t->arrived, &iov, 1, plain.n))
        t->end = ERR_NOMEM;
    if (may_tell(s) && t->end) tell_end(s);
}

/* HANDSHAKE -> OPEN. What was written meanwhile goes out before what on_connected writes. */
static enum err become_open(struct stream *s)
{
    struct held early = s->tls->early;
    struct iovec iov = {.iov_base = early.p, .iov_len = early.n};
    bool had_early = early.n > 0;
    s->tls->early = (struct held){0};
    stream_set_state(s, STREAM_OPEN);
    enum err e = had_early ? seal_and_send(s, &iov, 1) : ERR_OK;
    let_go(&early);
    if (s->shut_wanted) stream_tls_send_close_notify(s);
    if (e == ERR_NOMEM) return e;
    stream_tell_open(s);
    stream_finish_shutdown(s);
    if (had_early && s->state == STREAM_OPEN && !s->pending) s->events->on_drained(s);
    return ERR_OK;
}

/* Sends what OpenSSL produces by itself: the handshake, and later answers to key updates. The user's
 * back-pressure does not cover those, so they have a bound of their own: else a client that never reads could
 * fill our memory. Errors: ERR_NOMEM, ERR_LIMIT. A reset while sending is found by reading, as without TLS.
 */
static enum err send_answer(struct stream *s, struct span out)
{
    struct stream_tls *t = s->tls;
    if (!s->pending) t->answers = 0;
    if (s->state == STREAM_OPEN) t->answers += out.n;
    if (t->answers > ANSWERS_MAX) return ERR_LIMIT;
    return send_span(s, out) == ERR_NOMEM ? ERR_NOMEM : ERR_OK;
}

void stream_tls_take(struct stream *s, const char *p, size_t n)
{
    struct tls_result r;
    tls_feed(s->tls->engine, p, n, &r);
    enum err e = send_answer(s, r.out);
    if (!e && r.secured) e = become_open(s);
    if (s->state == STREAM_OPEN || s->state == STREAM_HANDSHAKE) deliver(s, r.plain, e ? e : r.end);
}

/* Only when close_notify has not come: behind it nothing is read any more. Bytes may be missing (RFC 8446
 * section 6.1). */
void stream_tls_take_fin(struct stream *s)
{
    deliver(s, (struct span){0}, ERR_TRUNCATED);
}

/* --- opening --------------------------------------------------------------------------------------- */

static struct stream_tls *wrap(struct stream *s, struct tls *engine)
{
    struct stream_tls *t = calloc(1, sizeof *t);
    if (!t) return NULL;
    t->engine = engine;
    t->stream = s;
    t->resume.run = on_resume;
    return t;
}

enum err stream_open_tls(struct stream *s, struct loop *l, int fd, struct tls_server *server,
                         const struct stream_events *events)
{
    struct tls *engine = NULL;
    enum err e = tls_accept(l, server, &engine);
    struct stream_tls *t = e ? NULL : wrap(s, engine);
    if (t) {
        e = stream_start(s, l, fd, events, STREAM_HANDSHAKE);
        s->tls = e ? NULL : t;
    } else {
        e = ERR_NOMEM;
        (void)close(fd);
    }
    if (!e) return ERR_OK;
    free(t);
    tls_destroy(engine);
    return e;
}

enum err stream_connect_tls(struct stream *s, struct loop *l, const struct socket_address *a,
                            const struct tls_target *to, const struct stream_events *events)
{
    struct tls *engine = NULL;
    enum err e = tls_dial(l, to, &engine);
    struct stream_tls *t = e ? NULL : wrap(s, engine);
    e = t ? stream_connect(s, l, a, events) : ERR_NOMEM;
    if (!e) {
        s->tls = t;
        return ERR_OK;
    }
    free(t);
    tls_destroy(engine);
    return e;
}

void stream_tls_begin(struct stream *s)
{
    stream_set_state(s, STREAM_HANDSHAKE);
    stream_update_interest(s);
    stream_tls_take(s, NULL, 0);
}

bool stream_tls_info(const struct stream *s, struct tls_info *out)
{
    return s->tls && tls_describe(s->tls->engine, out);
}

const char *stream_tls_reason(const struct stream *s)
{
    return s->tls ? tls_reason(s->tls->engine) : NULL;
}

bool stream_covers_host(const struct stream *s, struct span host)
{
    return !s->tls || tls_covers_host(s->tls->engine, host);
}

bool stream_tls_fingerprint(const struct stream *s, uint8_t out[static 32])
{
    return s->tls && tls_fingerprint(s->tls->engine, out);
}

enum tls_failure stream_tls_failure(const struct stream *s, enum err e)
{
    enum tls_failure said = s->tls ? tls_failure(s->tls->engine) : TLS_FAILURE_NONE;
    if (said) return said;
    return e == ERR_NOMEM ? TLS_FAILURE_MEMORY : TLS_FAILURE_CLOSED;
}
