/* Changes on their way to Redis: each is one call of the one script (redis_schema.h), which checks the
 * version and writes record, log, counts and audit in one step. Many go out at once, so that a hundred
 * thousand take seconds; the first failure ends it after the answers that are on their way. */
#include "proofctl/redis_state.h"

#include "store/redis_error.h"
#include "store/redis_record.h"

#include <openssl/evp.h>

#include <stdio.h>
#include <stdlib.h>

enum {
    KEYS_N = 5,
    ARGUMENTS_MAX = 3 + KEYS_N + 4 + 2 * REDIS_FIELDS_MAX + 1,
    REPLICA_WAIT_MS = 1000,
};

/* One commit. */
struct writing {
    struct backend_redis *r;
    const struct backend_change *changes;
    char sha1[REDIS_SHA1_CHARS + 1]; /* of the script */
    enum err error;                  /* the first; its sentence is in the faults */
    bool is_lost;                    /* the link is of no more use */
};

/* --- one command ---------------------------------------------------------------------------------- */

struct command_line {
    const char *argv[ARGUMENTS_MAX];
    size_t lengths[ARGUMENTS_MAX];
    size_t n;
};

static void add(struct command_line *c, struct span argument)
{
    c->argv[c->n] = argument.p;
    c->lengths[c->n++] = argument.n;
}

static void add_keys(struct command_line *c, const struct redis_keys *keys, const char *key)
{
    add(c, SPAN("5"));
    add(c, span_str(key));
    add(c, span_str(keys->seq));
    add(c, span_str(keys->log));
    add(c, span_str(keys->meta));
    add(c, span_str(keys->audit));
}

/* The fields of the new record; none for a removal. Errors: ERR_NOMEM, ERR_RANGE (not valid). */
static enum err make_fields(struct backend_redis *r, const struct backend_change *change,
                            struct redis_fields *out)
{
    struct partner_record record;
    struct record_report report = {0};
    if (!change->json.p) return ERR_OK;
    enum err e = record_parse(change->json, 1, &record, &report);
    if (e == ERR_PARSE) return redis_fail(r, ERR_RANGE, "%s: %s", change->id, report.faults.list[0].text);
    if (e) return e;
    e = redis_fields_make(&record, out);
    record_deinit(&record);
    return e;
}

static enum err send_change(struct writing *w, const struct backend_change *change, bool with_text)
{
    struct command_line c = {.n = 0};
    struct redis_fields fields = {0};
    char key[REDIS_KEY_MAX], nonce[REDIS_NONCE_CHARS + 1];
    const char *expected = change->expected ? (const char *)change->expected->bytes : "0";
    enum err e = redis_nonce(w->r, nonce);
    if (!e) e = make_fields(w->r, change, &fields);
    if (!e) {
        redis_keys_partner(&w->r->keys, span_str(change->id), key);
        add(&c, with_text ? SPAN("EVAL") : SPAN("EVALSHA"));
        add(&c, span_str(with_text ? redis_script_write : w->sha1));
        add_keys(&c, &w->r->keys, key);
        add(&c, change->json.p ? SPAN("set") : SPAN("del"));
        add(&c, span_str(change->id));
        add(&c, span_str(expected));
        add(&c, span_str(nonce));
        for (size_t i = 0; i < fields.n; i++) {
            add(&c, span_str(fields.names[i]));
            add(&c, fields.values[i]);
        }
        add(&c, change->audit);
        e = redis_link_send(w->r->link, c.n, c.argv, c.lengths);
        if (e) e = redis_fail_link(w->r, e);
    }
    redis_fields_deinit(&fields);
    return e;
}

/* --- one answer ----------------------------------------------------------------------------------- */

static enum err fail_conflict(struct writing *w, const struct backend_change *change, const redisReply *reply)
{
    bool is_gone = strcmp(reply->str, "CONFLICT 0") == 0;
    if (!change->expected)
        return redis_fail(w->r, ERR_EXISTS, "there is a partner \"%s\" already; choose another --id",
                          change->id);
    if (is_gone)
        return redis_fail(w->r, ERR_CONFLICT,
                          "somebody else has removed \"%s\" meanwhile; nothing was changed", change->id);
    return redis_fail(
        w->r, ERR_CONFLICT,
        "somebody else has changed \"%s\" meanwhile; nothing was changed: look at it and try again",
        change->id);
}

/* Errors: ERR_AGAIN (the server does not know the script yet). */
static enum err judge(struct writing *w, const struct backend_change *change, const redisReply *reply)
{
    struct span code = redis_error_code(reply);
    uint64_t sequence;
    if (span_eq(code, SPAN("NOSCRIPT"))) return ERR_AGAIN;
    if (span_eq(code, SPAN("CONFLICT"))) return fail_conflict(w, change, reply);
    if (span_eq(code, SPAN("NOTFOUND")))
        return redis_fail(w->r, ERR_CONFLICT,
                          "somebody else has removed \"%s\" meanwhile; nothing was changed", change->id);
    if (reply->type == REDIS_REPLY_ERROR)
        return redis_fail_link(w->r, redis_link_refuse(w->r->link, "nothing was changed", reply));
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 3 ||
        !redis_number(reply->element[0], &sequence))
        return redis_fail(w->r, ERR_IO, "the answer to the script is malformed");
    w->r->base.sequence = sequence;
    w->r->base.ncommitted++;
    return ERR_OK;
}

