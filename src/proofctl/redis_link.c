#include "proofctl/redis_link.h"

#include "base/clock.h"
#include "store/bytes.h"
#include "store/redis_error.h"
#include "store/redis_reader.h"
#include "store/secret_file.h"

#include <stdlib.h>

#if HIREDIS_MAJOR > 0
typedef long long command_length;
#else
typedef int command_length;
#endif

enum { OUT_BYTES_MAX = 256 * 1024 }; /* collected before it is sent in any case */

struct redis_link {
    struct redis_wire *wire; /* owned */
    struct redis_reader reader;
    struct bytes out; /* not sent yet */
    uint64_t command_timeout_ms;
    struct errmsg why;
    char in[REDIS_FEED_BYTES_MAX];
};

const char *redis_link_fault(const struct redis_link *l)
{
    return l->why.text;
}

static uint64_t deadline_after(uint64_t ms)
{
    return clock_mono_us() + ms * 1000;
}

/* --- commands ------------------------------------------------------------------------------------- */

static enum err flush(struct redis_link *l, uint64_t deadline_us)
{
    if (l->out.n == 0) return ERR_OK;
    enum err e = redis_wire_write(l->wire, l->out.p, l->out.n, deadline_us, &l->why);
    l->out.n = 0;
    return e;
}

enum err redis_link_send(struct redis_link *l, size_t argc, const char *const *argv, const size_t *lengths)
{
    char *bytes;
    command_length n = redisFormatCommandArgv(&bytes, (int)argc, (const char **)(uintptr_t)argv, lengths);
    if (n < 0) return ERR_NOMEM;
    enum err e = bytes_add(&l->out, bytes, (size_t)n);
    redisFreeCommand(bytes);
    if (!e && l->out.n > OUT_BYTES_MAX) e = flush(l, deadline_after(l->command_timeout_ms));
    return e;
}

static enum err read_reply(struct redis_link *l, uint64_t deadline_us, redisReply **out)
{
    enum err e;
    while ((e = redis_reader_next(&l->reader, out)) == ERR_AGAIN) {
        size_t n;
        e = redis_wire_read(l->wire, l->in, sizeof l->in, deadline_us, &n, &l->why);
        if (e) return e;
        e = redis_reader_feed(&l->reader, l->in, n);
        if (e) break;
    }
    if (!e || e == ERR_NOMEM) return e;
    errmsg_set(&l->why, 0, 0, "what answers there is no Redis server: %s", redis_reader_fault(&l->reader));
    return ERR_IO;
}

enum err redis_link_receive(struct redis_link *l, uint64_t wait_ms, redisReply **out)
{
    uint64_t deadline_us = deadline_after(l->command_timeout_ms + wait_ms);
    enum err e = flush(l, deadline_us);
    return e ? e : read_reply(l, deadline_us, out);
}

enum err redis_link_refuse(struct redis_link *l, const char *doing, const redisReply *reply)
{
    char text[REDIS_CAUSE_MAX];
    struct span code = redis_error_code(reply);
    const char *advice = "";
    enum err e = redis_error_explain(reply, text, sizeof text);
    if (span_eq(code, SPAN("NOAUTH")))
        advice = "; log in with --user and --password-file";
    else if (span_eq(code, SPAN("NOPERM")))
        advice =
            "; log in as the operator with --user and --password-file (`proofctl acl` prints its rights)";
    errmsg_set(&l->why, 0, 0, "%s: %s%s", doing, text, advice);
    if (e == ERR_AGAIN || e == ERR_CONFLICT) return ERR_UNREACHABLE;
    return e;
}

enum err redis_link_call(struct redis_link *l, size_t argc, const char *const *argv, redisReply **out)
{
    redisReply *reply;
    enum err e = redis_link_send(l, argc, argv, NULL);
    if (!e) e = redis_link_receive(l, 0, &reply);
    if (e) return e;
    if (reply->type != REDIS_REPLY_ERROR) {
        *out = reply;
        return ERR_OK;
    }
    e = redis_link_refuse(l, argv[0], reply);
    freeReplyObject(reply);
    return e;
}

