/* Changes on their way to Redis: each is one call of the one script (redis_schema.h), which checks the
 * version and writes record, log, counts and audit in one step. Many go out at once, so that a hundred
 * thousand take seconds; the first failure ends it after the answers that are on their way.
 *
 * With foreign tokens among them, each call names the writing that it follows: the last one that was looked
 * at, or our own before it. When others have written meanwhile, it and all behind it are refused, and come
 * again once the log has shown that the others have none of these tokens. */
#include "proofctl/redis_state.h"

#include "base/outbuf.h"
#include "proofctl/claims.h"
#include "store/record_value.h"
#include "store/redis_error.h"
#include "store/redis_record.h"

#include <openssl/evp.h>

#include <inttypes.h>
#include <stdio.h>

enum {
    KEYS_N = 5,
    ARGUMENTS_MAX = 3 + KEYS_N + 4 + 2 * REDIS_FIELDS_MAX + 1,
    REPLICA_WAIT_MS = 1000,
    NONCE_COUNTED_CHARS = 8,
    EXPECTED_MAX = sizeof(struct backend_version) + 1 + REDIS_NONCE_MAX, /* a version, @, a nonce */
};

/* One commit. */
struct writing {
    struct backend_redis *r;
    const struct backend_change *changes;
    char sha1[REDIS_SHA1_CHARS + 1];      /* of the script */
    char nonce[REDIS_NONCE_CHARS + 1];    /* the end of it is counted up */
    uint32_t nsent;                       /* commands */
    struct claims claims;                 /* owned; without any, nobody else's change matters */
    uint64_t last;                        /* with claims: all changes up to this one were looked at, ... */
    char last_nonce[REDIS_NONCE_MAX + 1]; /* ... and this is its nonce */
    bool is_behind;                       /* of the last round: there are changes of others, ... */
    uint64_t newer;                       /* ... up to this one; valid with is_behind */
    bool lacks_script;                    /* of the last round: the server does not know it */
    bool is_lost;                         /* the link is of no more use */
    enum err error;                       /* the first; its sentence is in the faults */
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

/* The nonce of the command `number` of this commit. */
static void make_nonce(const struct writing *w, uint32_t number, char out[static REDIS_NONCE_CHARS + 1])
{
    (void)snprintf(out, REDIS_NONCE_CHARS + 1, "%.*s%08" PRIx32, REDIS_NONCE_CHARS - NONCE_COUNTED_CHARS,
                   w->nonce, number); /* fits */
}

/* `follows`: the nonce of the writing that it follows, when that matters. */
static enum err send_change(struct writing *w, const struct backend_change *change, bool with_text,
                            const char *follows)
{
    struct command_line c = {.n = 0};
    struct redis_fields fields = {0};
    char key[REDIS_KEY_MAX], nonce[REDIS_NONCE_CHARS + 1], expected[EXPECTED_MAX];
    struct outbuf o = outbuf_of(expected, sizeof expected); /* it fits */
    outbuf_str(&o, change->expected ? (const char *)change->expected->bytes : "0");
    if (w->claims.n) {
        outbuf_char(&o, '@');
        outbuf_str(&o, follows);
    }
    make_nonce(w, w->nsent, nonce);
    enum err e = make_fields(w->r, change, &fields);
    if (!e) {
        redis_keys_partner(&w->r->keys, span_str(change->id), key);
        add(&c, with_text ? SPAN("EVAL") : SPAN("EVALSHA"));
        add(&c, span_str(with_text ? redis_script_write : w->sha1));
        add_keys(&c, &w->r->keys, key);
        add(&c, change->json.p ? SPAN("set") : SPAN("del"));
        add(&c, span_str(change->id));
        add(&c, span_of(o.p, o.n));
        add(&c, span_str(nonce));
        for (size_t i = 0; i < fields.n; i++) {
            add(&c, span_str(fields.names[i]));
            add(&c, fields.values[i]);
        }
        add(&c, change->audit);
        e = redis_link_send(w->r->link, c.n, c.argv, c.lengths);
        if (e) e = redis_fail_link(w->r, e);
    }
    w->nsent += !e;
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

/* Behind a change that found no script the newest may be our own: there is nothing to look at then. */
static enum err note_newer(struct writing *w, const redisReply *reply)
{
    const struct span text = span_of(reply->str, reply->len), head = SPAN("NEWER ");
    bool is_number =
        span_starts(text, head) && span_to_u64(span_of(text.p + head.n, text.n - head.n), &w->newer);
    if (!is_number) return redis_fail_malformed(w->r, "the script");
    if (w->newer > w->last || !w->lacks_script) w->is_behind = true;
    return ERR_AGAIN;
}

/* Errors: ERR_AGAIN (the server does not know the script yet, or others have written). */
static enum err judge(struct writing *w, const struct backend_change *change, bool with_text,
                      const redisReply *reply)
{
    struct span code = redis_error_code(reply);
    uint64_t sequence;
    if (span_eq(code, SPAN("NOSCRIPT")) && !with_text) {
        w->lacks_script = true;
        return ERR_AGAIN;
    }
    if (span_eq(code, SPAN("NEWER")) && w->claims.n) return note_newer(w, reply);
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
    w->is_lost = w->r->base.is_outcome_unknown = true;
    keep_error(w, redis_fail(w->r, e, "%s; whether %s made is not known: look before you try again",
                             redis_link_fault(w->r->link),
                             nwaiting == 1 ? "the change was" : "the last changes were"));
}

/* --- changes of others ---------------------------------------------------------------------------- */

static void note_last(struct writing *w, uint64_t sequence, const char *nonce)
{
    w->last = sequence;
    (void)snprintf(w->last_nonce, sizeof w->last_nonce, "%s", nonce); /* at most REDIS_NONCE_MAX */
}

/* Where the log, which is empty, would go on. */
static enum err read_number(struct writing *w)
{
    const char *const argv[] = {"HGET", w->r->keys.meta, "seq"};
    redisReply *reply;
    uint64_t sequence;
    enum err e = redis_ask(w->r, 3, argv, &reply);
    if (e) return e;
    if (redis_number(reply, &sequence))
        note_last(w, sequence, reply->str);
    else
        e = redis_fail_malformed(w->r, argv[0]);
    freeReplyObject(reply);
    return e;
}

/* Where the log ends now. */
static enum err read_last(struct writing *w)
{
    const char *const argv[] = {"XREVRANGE", w->r->keys.log, "+", "-", "COUNT", "1"};
    struct redis_entry entry;
    redisReply *page;
    enum err e = redis_ask(w->r, 6, argv, &page);
    if (e) return e;
    bool has_entry = page->type == REDIS_REPLY_ARRAY && page->elements == 1;
    if (has_entry && redis_entry_read(page->element[0], &entry))
        e = redis_fail_malformed(w->r, argv[0]);
    else if (has_entry)
        note_last(w, entry.sequence, entry.nonce);
    freeReplyObject(page);
    return e || has_entry ? e : read_number(w);
}

/* Nobody may have a claimed token when the first change goes out. */
static enum err check_claims(struct writing *w)
{
    enum err e = read_last(w);
    return e ? e : claims_check(&w->r->base, &w->claims);
}

/* One change that somebody else has made. Errors: ERR_CONFLICT. */
static enum err look_at_entry(void *arg, const struct redis_entry *entry)
{
    static const struct span names[] = {SPAN("client_token_sha256"), SPAN("previous_token_sha256")};
    struct writing *w = arg;
    char id[PARTNER_ID_MAX + 1];
    bool is_disputed = false;
    if (entry->sequence != w->last + 1) return ERR_OK; /* a gap: look_at_news() sees it */
    note_last(w, entry->sequence, entry->nonce);
    (void)span_to_cstr(entry->id, id, sizeof id); /* redis_entry_read() has checked it */
    for (size_t i = 0; !entry->is_delete && i < sizeof names / sizeof *names; i++) {
        uint8_t digest[TOKEN_DIGEST_BYTES];
        const redisReply *text = redis_field(entry->reply, names[i]);
        if (text && record_value_to_digest(span_of(text->str, text->len), digest))
            is_disputed |= claims_dispute(&w->claims, id, digest, &w->r->base.faults);
    }
    return is_disputed ? ERR_CONFLICT : ERR_OK;
}

static enum err look_at_news(struct writing *w)
{
    uint64_t before = w->last;
    enum err e = redis_read_log(w->r, before + 1, look_at_entry, w);
    if (e || (w->last > before && w->last >= w->newer)) return e;
    return redis_fail(w->r, ERR_CONFLICT,
                      "somebody else writes, and the log does not say what: look at `proofctl audit`");
}

/* --- all of them ---------------------------------------------------------------------------------- */

/* A part of the changes, sent at once. */
struct batch {
    const struct backend_change *changes;
    size_t n;
    size_t ndone;
    bool is_done[REDIS_BATCH];
};

/* Change `i` of the batch was made by the command `number`. */
static void note_written(struct writing *w, struct batch *b, size_t i, uint32_t number)
{
    char nonce[REDIS_NONCE_CHARS + 1];
    make_nonce(w, number, nonce);
    note_last(w, w->r->base.sequence, nonce);
    b->is_done[i] = true;
    b->ndone++;
}

/* Sends what is not done and takes the answers. `with_text`: sends the script itself. */
static void write_round(struct writing *w, struct batch *b, bool with_text)
{
    size_t sent[REDIS_BATCH], nsent = 0;
    const uint32_t first = w->nsent;
    char follows[REDIS_NONCE_MAX + 1];
    memcpy(follows, w->last_nonce, sizeof follows);
    for (size_t i = 0; i < b->n && !w->error; i++) {
        if (b->is_done[i]) continue;
        keep_error(w, send_change(w, &b->changes[i], with_text, follows));
        make_nonce(w, w->nsent - 1, follows);
        if (!w->error) sent[nsent++] = i; /* else it was not sent; what was is answered */
    }
    for (size_t i = 0; i < nsent; i++) {
        redisReply *reply;
        enum err e = redis_link_receive(w->r->link, 0, &reply);
        if (e) {
            fail_lost(w, e, nsent - i);
            return;
        }
        e = judge(w, &b->changes[sent[i]], with_text, reply);
        freeReplyObject(reply);
        if (!e) note_written(w, b, sent[i], first + (uint32_t)i);
        if (e && e != ERR_AGAIN) keep_error(w, e);
    }
}

/* Every further round brings the script, or looks at changes of others: more of them than there were. */
static void write_batch(struct writing *w, const struct backend_change *changes, size_t n)
{
    struct batch b = {.changes = changes, .n = n};
    bool with_text = false;
    while (!w->error && b.ndone < n) {
        w->lacks_script = w->is_behind = false;
        write_round(w, &b, with_text);
        with_text = w->lacks_script;
        if (!w->error && w->is_behind) keep_error(w, look_at_news(w));
    }
}

static void write_all(struct writing *w, size_t n)
{
    /* The first one goes alone: it brings the script when the server does not have it. */
    for (size_t at = 0, batch = 1; at < n && !w->error; at += batch, batch = REDIS_BATCH) {
        if (batch > n - at) batch = n - at;
        write_batch(w, &w->changes[at], batch);
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
    unsigned char hash[EVP_MAX_MD_SIZE];
    unsigned n;
    if (!EVP_Digest(redis_script_write, strlen(redis_script_write), hash, &n, EVP_sha1(), NULL))
        return ERR_NOMEM;
    ascii_hex_write(w->sha1, hash, REDIS_SHA1_CHARS / 2);
    w->sha1[REDIS_SHA1_CHARS] = '\0';
    return ERR_OK;
}

enum err redis_commit(struct backend *b, const struct backend_change *changes, size_t n)
{
    struct writing w = {.r = redis_of(b), .changes = changes};
    w.error = redis_begin(w.r);
    if (!w.error) w.error = hash_script(&w);
    if (!w.error) w.error = redis_nonce(w.r, w.nonce);
    if (!w.error) w.error = claims_make(changes, n, &w.claims);
    if (!w.error && w.claims.n) w.error = check_claims(&w);
    if (!w.error) write_all(&w, n);
    claims_deinit(&w.claims);
    if (b->ncommitted > 0 && !w.is_lost) wait_for_replica(w.r);
    if (w.error && n > 1 && b->ncommitted > 0)
        (void)redis_fail(w.r, w.error,
                         "%zu of %zu changes were made before that; the same command does the rest",
                         b->ncommitted, n);
    return w.error;
}
