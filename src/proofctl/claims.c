#include "proofctl/claims.h"

#include "proofctl/token_text.h"

#include <stdlib.h>

/* --- collecting ----------------------------------------------------------------------------------- */

static int compare_claims(const void *a, const void *b)
{
    const struct claim *x = a, *y = b;
    return memcmp(x->digest, y->digest, sizeof x->digest);
}

static int compare_ids(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Errors: ERR_NOMEM. */
static enum err add_tokens(struct claims *c, const struct backend_change *change)
{
    struct partner_record record;
    struct record_report report;
    record_report_init(&report);
    enum err e = record_parse(change->json, 1, &record, &report);
    if (e) return e == ERR_PARSE ? ERR_OK : e; /* the commit says what is wrong with it */
    for (enum token_slot slot = SLOT_CURRENT; slot <= SLOT_PREVIOUS; slot++) {
        if (!record.partner.has_token[slot]) continue;
        struct claim *claim = &c->list[c->n++];
        memcpy(claim->digest, record.partner.digest[slot], sizeof claim->digest);
        claim->id = change->id;
    }
    record_deinit(&record);
    return ERR_OK;
}

enum err claims_make(const struct backend_change *changes, size_t n, struct claims *c)
{
    enum err e = ERR_OK;
    size_t nforeign = 0;
    *c = (struct claims){0};
    for (size_t i = 0; i < n; i++)
        nforeign += changes[i].has_foreign_tokens;
    if (nforeign == 0) return ERR_OK;
    c->list = calloc(2 * nforeign, sizeof *c->list); /* a record has two tokens at most */
    c->ids = calloc(n, sizeof *c->ids);
    if (!c->list || !c->ids) return ERR_NOMEM;
    for (size_t i = 0; !e && i < n; i++) {
        c->ids[c->nids++] = changes[i].id;
        if (changes[i].has_foreign_tokens) e = add_tokens(c, &changes[i]);
    }
    qsort(c->list, c->n, sizeof *c->list, compare_claims);
    qsort(c->ids, c->nids, sizeof *c->ids, compare_ids);
    return e;
}

void claims_deinit(struct claims *c)
{
    free(c->list);
    free(c->ids);
    *c = (struct claims){0};
}

/* --- comparing ------------------------------------------------------------------------------------ */

bool claims_dispute(const struct claims *c, const char *id, const uint8_t digest[static TOKEN_DIGEST_BYTES],
                    struct record_messages *faults)
{
    char hex[2 * TOKEN_DIGEST_BYTES + 1];
    struct claim wanted;
    memcpy(wanted.digest, digest, sizeof wanted.digest);
    const struct claim *claim =
        c->n ? bsearch(&wanted, c->list, c->n, sizeof *c->list, compare_claims) : NULL;
    if (!claim || strcmp(claim->id, id) == 0) return false;
    token_text_hex(digest, hex);
    record_messages_add(
        faults, 0, 0,
        "%s: its token (fingerprint %.*s) belongs to \"%s\"; each token belongs to one partner: "
        "issue a new one",
        claim->id, TOKEN_FINGERPRINT_CHARS, hex, id);
    return true;
}

struct looking {
    const struct claims *claims;
    struct record_messages rivals;
};

static enum err look_at(void *arg, const struct backend_record *r)
{
    struct looking *l = arg;
    struct partner_record record;
    struct record_report report;
    record_report_init(&report);
    if (bsearch(&r->id, l->claims->ids, l->claims->nids, sizeof *l->claims->ids, compare_ids)) return ERR_OK;
    enum err e = record_parse(r->json, 1, &record, &report);
    if (e) return e;
    for (enum token_slot slot = SLOT_CURRENT; slot <= SLOT_PREVIOUS; slot++)
        if (record.partner.has_token[slot])
            (void)claims_dispute(l->claims, r->id, record.partner.digest[slot],
                                 &l->rivals); /* it counts them */
    record_deinit(&record);
    return ERR_OK;
}

enum err claims_check(struct backend *b, const struct claims *c)
{
    struct looking l = {.claims = c};
    enum err e = b->ops->list(b, look_at, &l);
    if (e && e != ERR_PARSE) return e;
    b->faults = l.rivals;
    return l.rivals.total > 0 ? ERR_RANGE : ERR_OK;
}