/* --- login ---------------------------------------------------------------------------------------- */

/* The answer to AUTH may quote what was sent. */
static enum err judge_login(struct redis_link *l, const redisReply *reply)
{
    char text[REDIS_CAUSE_MAX];
    if (reply->type != REDIS_REPLY_ERROR) return ERR_OK;
    enum err e = redis_error_explain_secret(reply, text, sizeof text);
    errmsg_set(&l->why, 0, 0, "AUTH: %s", text);
    return e == ERR_AGAIN ? ERR_UNREACHABLE : e == ERR_IO ? ERR_REFUSED : e;
}

static enum err send_secret(struct redis_link *l, const char *user, const char *password,
                            uint64_t deadline_us)
{
    const char *with_user[] = {"AUTH", user, password}, *without[] = {"AUTH", password};
    char *bytes;
    command_length n = redisFormatCommandArgv(&bytes, user ? 3 : 2, user ? with_user : without, NULL);
    if (n < 0) return ERR_NOMEM;
    enum err e = redis_wire_write(l->wire, bytes, (size_t)n, deadline_us, &l->why);
    explicit_bzero(bytes, (size_t)n);
    redisFreeCommand(bytes);
    return e;
}

static enum err log_in(struct redis_link *l, const struct redis_link_options *o, uint64_t deadline_us)
{
    char password[SECRET_ROOM];
    redisReply *reply;
    struct errmsg why;
    if (secret_file_read(o->password_file, password, &why)) {
        errmsg_set(&l->why, 0, 0, "the password cannot be used: %s", why.text);
        return ERR_REFUSED;
    }
    enum err e = send_secret(l, o->user, password, deadline_us);
    explicit_bzero(password, sizeof password);
    if (!e) e = read_reply(l, deadline_us, &reply);
    if (e) return e;
    e = judge_login(l, reply);
    freeReplyObject(reply);
    return e;
}

/* Only for people who look at CLIENT LIST; but without a login this is where the server says that it wants
 * one. */
static enum err tell_name(struct redis_link *l, uint64_t deadline_us)
{
    static const char *const argv[] = {"CLIENT", "SETNAME", "proofctl"};
    redisReply *reply;
    enum err e = redis_link_send(l, 3, argv, NULL);
    if (!e) e = flush(l, deadline_us);
    if (!e) e = read_reply(l, deadline_us, &reply);
    if (e) return e;
    struct span code = redis_error_code(reply);
    if (reply->type == REDIS_REPLY_ERROR && !span_eq(code, SPAN("NOPERM")) && !span_eq(code, SPAN("ERR")))
        e = redis_link_refuse(l, "CLIENT SETNAME", reply);
    freeReplyObject(reply);
    return e;
}

enum err redis_link_open(const struct redis_link_options *o, struct redis_link **out, struct errmsg *why)
{
    uint64_t deadline_us = deadline_after(o->connect_timeout_ms);
    struct redis_link *l = calloc(1, sizeof *l);
    if (!l) return ERR_NOMEM;
    l->command_timeout_ms = o->command_timeout_ms;
    enum err e = redis_reader_init(&l->reader);
    if (!e) e = redis_wire_open(o->address, o->tls, o->host, deadline_us, &l->wire, &l->why);
    if (!e && o->password_file) e = log_in(l, o, deadline_us);
    if (!e) e = tell_name(l, deadline_us);
    if (e) {
        *why = l->why;
        redis_link_close(l);
        return e;
    }
    *out = l;
    return ERR_OK;
}

void redis_link_close(struct redis_link *l)
{
    if (!l) return;
    redis_wire_close(l->wire);
    redis_reader_deinit(&l->reader);
    bytes_deinit(&l->out);
    free(l);
}
