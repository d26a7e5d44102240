/* Puts right what is kept of the records as a whole, after redis_check() has counted them. */
#include "proofctl/redis_state.h"

#include "store/redis_error.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { GHOSTS_PER_CALL = 500 };

/* One call of the script, with up to GHOSTS_PER_CALL ghosts from `from` on. */
struct mend_call {
    const char *argv[10 + 2 * GHOSTS_PER_CALL];
    size_t lengths[10 + 2 * GHOSTS_PER_CALL], argc;
    char keys[GHOSTS_PER_CALL][REDIS_KEY_MAX], versions[GHOSTS_PER_CALL][24];
    char nkeys[12], sequence[24], count[24], digest[REDIS_DIGEST_CHARS + 1], nonce[REDIS_NONCE_CHARS + 1];
};

static void add(struct mend_call *m, const char *text, size_t n)
{
    m->argv[m->argc] = text;
    m->lengths[m->argc++] = n;
}

static void add_str(struct mend_call *m, const char *text)
{
    add(m, text, strlen(text));
}

static void fill_call(struct mend_call *m, struct backend_redis *r, size_t from, size_t n, struct span audit)
{
    const struct redis_totals *t = &r->totals;
    (void)snprintf(m->nkeys, sizeof m->nkeys, "%zu", 4 + n); /* all fit */
    (void)snprintf(m->sequence, sizeof m->sequence, "%" PRIu64, t->sequence);
    (void)snprintf(m->count, sizeof m->count, "%" PRIu64, t->count);
    redis_digest_format(t->digest, m->digest);
    const char *const before[] = {"EVAL",      redis_script_mend, m->nkeys,     r->keys.seq,
                                  r->keys.log, r->keys.meta,      r->keys.audit};
    const char *const behind[] = {t->kept_sequence, m->sequence, m->count, m->digest, m->nonce};
    for (size_t i = 0; i < sizeof before / sizeof *before; i++)
        add_str(m, before[i]);
    for (size_t i = 0; i < n; i++) {
        const struct redis_ghost *g = &t->ghosts[from + i];
        redis_keys_partner(&r->keys, span_str(g->id), m->keys[i]);
        (void)snprintf(m->versions[i], sizeof m->versions[i], "%" PRIu64, g->version); /* fits */
        add_str(m, m->keys[i]);
    }
    for (size_t i = 0; i < sizeof behind / sizeof *behind; i++)
        add_str(m, behind[i]);
    add(m, audit.p, audit.n);
    for (size_t i = 0; i < n; i++)
        add_str(m, m->versions[i]);
}

static enum err send_call(struct backend_redis *r, const struct mend_call *m)
{
    redisReply *reply;
    enum err e = redis_link_send(r->link, m->argc, m->argv, m->lengths);
    if (!e) e = redis_link_receive(r->link, 0, &reply);
    if (e) return redis_fail_link(r, e);
    if (span_eq(redis_error_code(reply), SPAN("CONFLICT")))
        e = redis_fail(r, ERR_CONFLICT, "somebody else has changed a partner meanwhile; try again");
    else if (reply->type == REDIS_REPLY_ERROR)
        e = redis_fail_link(r, redis_link_refuse(r->link, "the script", reply));
    freeReplyObject(reply);
    return e;
}

static enum err mend_some(struct backend_redis *r, size_t from, size_t n, struct span audit)
{
    struct mend_call *m = calloc(1, sizeof *m);
    if (!m) return ERR_NOMEM;
    enum err e = redis_nonce(r, m->nonce);
    if (!e) {
        fill_call(m, r, from, n, audit);
        e = send_call(r, m);
    }
    if (!e) memcpy(r->totals.kept_sequence, m->sequence, sizeof m->sequence);
    free(m);
    return e;
}

enum err redis_mend(struct backend *b, struct span audit)
{
    struct backend_redis *r = redis_of(b);
    size_t at = 0;
    BUG_IF(!r->totals.is_known, "mending without having checked");
    enum err e = redis_begin(r);
    do {
        size_t left = r->totals.nghosts - at, n = left < GHOSTS_PER_CALL ? left : GHOSTS_PER_CALL;
        if (!e) e = mend_some(r, at, n, audit);
        at += n;
    } while (!e && at < r->totals.nghosts);
    return e;
}