static void keep_error(struct writing *w, enum err e)
{
    if (!w->error) w->error = e;
}

/* The connection is gone while `nwaiting` answers had not come. */
static void fail_lost(struct writing *w, enum err e, size_t nwaiting)
{
    w->is_lost = true;
    keep_error(w, redis_fail(w->r, e, "%s; whether %s made is not known: look before you try again",
                             redis_link_fault(w->r->link),
                             nwaiting == 1 ? "the change was" : "the last changes were"));
}

/* --- all of them ---------------------------------------------------------------------------------- */

/* Sends changes[from, from + n) and takes their answers. `again[i]` becomes whether the server did not know
 * the script; with_text: sends the script itself, to those of `again`. */
static void write_batch(struct writing *w, size_t from, size_t n, bool with_text, bool *again)
{
    size_t nsent = 0;
    for (; nsent < n && !w->error; nsent++)
        if (!with_text || again[nsent]) keep_error(w, send_change(w, &w->changes[from + nsent], with_text));
    if (w->error) nsent--; /* that one was not sent; what was is answered */
    for (size_t i = 0; i < nsent; i++) {
        redisReply *reply;
        if (with_text && !again[i]) continue;
        enum err e = redis_link_receive(w->r->link, 0, &reply);
        if (e) {
            fail_lost(w, e, nsent - i);
            return;
        }
        e = judge(w, &w->changes[from + i], reply);
        freeReplyObject(reply);
        again[i] = e == ERR_AGAIN;
        if (e && e != ERR_AGAIN) keep_error(w, e);
    }
}

static bool is_any(const bool *flags, size_t n)
{
    size_t i = 0;
    while (i < n && !flags[i])
        i++;
    return i < n;
}

static void write_all(struct writing *w, size_t n)
{
    bool again[REDIS_BATCH] = {false};
    /* The first one goes alone: it brings the script when the server does not have it. */
    for (size_t at = 0, batch = 1; at < n && !w->error; at += batch, batch = REDIS_BATCH) {
        if (batch > n - at) batch = n - at;
        write_batch(w, at, batch, false, again);
        if (!w->error && is_any(again, batch)) write_batch(w, at, batch, true, again);
        progress_show(w->r->base.progress, at + batch, n);
    }
    progress_clear(w->r->base.progress);
}

/* A change that only the master has dies with it. */
static void wait_for_replica(struct backend_redis *r)
{
    static const char *const argv[] = {"WAIT", "1", "1000"};
    redisReply *reply;
    if (r->master.nreplicas == 0) return;
    enum err e = redis_link_send(r->link, 3, argv, NULL);
    if (!e) e = redis_link_receive(r->link, REPLICA_WAIT_MS, &reply);
    bool is_safe = !e && reply->type == REDIS_REPLY_INTEGER && reply->integer > 0;
    if (!e) freeReplyObject(reply);
    if (!is_safe)
        (void)snprintf(
            r->base.note, sizeof r->base.note,
            "the change is in force, but no replica has confirmed it within %d s: it may be lost when "
            "the master fails",
            REPLICA_WAIT_MS / 1000);
}

static enum err hash_script(struct writing *w)
{
    static const char digits[] = "0123456789abcdef";
    unsigned char hash[EVP_MAX_MD_SIZE];
    unsigned n;
    if (!EVP_Digest(redis_script_write, strlen(redis_script_write), hash, &n, EVP_sha1(), NULL))
        return ERR_NOMEM;
    for (size_t i = 0; i < REDIS_SHA1_CHARS / 2; i++) {
        w->sha1[2 * i] = digits[hash[i] >> 4];
        w->sha1[2 * i + 1] = digits[hash[i] & 15];
    }
    w->sha1[REDIS_SHA1_CHARS] = '\0';
    return ERR_OK;
}

enum err redis_commit(struct backend *b, const struct backend_change *changes, size_t n)
{
    struct writing w = {.r = redis_of(b), .changes = changes};
    w.error = redis_begin(w.r);
    if (!w.error) w.error = hash_script(&w);
    if (w.error) return w.error;
    write_all(&w, n);
    if (b->ncommitted > 0 && !w.is_lost) wait_for_replica(w.r);
    if (w.error && n > 1 && b->ncommitted > 0)
        (void)redis_fail(w.r, w.error,
                         "%zu of %zu changes were made before that; the same command does the rest",
                         b->ncommitted, n);
    return w.error;
}
